//! containerd by `ctr` and by CRI: the real program, the real plugin, the real daemon.

mod lab;

use std::path::Path;

use lab::cri::{Cri, Pod};
use lab::daemon::EFFECT;
use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Host, Output, Process, eventually, runtime};
use serde_json::{Value, json};

const IMAGE: &str = "docker.io/lab/busybox:1";

struct Containerd<'h> {
    host: &'h Host,
    _daemon: Process,
}

impl<'h> Containerd<'h> {
    fn start(host: &'h Host) -> Self {
        host.mount_control_groups();
        let plugin = lab::cni::PORIN_CNI;
        host.sh(&format!(
            "mount -t tmpfs tmpfs /opt; mkdir -p /opt/cni/bin /run/cni/net.d /etc/cni/net.d
             ln -s {plugin} /usr/lib/cni/loopback /opt/cni/bin
             mount --bind /run/cni/net.d /etc/cni/net.d"
        ));
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [
            { "type": "porin-cni", "labels": { "env": "prod" },
              "containerd": "/run/containerd/containerd.sock",
              "capabilities": { "io.kubernetes.cri.pod-annotations": true } },
        ] });
        let run = host.run_directory();
        std::fs::write(run.join("cni/net.d/10-pods.conflist"), list.to_string()).unwrap();
        std::fs::write(run.join("containerd.toml"), CONFIG).unwrap();
        let log = std::fs::File::create(run.join("containerd.log")).unwrap();
        let mut command = host.place().command(&["containerd", "--config", "/run/containerd.toml"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = host.place().spawn(command);
        let containerd = Containerd { host, _daemon: daemon };
        eventually(ARRIVES, "containerd answers", || containerd.ctr(&["version"]).ok());
        let image = host.busybox_image();
        containerd.import(&image);
        containerd
    }

    fn import(&self, layer: &std::path::Path) {
        // An image in the form of `docker save`: a layer, a configuration, and what names both.
        self.host.sh(&format!(
            r#"cd /run && mkdir -p save && digest=$(sha256sum {layer} | cut -d' ' -f1)
            cp {layer} save/layer.tar
            echo '{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sleep","600"],"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:'$digest'"]}}}}' >save/config.json
            echo '[{{"Config":"config.json","RepoTags":["lab/busybox:1"],"Layers":["layer.tar"]}}]' >save/manifest.json
            tar -C save -cf image-save.tar config.json layer.tar manifest.json && rm -r save"#,
            layer = layer.display()
        ));
        for namespace in ["default", "k8s.io"] {
            let import = [
                "-n",
                namespace,
                "images",
                "import",
                "--snapshotter",
                "native",
                "/run/image-save.tar",
            ];
            self.ctr(&import).success();
        }
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        let all = [&["ctr", "--address", "/run/containerd/containerd.sock"], arguments].concat();
        self.host.slowly(self.host.place().command(&all))
    }
}

impl Drop for Containerd<'_> {
    /// The groups that containerd makes for its namespaces are the machine's, and it never removes them.
    fn drop(&mut self) {
        let groups =
            r"find /sys/fs/cgroup -mindepth 2 -maxdepth 2 \( -name default -o -name k8s.io \)";
        self.host.place().run(&["sh", "-c", &format!("{groups} -exec rmdir {{}} +")]);
    }
}

const CONFIG: &str = r#"version = 2
root = "/run/containerd-root"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/lab/busybox:1"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/run/cni/net.d"
"#;

/// The endpoint whose name begins with `start`, if it is attached.
fn endpoint(host: &Host, start: &str) -> Option<Value> {
    let answer = host.porinctl(&["endpoints", "--json"]).json();
    let is_it = |one: &&Value| {
        one["name"].as_str().is_some_and(|name| name.starts_with(start))
            && one["state"] == "attached"
    };
    answer["endpoints"].as_array()?.iter().find(is_it).cloned()
}

#[test]
fn ctrs_containers_are_endpoints() {
    if !runtime::has(&["containerd", "ctr", "runc", "busybox"]) {
        return;
    }
    runtime::with_own_processes("ctrs_containers_are_endpoints", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let _daemon = host.porind();
        let containerd = Containerd::start(host);
        let ask = |name: &str, label: &str, to, port, patience| {
            let run = ["run", "--rm", "--cni", "--snapshotter", "native", "--label", label];
            let question = runtime::question(to, port, patience);
            let asking = [IMAGE, name, "sh", "-c", &question];
            runtime::was_answered(&containerd.ctr(&[&run[..], &asking].concat()))
        };
        for to in at(API, 8080).map(|to| to.ip()) {
            assert!(ask("one", "app=front", to, 8080, 10), "{to}");
            assert!(!ask("two", "app=front", to, 9090, 1), "{to}");
            assert!(!ask("three", "app=back", to, 8080, 1), "{to}");
        }
        assert_eq!(endpoint(host, "default-one"), None);
        // ctr never asks to delete what it has let go of: the daemon sees that the namespace is gone.
        let detached = ["run", "-d", "--cni", "--snapshotter", "native", IMAGE, "web"];
        containerd.ctr(&detached).success();
        assert!(endpoint(host, "default-web").is_some());
        containerd.ctr(&["task", "kill", "-s", "9", "web"]).success();
        containerd.ctr(&["task", "delete", "web"]);
        eventually(EFFECT, "it is gone", || endpoint(host, "default-web").is_none());
        containerd.ctr(&["container", "delete", "web"]).success();
    });
}

#[test]
fn pods_are_endpoints_by_cri() {
    if !runtime::has(&["containerd", "ctr", "runc", "busybox"]) {
        return;
    }
    runtime::with_own_processes("pods_are_endpoints_by_cri", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let mut daemon = host.porind();
        let _containerd = Containerd::start(host);
        let cri = Cri::new(&host.run_directory().join("containerd/containerd.sock"));
        let pod = |name| Pod {
            namespace: "shop",
            name,
            // What the operator's network says counts more.
            labels: &[("app", "front"), ("env", "dev")],
            annotations: &[("porin.label/tier", "back"), ("other", "x")],
        };
        let id = cri.run(&pod("web-0")).unwrap();
        let found = endpoint(host, "shop/web-0-").unwrap();
        let labels = json!({
            "app": "front", "env": "prod", "tier": "back",
            "k8s.namespace": "shop", "k8s.pod": "web-0",
        });
        assert_eq!(found["labels"], labels);
        // The sandbox's namespace has a path of its own, which the file of the endpoint says.
        let directory = host.run_directory().join("porin/endpoints.d");
        let file = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("namespace = ")).unwrap();
        let inside = host.place().inside("web-0", Path::new(path.trim_matches('"')));
        assert!(traffic::tcp(&inside, at(API, 8080)[0], ARRIVES));
        assert!(!traffic::tcp(&inside, at(API, 9090)[0], DROPPED));
        drop(inside);
        // Stopping calls DEL, removing calls it again, without a namespace.
        cri.stop(&id).unwrap();
        assert_eq!(endpoint(host, "shop/web-0-"), None);
        cri.remove(&id).unwrap();

        // The daemon is away when a pod goes, and when one comes.
        let id = cri.run(&pod("web-1")).unwrap();
        daemon.kill();
        cri.stop(&id).unwrap();
        cri.remove(&id).unwrap();
        daemon.start_again();
        assert_eq!(endpoint(host, "shop/web-1-"), None);
        daemon.kill();
        std::thread::scope(|scope| {
            let coming = scope.spawn(|| cri.run(&pod("web-2")).unwrap());
            daemon.start_again();
            let id = coming.join().unwrap();
            assert!(endpoint(host, "shop/web-2-").is_some());
            cri.stop(&id).unwrap();
            cri.remove(&id).unwrap();
        });
    });
}
