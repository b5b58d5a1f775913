//! Answers of a daemon that is not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use porin::compile::view::View;
use porin::config::Loader;
use porin::control::server::Handler;
use porin::control::view::*;
use porin::control::why;
use porin::control::wire::{ErrorCode, Request, Response};
use porin::observe::counters::Traffic;
use porin::observe::event::FlowType;
use porin::observe::flow::{Decision, End, Flow, RuleName};
use porin::observe::hub::{Filter, Hub, Subscription};
use porin::types::{Action, Direction, Generation, Identity, Label, Labels, Mode, Tier, Verdict};

const SHOP: &str = "/etc/porin/policies.d/shop.toml";

#[derive(Default)]
pub struct Daemon {
    pub hub: Hub,
    pub broken: bool,
}

impl Handler for Daemon {
    fn handle(&self, request: Request) -> Response {
        if self.broken {
            return Response::Status(Box::new(refused()));
        }
        match request {
            Request::Status => Response::Status(Box::new(status())),
            Request::Endpoints => Response::Endpoints(endpoints()),
            Request::Identities => Response::Identities(identities()),
            Request::Policies => Response::Policies(policies()),
            Request::Hits => Response::Hits(hits()),
            Request::Why { queries } => {
                Response::Why(why::answers(&why_view(), Some(Generation(41)), &queries))
            }
            Request::Flows { .. } => Response::error(ErrorCode::Failed, "not for handle"),
            Request::Attach { .. } | Request::Detach { .. } => Response::Detached {},
            Request::Attachment { .. } => Response::error(ErrorCode::Unknown, "none here"),
            Request::Attachments { .. } => Response::Attachments(Vec::new()),
        }
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        self.hub.subscribe(filter)
    }
}

pub fn status() -> Status {
    Status {
        porin: "0.1.0".into(),
        generation: Generation(41),
        state: State::Enforcing,
        since: "2026-11-23T16:02:11.123456Z".parse().unwrap(),
        in_force: true,
        faults: vec![FaultView {
            severity: Severity::Error,
            file: Some("/etc/porin/endpoints.d/shop.toml".into()),
            line: Some(21),
            column: Some(13),
            what: "there is no namespace /run/netns/worker".into(),
            hint: Some("create it with `ip netns add worker`".into()),
            endpoint: Some("worker".into()),
            related: Vec::new(),
        }],
        faults_omitted: 0,
        endpoints: EndpointTotals { attached: 3, closed: 1 },
        identities: 3,
        policies: 2,
        kernel: Kernel {
            attach: "tcx".into(),
            release: "Linux 6.18.44".into(),
            cgroup: Some("/sys/fs/cgroup".into()),
            cgroup_fault: None,
        },
        flows: FlowTotals { tracked: 120, seen: 4512, suppressed: 0 },
        requests: None,
        drops: BTreeMap::from([("policy-ingress".into(), 12), ("spoofed-mac".into(), 3)]),
    }
}

/// The files were edited wrongly.
pub fn refused() -> Status {
    let mut status = status();
    status.in_force = false;
    status.flows.suppressed = 7;
    let counted =
        Requests { allowed: 12, denied: 3, open: 2, connections: 5, ..Requests::default() };
    status.requests = Some(Requests { late: 1, ..counted });
    status.faults.insert(
        0,
        FaultView {
            severity: Severity::Error,
            file: Some(SHOP.into()),
            line: Some(4),
            column: Some(1),
            what: "unknown key `subjcet`".into(),
            hint: Some("did you mean `subject`?".into()),
            endpoint: None,
            related: vec![],
        },
    );
    status.faults_omitted = 3;
    status
}

/// The first start, with wrong files.
pub fn closed() -> Status {
    let mut status = refused();
    status.generation = Generation::NONE;
    status.state = State::Closed;
    status.faults_omitted = 0;
    status.drops.clear();
    status.endpoints = EndpointTotals { attached: 0, closed: 4 };
    status.kernel.cgroup = None;
    status.kernel.cgroup_fault = Some("no cgroups of version 2 are mounted".into());
    status
}

pub fn endpoints() -> Vec<EndpointView> {
    let mut frontend = endpoint("frontend", 2, "app=frontend,env=prod");
    frontend.ports = BTreeMap::from([("http".into(), "80/tcp".into())]);
    let mut api = endpoint("api", 3, "app=api,env=prod,team=storefront");
    api.default_deny = vec![Direction::Ingress];
    api.drops = BTreeMap::from([("policy-ingress".into(), 12)]);
    let mut worker = endpoint("worker", 9, "app=worker,env=prod");
    worker.state = EndpointState::Closed;
    worker.fault = Some("there is no namespace /run/netns/worker".into());
    (worker.identity, worker.ipv6, worker.ipv4) = (None, None, None);
    worker.host_interface = None;
    vec![api, endpoint("dev/intruder", 7, "app=intruder,env=dev"), frontend, worker]
}

pub fn identities() -> Vec<IdentityView> {
    let identity = |number, text: &str, endpoints: &[&str]| IdentityView {
        identity: Identity(number),
        labels: labels(text),
        endpoints: endpoints.iter().map(|&name| name.to_owned()).collect(),
    };
    vec![
        identity(256, "app=frontend,env=prod", &["frontend"]),
        identity(257, "app=api,env=prod,team=storefront", &["api", "api-2"]),
        identity(258, "", &["bare"]),
    ]
}

pub fn policies() -> Vec<PolicyView> {
    vec![
        PolicyView {
            name: "quarantine".into(),
            subject: "env=dev".into(),
            tier: Tier::Admin,
            priority: Some(100),
            mode: Mode::Shadow,
            default_deny: true,
            ingress: Some(0),
            egress: Some(0),
            endpoints: vec!["dev/intruder".into()],
            file: "/run/porin/policies.d/quarantine.toml".into(),
            line: 1,
        },
        PolicyView {
            name: "shop-api".into(),
            subject: "app=api,env in (prod,staging),!legacy".into(),
            tier: Tier::Normal,
            priority: None,
            mode: Mode::Enforce,
            default_deny: true,
            ingress: Some(2),
            egress: None,
            endpoints: vec!["api".into(), "api-2".into()],
            file: SHOP.into(),
            line: 3,
        },
    ]
}

/// Relative, so that what is printed does not depend on where the sources are.
pub const WHY: &str = "tests/golden/control/why";

pub fn why_view() -> View {
    let loaded = Loader::new(vec![WHY.into()]).load();
    View::of_config(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.report)))
}

pub fn hits() -> Vec<HitView> {
    let row = |policy: &str, rule, action, line| HitView {
        policy: policy.into(),
        tier: Tier::Normal,
        mode: Mode::Enforce,
        direction: Direction::Ingress,
        rule,
        action,
        hits: Some(0),
        shadow_hits: Some(0),
        file: SHOP.into(),
        line,
    };
    let mut guard = row("guard", Some(1), Action::Pass, 7);
    (guard.tier, guard.hits, guard.shadow_hits) = (Tier::Admin, None, None);
    let mut tried = row("no-telnet", Some(1), Action::Reject, 30);
    (tried.mode, tried.direction) = (Mode::Shadow, Direction::Egress);
    (tried.hits, tried.shadow_hits) = (None, Some(12));
    let mut allow = row("shop-api", Some(1), Action::Allow, 7);
    (allow.hits, allow.shadow_hits) = (Some(18_446_744), Some(3));
    let mut untried = tried.clone();
    (untried.rule, untried.line, untried.shadow_hits) = (None, 26, Some(0));
    untried.action = Action::Deny;
    vec![
        guard,
        tried,
        untried,
        allow,
        row("shop-api", Some(2), Action::Deny, 12),
        row("shop-api", None, Action::Deny, 5),
    ]
}

pub fn flows() -> Vec<Flow> {
    let rule = |line, rule| {
        Some(Decision::Rule(RuleName { policy: "shop-api".into(), file: SHOP.into(), line, rule }))
    };
    let deny = Flow {
        time: "2026-11-23T16:02:11.123456Z".parse().unwrap(),
        kind: FlowType::Deny,
        verdict: Some(Verdict::Deny),
        reason: Some("policy-ingress".into()),
        source: end(Some(("dev/intruder", "app=intruder,env=dev")), "fd00::7", Some(43210)),
        destination: end(Some(("api", "app=api,env=prod")), "fd00::3", Some(8080)),
        protocol: "tcp".into(),
        egress: Some(Decision::DEFAULT),
        ingress: rule(3, None),
        generation: Generation(41),
        length: 80,
        shadow: None,
        request: None,
    };
    let mut flow = deny.clone();
    flow.kind = FlowType::Flow;
    flow.verdict = Some(Verdict::Allow);
    flow.reason = None;
    flow.source = end(Some(("frontend", "app=frontend,env=prod")), "fd00::2", Some(50000));
    flow.ingress = rule(7, Some(1));
    let mut world = flow.clone();
    world.source = end(Some(("frontend", "app=frontend,env=prod")), "10.0.0.2", Some(50002));
    world.destination = end(None, "192.0.2.80", Some(443));
    world.destination.class = Some("world".into());
    world.destination.cidrs = ["192.0.2.0/24".into()].into();
    world.ingress = None;
    let mut drop = deny.clone();
    drop.kind = FlowType::Drop;
    drop.verdict = None;
    drop.reason = Some("link-local".into());
    drop.protocol = "icmpv6".into();
    drop.source = end(Some(("dev/intruder", "app=intruder,env=dev")), "fe80::1", None);
    drop.destination = end(None, "ff02::2", None);
    (drop.egress, drop.ingress) = (None, None);
    vec![deny, flow, world, drop]
}

fn endpoint(name: &str, number: u16, text: &str) -> EndpointView {
    EndpointView {
        name: name.into(),
        state: EndpointState::Attached,
        fault: None,
        identity: Some(Identity(254 + u32::from(number))),
        labels: labels(text),
        ipv6: Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)),
        ipv4: Some(std::net::Ipv4Addr::new(10, 0, 0, number as u8)),
        namespace: Some(format!("/run/netns/{name}")),
        interface: "eth0".into(),
        host_interface: Some(format!("pn{number:012x}")),
        ports: BTreeMap::new(),
        publish: if name == "frontend" { vec!["8080:80/tcp".into()] } else { Vec::new() },
        default_deny: Vec::new(),
        sent: Traffic { packets: 10, bytes: 1200 },
        received: Traffic { packets: 12, bytes: 9000 },
        drops: BTreeMap::new(),
        file: "/etc/porin/endpoints.d/shop.toml".into(),
        line: 10,
    }
}

fn end(endpoint: Option<(&str, &str)>, address: &str, port: Option<u16>) -> End {
    End {
        endpoint: endpoint.map(|(name, _)| name.to_owned()),
        labels: endpoint.map(|(_, text)| labels(text)),
        address: address.parse().unwrap(),
        port,
        class: None,
        cidrs: Default::default(),
    }
}

pub fn labels(text: &str) -> Arc<Labels> {
    let label = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        Label { key: key.parse().unwrap(), value: value.to_owned() }
    };
    Arc::new(text.split(',').filter(|pair| !pair.is_empty()).map(label).collect())
}
