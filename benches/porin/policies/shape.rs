//! Hosts as people have them, of any size: what their files say.
//!
//! A host knows the policies of its whole cluster, one file each. Most are about one app of a hundred and let a few others
//! in; one of a hundred is about a team of apps, one of a thousand about everybody.

use std::fmt::Write;

use crate::lab::config;

/// Apps that policies speak of, if there are no more identities than these.
const APPS: usize = 100;
const TEAMS: usize = 20;
/// Networks in the group of many, and the policies that share it.
pub const NETWORKS: u32 = 100_000;
pub const SHARED_BY: usize = 1000;

#[derive(Clone, Copy)]
pub struct Shape {
    pub policies: usize,
    /// Endpoints, each with labels of its own.
    pub identities: usize,
}

impl Shape {
    fn apps(self) -> usize {
        self.identities.max(APPS)
    }

    /// Every file with its text, one policy or endpoint each.
    pub fn files(self) -> Vec<(String, String)> {
        let mut files = vec![("porin.toml".to_owned(), config::host(&[]))];
        let endpoints = (0..self.identities).map(|n| (endpoint_file(n), self.endpoint(n)));
        files.extend(endpoints);
        files.extend((0..self.policies).map(|n| (policy_file(n), self.policy(n, 0))));
        files
    }

    pub fn endpoint(self, n: usize) -> String {
        let name = endpoint_name(n);
        format!(
            "[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\n\
             labels = {{ app = \"a{n}\", team = \"t{}\", env = \"bench\" }}\n",
            n % TEAMS
        )
    }

    /// `edit`: each number says something else.
    pub fn policy(self, n: usize, edit: usize) -> String {
        let apps = self.apps();
        let subject = match n {
            n if n % 1000 == 500 => String::new(),
            n if n % 100 == 50 => format!("team=t{}", n % TEAMS),
            n => format!("app=a{}", n % apps),
        };
        let peer = |step: usize| format!("\"app=a{}\"", (n + step) % apps);
        let port = 8000 + n / apps;
        let udp = 7 + edit;
        format!(
            "[[policy]]\nname = \"p{n}\"\nsubject = \"{subject}\"\n\n[[policy.ingress]]\n\
             from = [{}, {}, {}]\nports = [\"{port}/tcp\", \"{udp}/udp\"]\n\n[[policy.ingress]]\n\
             from = [\"team=t{}\"]\nports = [\"9090/tcp\"]\n",
            peer(1),
            peer(7),
            peer(13),
            n % TEAMS
        )
    }
}

pub fn endpoint_name(n: usize) -> String {
    format!("e{n}")
}

pub fn endpoint_file(n: usize) -> String {
    format!("endpoints.d/e{n}.toml")
}

pub fn policy_file(n: usize) -> String {
    format!("policies.d/p{n}.toml")
}

pub const GROUP_FILE: &str = "policies.d/feeds.toml";

/// A group of networks no two of which could be merged.
pub fn group(networks: u32) -> String {
    let mut text = String::from("[[group]]\nname = \"feeds\"\nmembers = [\n");
    for n in 0..networks {
        let address = std::net::Ipv4Addr::from((20 << 24) + n * 512);
        let _ = writeln!(text, "\"cidr:{address}/24\",");
    }
    text + "]\n"
}

/// A policy that lets the first app of `shape` reach a port of the group, with each `edit` another.
pub fn of_group(n: usize, edit: usize) -> String {
    let port = 443 + edit;
    format!(
        "[[policy]]\nname = \"g{n}\"\nsubject = \"app=a{}\"\n\n[[policy.egress]]\nto = [\"group:feeds\"]\n\
         ports = [\"{port}/tcp\"]\n",
        n % APPS
    )
}

pub fn of_group_file(n: usize) -> String {
    format!("policies.d/g{n}.toml")
}
