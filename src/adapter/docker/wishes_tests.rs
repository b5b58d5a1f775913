//! What Docker 20.10 and Podman 4.3 really answered, and what nobody should.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DOCKER: &str = include_str!("recorded/docker-20.10-bridge.json");
const PODMAN: &str = include_str!("recorded/podman-4.3-bridge.json");
const JOINED: &str = include_str!("recorded/docker-20.10-joined.json");
const NONE: &str = include_str!("recorded/docker-20.10-none.json");
const HOST: &str = include_str!("recorded/docker-20.10-host.json");

fn adopt(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn made(json: &str, names: &[&str]) -> Vec<Wish> {
    let container: Container = serde_json::from_str(json).unwrap();
    wishes(&container, &adopt(names)).into_iter().map(Result::unwrap).collect()
}

/// Docker's, with something else in it.
fn changed(change: impl FnOnce(&mut Value)) -> Container {
    let mut json: Value = serde_json::from_str(DOCKER).unwrap();
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_container_of_dockers() {
    let [wish] = &made(DOCKER, &["shop", "bridge"])[..] else { panic!() };
    assert_eq!(wish.name.as_str(), "bridge/web2");
    assert_eq!(wish.about, "container web2 (89e293593f77) in network bridge");
    assert_eq!(wish.labels.to_string(), "app=web");
    assert_eq!((wish.ipv6, wish.ipv4), (None, Some([172, 17, 0, 2].into())));
    assert_eq!(wish.mac.unwrap().to_string(), "02:42:ac:11:00:02");
    assert!(wish.id.as_str().starts_with(&AttachmentId::prefix(ADOPTED, "bridge")));
    let process = (PathBuf::from("/proc/482/ns/net"), false);
    assert_eq!(wish.namespaces, [("/run/docker-exec/netns/80e31b88936b".into(), true), process]);
    assert_eq!(made(DOCKER, &["shop"]), []);
}

#[test]
fn a_container_of_podmans() {
    let [wish] = &made(PODMAN, &["podman"])[..] else { panic!() };
    assert_eq!(wish.name.as_str(), "podman/web2");
    assert_eq!(wish.labels.to_string(), "app=web");
    assert_eq!(wish.ipv4, Some([10, 88, 0, 3].into()));
    assert!(wish.namespaces[0].0.starts_with("/run/netns") && wish.namespaces[0].1);
    // Under the name that Podman itself shows, whatever its compatible API calls the network.
    let renamed = PODMAN.replace("\"podman\": {", "\"bridge\": {");
    assert_eq!(made(&renamed, &["podman"])[0].id, wish.id);
}

#[test]
fn who_has_no_bridge_of_its_own_is_none() {
    for json in [JOINED, NONE, HOST] {
        assert_eq!(made(json, &["bridge", "podman", "default", "shop"]), []);
    }
    // As Podman answers for a container that shares another's network: with that one's addresses.
    let shared = changed(|json| json["HostConfig"]["NetworkMode"] = json!("container:89e2"));
    assert!(wishes(&shared, &adopt(&["bridge"])).is_empty());
    let stopped = changed(|json| json["State"]["Pid"] = json!(0));
    assert!(wishes(&stopped, &adopt(&["bridge"])).is_empty());
}

#[test]
fn each_network_is_an_endpoint_and_none_of_several_is_certain() {
    let two = changed(|json| {
        let networks = &mut json["NetworkSettings"]["Networks"];
        networks["shop"] = networks["bridge"].clone();
        networks["shop"]["IPAddress"] = json!("172.18.0.2");
        networks["shop"]["GlobalIPv6Address"] = json!("fd00:b::2");
        networks["shop"]["NetworkID"] = json!("n");
    });
    let both = wishes(&two, &adopt(&["shop", "bridge"]));
    let names: Vec<_> = both.iter().map(|wish| wish.as_ref().unwrap().name.to_string()).collect();
    assert_eq!(names, ["bridge/web2", "shop/web2"]);
    let shop = both[1].as_ref().unwrap();
    assert_eq!(shop.addresses().count(), 2);
    assert!(shop.namespaces.iter().all(|(_, certain)| !certain));
}

#[test]
fn what_cannot_be_is_told_or_gives_way() {
    let nowhere = changed(|json| {
        json["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = json!("127.0.0.1");
    });
    let told = wishes(&nowhere, &adopt(&["bridge"]));
    let why = told[0].as_ref().unwrap_err();
    assert_eq!(why, "container web2 (89e293593f77) in network bridge has no address there");
    let odd = changed(|json| {
        json["Name"] = json!("/web_");
        json["Config"]["Labels"] =
            json!({ "a b": "", "app": "web", "bad": "\u{7}", "null": null, "seven": 7 });
    });
    let wish = wishes(&odd, &adopt(&["bridge"])).remove(0).unwrap();
    assert_eq!(wish.name.as_str(), "bridge/89e293593f77");
    assert_eq!((wish.labels.to_string().as_str(), wish.left_out), ("app=web,null=,seven=", 2));
    let much = changed(|json| {
        let labels = (0..100).map(|n| (format!("l{n}"), json!("x".repeat(4000))));
        json["Config"]["Labels"] = labels.collect::<serde_json::Map<_, _>>().into();
    });
    let wish = wishes(&much, &adopt(&["bridge"])).remove(0).unwrap();
    assert_eq!((wish.labels.len(), wish.left_out), (16, 84));
}

/// JSON that has the API's words in it.
fn any_json() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 18] = [
        "Id",
        "Name",
        "State",
        "Pid",
        "Config",
        "Labels",
        "HostConfig",
        "NetworkMode",
        "NetworkSettings",
        "Networks",
        "SandboxKey",
        "bridge",
        "IPAddress",
        "GlobalIPv6Address",
        "MacAddress",
        "NetworkID",
        "172.17.0.2",
        "container:x",
    ];
    let word = prop_oneof![proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(json in any_json(), place in 0_usize..8) {
        let mut container: Value = serde_json::from_str(DOCKER).unwrap();
        let part = match place {
            0 => &mut container,
            1 => &mut container["Id"],
            2 => &mut container["Name"],
            3 => &mut container["State"],
            4 => &mut container["Config"]["Labels"],
            5 => &mut container["NetworkSettings"],
            6 => &mut container["NetworkSettings"]["Networks"],
            _ => &mut container["NetworkSettings"]["Networks"]["bridge"],
        };
        *part = json;
        if let Ok(container) = serde_json::from_value::<Container>(container) {
            for wish in wishes(&container, &adopt(&["bridge", "Networks", "Id"])).into_iter().flatten() {
                prop_assert!(wish.addresses().count() > 0);
                prop_assert_eq!(wish.name.as_str().parse::<Name>().unwrap(), wish.name.clone());
                prop_assert!(wish.namespaces.iter().all(|(path, _)| path.is_absolute()));
            }
        }
    }
}
