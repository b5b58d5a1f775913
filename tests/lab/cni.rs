//! A container runtime's side of CNI: runs the real `porin-cni` on a host, as containerd and Podman would.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::host::{Container, Host};
use super::process::Output;

pub const PORIN_CNI: &str = env!("CARGO_BIN_EXE_porin-cni");
/// Longer than the plugin ever waits.
const PATIENCE: Duration = Duration::from_secs(90);

/// A network of the runtime's: a configuration, as it would be handed to the plugin.
#[derive(Clone)]
pub struct Network {
    pub config: Value,
    /// The plugin.
    pub program: String,
}

/// What the plugin said.
#[derive(Debug)]
pub struct Said {
    pub output: Output,
}

impl Network {
    pub fn new(version: &str) -> Network {
        let config = json!({ "cniVersion": version, "name": "net", "type": "porin-cni" });
        Network { config, program: PORIN_CNI.to_owned() }
    }

    /// The plugin of this path, instead of porin's.
    pub fn by(&self, program: &str) -> Network {
        Network { program: program.to_owned(), ..self.clone() }
    }

    pub fn with(&self, key: &str, value: Value) -> Network {
        let mut network = self.clone();
        network.config[key] = value;
        network
    }

    pub fn labels(&self, labels: Value) -> Network {
        self.with("labels", labels)
    }

    /// The command, ready to be given the configuration. `namespace` empty: not set.
    pub fn command(
        &self,
        host: &Host,
        operation: &str,
        container: &str,
        namespace: &str,
    ) -> Command {
        let mut command = host.place().command(&[&self.program]);
        command.env_clear();
        command.env("CNI_COMMAND", operation).env("CNI_PATH", "/usr/lib/cni");
        command.env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", namespace).stdin(Stdio::piped());
        // For iptables, which the reference plugins run.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    pub fn run(&self, host: &Host, mut command: Command) -> Said {
        let input = self.config.to_string();
        Said { output: Output::of(host.name(), &mut command, Some(&input), PATIENCE) }
    }

    pub fn add(&self, host: &Host, container: &Container) -> Said {
        let path = container.path().to_string_lossy();
        self.run(host, self.command(host, "ADD", container.name(), &path))
    }

    pub fn del(&self, host: &Host, container: &str) -> Said {
        self.run(host, self.command(host, "DEL", container, ""))
    }

    pub fn check(&self, host: &Host, container: &Container, previous: &Value) -> Said {
        let path = container.path().to_string_lossy();
        let command = self.command(host, "CHECK", container.name(), &path);
        self.with("prevResult", previous.clone()).run(host, command)
    }

    /// DEL with all that a runtime tells.
    pub fn del_in(&self, host: &Host, container: &Container, previous: &Value) -> Said {
        let path = container.path().to_string_lossy();
        let command = self.command(host, "DEL", container.name(), &path);
        self.with("prevResult", previous.clone()).run(host, command)
    }

    /// STATUS or GC.
    pub fn of_all(&self, host: &Host, operation: &str) -> Said {
        let mut command = self.command(host, operation, "", "");
        command.env_remove("CNI_CONTAINERID").env_remove("CNI_IFNAME").env_remove("CNI_NETNS");
        self.run(host, command)
    }
}

impl Said {
    /// The result; panics if there was an error.
    #[track_caller]
    pub fn result(self) -> Value {
        self.output.json()
    }

    /// Success without a word.
    #[track_caller]
    pub fn nothing(self) {
        assert_eq!(self.output.success(), "");
    }

    /// The code of the error and what it says; panics if there was none.
    #[track_caller]
    pub fn error(self) -> (u64, String) {
        let Output { stdout, stderr, status, .. } = &self.output;
        assert!(!status.success(), "it succeeded: {stdout}");
        let said: Value = serde_json::from_str(stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout:?}, {stderr:?}"));
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("cniVersion").is_empty(), "{said}");
        (said["code"].as_u64().expect("a code"), format!("{} {}", text("msg"), text("details")))
    }
}

/// An address of the result's, IPv6 first, without its length.
pub fn address(result: &Value, ipv6: bool) -> Option<std::net::IpAddr> {
    let ips = result["ips"].as_array()?;
    let all = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    all.into_iter().find(|ip: &std::net::IpAddr| ip.is_ipv6() == ipv6)
}

/// Where Debian has the reference plugins.
pub const REFERENCE: &str = "/usr/lib/cni";

/// A list of plugins, run one after the other as libcni does.
#[derive(Clone)]
pub struct Chain {
    version: String,
    plugins: Vec<Value>,
}

impl Chain {
    pub fn new(version: &str, plugins: Vec<Value>) -> Chain {
        Chain { version: version.to_owned(), plugins }
    }

    /// The example that is installed, by the plugins' types.
    fn example(kind: &str) -> Value {
        let list = include_str!("../../etc/cni/net.d/20-bridge-porin.conflist");
        let list: Value = serde_json::from_str(list).expect("the example");
        let plugins = list["plugins"].as_array().expect("plugins");
        plugins.iter().find(|one| one["type"] == kind).expect("one of this type").clone()
    }

    /// A bridge `cni0` with addresses of both families by `host-local`, and a way out.
    pub fn bridge() -> Value {
        let mut bridge = Self::example("bridge");
        bridge["ipam"]["dataDir"] = "/run/cni".into();
        bridge
    }

    /// `porin-cni` behind it.
    pub fn ours(app: &str) -> Value {
        let mut ours = Self::example("porin-cni");
        ours["labels"]["app"] = app.into();
        ours
    }

    /// What the last of the plugins that succeeded said, and the error of the first that did not.
    pub fn add(&self, host: &Host, container: &Container) -> (Value, Option<(u64, String)>) {
        let mut previous = Value::Null;
        for network in self.networks() {
            let network = match previous.is_null() {
                true => network,
                false => network.with("prevResult", previous.clone()),
            };
            let said = network.add(host, container);
            if !said.output.ok() {
                return (previous, Some(said.error()));
            }
            previous = said.result();
        }
        (previous, None)
    }

    /// The result; panics if there was an error.
    #[track_caller]
    pub fn attach(&self, host: &Host, container: &Container) -> Value {
        match self.add(host, container) {
            (result, None) => result,
            (_, Some(error)) => panic!("{error:?}"),
        }
    }

    /// The last plugin first; all of them must succeed.
    #[track_caller]
    pub fn detach(&self, host: &Host, container: &Container, result: &Value) {
        for network in self.networks().iter().rev() {
            network.del_in(host, container, result).nothing();
        }
    }

    /// The plugin of this type by itself.
    pub fn one(&self, kind: &str) -> Network {
        let mut networks = self.networks().into_iter();
        networks.find(|network| network.config["type"] == kind).expect("a plugin of the chain")
    }

    fn networks(&self) -> Vec<Network> {
        let network = |plugin: &Value| {
            let mut config = plugin.clone();
            let kind = plugin["type"].as_str().expect("a type");
            // Debian's do not speak the newest version; a runtime would translate.
            let ours = kind == "porin-cni";
            let known = if self.version == "1.1.0" && !ours { "1.0.0" } else { &self.version };
            config["cniVersion"] = known.into();
            config["name"] = "net".into();
            let program = if ours { PORIN_CNI.to_owned() } else { format!("{REFERENCE}/{kind}") };
            Network { config, program }
        };
        self.plugins.iter().map(network).collect()
    }
}
