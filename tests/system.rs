//! The package on a real system: a Debian that systemd boots, apt, the unit, its watchdog, upgrades and removal, under
//! traffic. `make test-system`.

mod lab;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lab::machine::{self, Machine, PATIENCE};
use lab::package;
use lab::traffic::{self, ARRIVES, DROPPED, Server, Stream};
use lab::{Place, eventually, runtime};
use serde_json::Value;

const PORT: u16 = 8080;

const HOST: &str = r#"[[pool]]
name    = "v6"
network = "fd00:10::/64"

[[pool]]
name    = "v4"
network = "10.10.0.0/16"
"#;

const ENDPOINTS: &str = r#"[[endpoint]]
name      = "web"
namespace = "/run/netns/web"
labels    = { app = "web" }
ipv4      = "10.10.0.2"

[[endpoint]]
name      = "api"
namespace = "/run/netns/api"
labels    = { app = "api" }
ipv4      = "10.10.0.3"
"#;

const POLICY: &str = r#"[[policy]]
name    = "api"
subject = "app=api"

[[policy.ingress]]
from  = ["app=web"]
ports = ["8080/tcp"]
"#;

fn porinctl(machine: &Machine, command: &str) -> Value {
    let said = machine.run(&["porinctl", command, "--json"]).stdout;
    serde_json::from_str(&said).unwrap_or(Value::Null)
}

fn generation(machine: &Machine) -> u64 {
    porinctl(machine, "status")["generation"].as_u64().unwrap_or(0)
}

#[track_caller]
fn in_force(machine: &Machine) {
    eventually(PATIENCE, "what the files say is in force", || {
        porinctl(machine, "status")["in_force"] == true
    });
}

#[track_caller]
fn attached(machine: &Machine, name: &str, wanted: bool) {
    let state = if wanted { "attached" } else { "closed" };
    eventually(PATIENCE, &format!("endpoint {name} is {state}"), || {
        let answer = porinctl(machine, "endpoints");
        let endpoints = answer["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().any(|one| one["name"] == name && one["state"] == state)
    });
}

fn install(machine: &Machine, package: &Path) {
    let file = package.file_name().unwrap().to_str().unwrap();
    machine
        .sh(&format!("apt-get install --yes --quiet=2 --no-install-recommends /packages/{file}"));
}

/// Two endpoints with a policy between them, and a server.
struct Shop {
    web: Place,
    _server: Server,
}

impl Shop {
    const API: &str = "10.10.0.3";

    fn open(machine: &Machine) -> Shop {
        machine.sh("ip netns add web; ip netns add api; ip -n web link set lo up; ip -n api link set lo up");
        let (web, api) = (machine.namespace("/run/netns/web"), machine.namespace("/run/netns/api"));
        let server = Server::echo(&api, PORT);
        Shop { web, _server: server }
    }

    fn api(&self, port: u16) -> SocketAddr {
        SocketAddr::new(Self::API.parse().unwrap(), port)
    }

    /// One connection that policy allows and one that it denies.
    #[track_caller]
    fn is_judged(&self) {
        assert!(traffic::tcp(&self.web, self.api(PORT), ARRIVES), "8080/tcp is allowed");
        assert!(!traffic::udp(&self.web, self.api(PORT), 64, DROPPED), "8080/udp is denied");
    }
}

#[test]
fn a_package_lives_on_a_system() {
    let Some(root) = machine::root().filter(|_| machine::can_boot()) else { return };
    runtime::with_own_processes("a_package_lives_on_a_system", |_| {
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("system");
        let old = package::deb(&packages, "1.0.0");
        let new = package::with_version(&old, "1.0.1");
        let machine = Machine::boot(&root, &packages);

        // Installed: it runs, and nothing is in its way.
        install(&machine, &old);
        assert_eq!(machine.unit("porind", "ActiveState"), "active", "{}", machine.log());
        assert_eq!(machine.unit("porind", "UnitFileState"), "enabled");
        assert_eq!(machine.sh("stat -c %a:%G /run/porin/porin.sock").trim(), "660:porin");

        // Edited: in force without being told.
        let shop = Shop::open(&machine);
        machine.write("/etc/porin/porin.toml", HOST);
        machine.write("/etc/porin/endpoints.d/shop.toml", ENDPOINTS);
        machine.write("/etc/porin/policies.d/shop.toml", POLICY);
        attached(&machine, "api", true);
        in_force(&machine);
        shop.is_judged();
        let status = machine.unit("porind", "StatusText");
        assert!(status.ends_with("2 endpoints"), "{status}");
        let talk = Stream::start(&shop.web, shop.api(PORT));
        talk.must_go_on();

        // Reloaded.
        machine.sh("systemctl reload porind");
        assert_eq!(machine.unit("porind", "NRestarts"), "0");
        in_force(&machine);

        // Killed, without and with its hands tied: systemd starts another, and traffic does not notice.
        let before = generation(&machine);
        machine.sh("systemctl kill --kill-whom=main --signal=KILL porind");
        restarted(&machine, 1);
        assert!(generation(&machine) >= before);
        talk.must_go_on();
        shop.is_judged();
        hangs(&machine, &shop, &talk);

        // Upgraded, under traffic.
        install(&machine, &new);
        assert_eq!(machine.sh("dpkg-query -W -f '${Version}' porin"), "1.0.1");
        assert_eq!(machine.unit("porind", "ActiveState"), "active", "{}", machine.log());
        in_force(&machine);
        assert_eq!(machine.sh("cat /etc/porin/porin.toml"), HOST);
        talk.must_go_on();
        shop.is_judged();

        serves_docker(&machine);
        services(&machine);
        machines(&machine, &shop);
        wrong_files(&machine, &shop);

        // Removed: enforcement ends, and what is the operator's stays.
        talk.finish().expect("nothing was lost");
        boots(&machine);
        machine.sh("apt-get remove --yes --quiet=2 porin");
        assert!(!machine.exists("/sys/fs/bpf/porin"));
        let interfaces = machine.sh("ip -o link | cut -d: -f2");
        assert_eq!(interfaces.trim(), "lo");
        assert!(!machine.exists("/run/porin") && !machine.exists("/usr/sbin/porind"));
        assert_eq!(machine.sh("cat /etc/porin/policies.d/shop.toml"), POLICY);
        // Nobody waits for what is not there.
        machine.sh("systemctl start docker; systemctl stop docker");
        assert!(machine.exists("/var/lib/porin/leases.toml"));

        machine.sh("apt-get purge --yes --quiet=2 porin");
        let left = "find / -xdev -name '*porin*' ! -path '/proc/*' ! -path '/packages*' ! -path '/var/log/*' \
             ! -path '/sys/*' 2>/dev/null";
        assert_eq!(machine.run(&["sh", "-c", left]).stdout, "");
        assert_eq!(machine.sh("systemctl --failed --no-legend --plain"), "");
    });
}

/// A main loop that hangs feeds no watchdog: systemd kills it and starts another.
fn hangs(machine: &Machine, shop: &Shop, talk: &Stream) {
    machine.write("/etc/systemd/system/porind.service.d/soon.conf", "[Service]\nWatchdogSec=2\n");
    machine.sh("systemctl daemon-reload; systemctl restart porind");
    let restarts: u32 = machine.unit("porind", "NRestarts").parse().unwrap();
    machine.sh("systemctl kill --kill-whom=main --signal=STOP porind");
    talk.must_go_on();
    shop.is_judged();
    restarted(machine, restarts + 1);
    let log = machine.sh("journalctl --unit porind --no-pager");
    assert!(log.contains("Watchdog timeout"), "{log}");
    talk.must_go_on();
    machine.sh("rm -r /etc/systemd/system/porind.service.d; systemctl daemon-reload");
    machine.sh("systemctl restart porind");
}

#[track_caller]
fn restarted(machine: &Machine, times: u32) {
    eventually(PATIENCE, "porind was restarted", || {
        machine.unit("porind", "NRestarts") == times.to_string()
            && machine.unit("porind", "ActiveState") == "active"
    });
}

/// The sandbox lets the driver's socket be where Docker looks for it.
fn serves_docker(machine: &Machine) {
    let driver = "[docker]\ndriver = true\nnetworks = [\"10.10.128.0/17\"]\n";
    machine.write("/etc/porin/porin.toml.d/docker.toml", driver);
    eventually(PATIENCE, "the driver's socket is there", || {
        machine.exists("/run/docker/plugins/porin.sock")
    });
    machine.sh("rm /etc/porin/porin.toml.d/docker.toml");
    in_force(machine);
}

/// A service in a namespace that a unit makes is an endpoint as long as it runs.
fn services(machine: &Machine) {
    let shop = "[Unit]\nRequires=porin-netns@shop.service\nAfter=porin-netns@shop.service porind.service\n\
         [Service]\nType=exec\nNetworkNamespacePath=/run/netns/shop\nExecStart=/usr/bin/sleep infinity\n";
    machine.write("/etc/systemd/system/shop.service", shop);
    machine.sh("systemctl daemon-reload");
    let endpoint = "[[endpoint]]\nname = \"shop\"\nnamespace = \"/run/netns/shop\"\n";
    machine.write("/etc/porin/endpoints.d/service.toml", endpoint);
    attached(machine, "shop", false);
    machine.sh("systemctl start shop");
    attached(machine, "shop", true);
    let pid = machine.unit("shop", "MainPID");
    machine.sh(&format!("nsenter --target {pid} --net ip link show eth0"));
    machine.sh("systemctl restart shop");
    attached(machine, "shop", true);
    machine.sh("systemctl stop shop");
    attached(machine, "shop", false);
    assert!(!machine.exists("/run/netns/shop"), "nobody needs it");
    machine.sh("rm /etc/systemd/system/shop.service /etc/porin/endpoints.d/service.toml; systemctl daemon-reload");
    in_force(machine);
}

/// A machine of systemd-nspawn's is an endpoint, each time that it runs.
fn machines(machine: &Machine, shop: &Shop) {
    let endpoint = "[[endpoint]]\nname = \"m\"\nmachine = \"m\"\nlabels = { app = \"web\" }\n";
    machine.write("/etc/porin/endpoints.d/machine.toml", endpoint);
    attached(machine, "m", false);
    for _ in 0..2 {
        machine.sh(
            "systemd-run --quiet --collect --unit=m systemd-nspawn --machine=m --directory=/ --volatile=yes \
             --private-network --as-pid2 sleep infinity",
        );
        attached(machine, "m", true);
        let leader = machine.sh("machinectl show --property=Leader --value m");
        let inside = machine.namespace(&format!("/proc/{}/ns/net", leader.trim()));
        assert!(traffic::tcp(&inside, shop.api(PORT), ARRIVES));
        assert!(!traffic::udp(&inside, shop.api(PORT), 64, DROPPED));
        machine.sh("systemctl stop m");
        attached(machine, "m", false);
    }
    machine.sh("rm /etc/porin/endpoints.d/machine.toml");
    in_force(machine);
}

/// Files that are wrong change nothing; the status says so.
fn wrong_files(machine: &Machine, shop: &Shop) {
    machine.write("/etc/porin/policies.d/wrong.toml", "[[policy]]\nnaem = \"x\"\n");
    machine.sh("systemctl reload porind");
    eventually(Duration::from_secs(30), "the status tells of faults", || {
        machine.unit("porind", "StatusText").contains("not what the files say now")
    });
    shop.is_judged();
    machine.sh("systemctl restart porind");
    shop.is_judged();
    machine.sh("rm /etc/porin/policies.d/wrong.toml");
    in_force(machine);
}

/// Who starts containers waits for policy after a boot, if the files say so; and never again.
fn boots(machine: &Machine) {
    let runtime = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
    machine.write("/etc/systemd/system/docker.service", runtime);
    let off = "systemctl stop docker porin-boot porind; porind --teardown; systemctl daemon-reload";
    let is = |unit: &str, state: &str| machine.unit(unit, "ActiveState") == state;
    machine.write("/etc/porin/policies.d/wrong.toml", "wrong");
    for (boot, waits) in [("open", false), ("closed", true)] {
        machine.sh(off);
        machine.write("/etc/porin/porin.toml", &format!("boot = \"{boot}\"\n{HOST}"));
        machine.sh("systemctl start --no-block porind docker");
        let failed = || machine.unit("porind", "NRestarts").parse::<u32>().unwrap() > 1;
        eventually(PATIENCE, "porind fails of the wrong file, again and again", failed);
        match waits {
            true => assert!(is("docker", "inactive") && is("porin-boot", "activating")),
            false => eventually(PATIENCE, "docker does not wait", || is("docker", "active")),
        }
    }
    machine.sh("rm /etc/porin/policies.d/wrong.toml");
    eventually(PATIENCE, "docker starts once policy is in force", || is("docker", "active"));
    assert!(is("porind", "active") && is("porin-boot", "active"));
    machine.sh("systemctl restart porind");
    machine.sh("systemctl stop porind");
    assert!(is("docker", "active"), "that was about the boot");
    machine.sh("systemctl restart docker; systemctl start porind");
    machine.sh("systemctl stop docker");
    machine.write("/etc/porin/porin.toml", HOST);
    in_force(machine);
}
