//! `[docker]`: containers of another program's that porin has to do with.

use std::ops::Range;
use std::path::PathBuf;

use ipnet::IpNet;

use super::host::{WrittenNetwork, networks};
use super::table::Table;
use super::{keys, value};
use crate::types::Invalid;

/// Networks that are adopted at most.
const NETWORKS: usize = 64;

/// `[docker]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Serve as Docker's network and IPAM driver `porin`.
    pub driver: bool,
    /// Where the subnets of the driver's networks come from: each inside one pool, which gives out no address of it otherwise.
    pub networks: Vec<IpNet>,
    /// Absolute path of the API's socket: Docker's, or the compatible one of Podman.
    pub socket: PathBuf,
    /// Names of the bridge networks whose containers become endpoints where they are; each once.
    pub adopt: Vec<String>,
}

impl Default for Docker {
    fn default() -> Self {
        Docker {
            driver: false,
            networks: Vec::new(),
            socket: PathBuf::from("/run/docker.sock"),
            adopt: Vec::new(),
        }
    }
}

/// What one file says. None: it does not speak of it.
#[derive(Debug, Clone, Default)]
pub struct DockerPart {
    /// And where.
    pub driver: Option<(bool, Range<usize>)>,
    pub networks: Option<Vec<WrittenNetwork>>,
    socket: Option<PathBuf>,
    adopt: Option<Vec<String>>,
}

pub fn read(root: &Table) -> DockerPart {
    let Some(table) = root.table("docker", &keys::DOCKER) else {
        return DockerPart::default();
    };
    let driver = table.optional("driver");
    DockerPart {
        driver: driver.and_then(|item| Some((item.boolean()?, item.span))),
        networks: networks(&table, "networks"),
        socket: table.optional("socket").and_then(|item| item.parse_by(socket)),
        adopt: adopt(&table),
    }
}

impl DockerPart {
    /// A later file's settings replace those of earlier ones.
    pub fn merge_into(&self, docker: &mut Docker) {
        if let Some((driver, _)) = &self.driver {
            docker.driver = *driver;
        }
        if let Some(networks) = &self.networks {
            docker.networks = networks.iter().map(|(network, _)| *network).collect();
        }
        if let Some(socket) = &self.socket {
            docker.socket.clone_from(socket);
        }
        if let Some(adopt) = &self.adopt {
            docker.adopt.clone_from(adopt);
        }
    }
}

fn adopt(table: &Table) -> Option<Vec<String>> {
    let written = table.optional("adopt")?;
    let items = written.list()?;
    if items.len() > NETWORKS {
        written.error(format!("{} networks are more than the {NETWORKS} that fit", items.len()));
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let Some(name) = item.parse_by(network) else { continue };
        match names.contains(&name) {
            true => item.error(format!("the network `{name}` is named twice")),
            false => names.push(name),
        }
    }
    Some(names)
}

/// Docker's names are narrower; Podman's may not stay so.
fn network(text: &str) -> Result<String, Invalid> {
    const LONGEST: usize = 255;
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(Invalid::new("this is no network's name")
            .hint("write names as `docker network ls` shows them"));
    }
    if ["host", "none"].contains(&text) {
        return Err(Invalid::new(format!("containers of the network `{text}` have no interface"))
            .hint("name bridge networks"));
    }
    Ok(text.to_owned())
}

fn socket(text: &str) -> Result<PathBuf, Invalid> {
    let hint = "Docker's is /run/docker.sock, Podman's /run/podman/podman.sock";
    let path = value::socket(text.strip_prefix("unix://").unwrap_or(text));
    path.map_err(|invalid| invalid.hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_sockets() {
        for bad in ["", "host", "none", "a\nb", &"x".repeat(256)] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
        assert_eq!(network("shop_default").unwrap(), "shop_default");
        for bad in ["", "docker.sock", "tcp://192.0.2.1:2375", "/run/a\0b"] {
            assert!(socket(bad).is_err(), "{bad:?}");
        }
        assert_eq!(socket("unix:///run/docker.sock").unwrap(), socket("/run/docker.sock").unwrap());
    }
}
