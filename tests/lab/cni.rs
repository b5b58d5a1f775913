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
