//! What the programs of an endpoint or uplink must be able to do; what they need not, the verifier takes out.

use crate::config::model::Host;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::Family;

use super::plan::Features;

/// What any endpoint's policies ask of the programs, beyond "all may pass".
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    pub ingress: bool,
    pub egress: bool,
    pub source_ports: bool,
    pub reject: bool,
    pub shadow: bool,
    /// Some endpoint has published ports.
    pub publishes: bool,
    /// Some rule is about requests.
    pub judges_requests: bool,
    /// Some endpoint is adopted.
    pub adopts: bool,
}

/// What holds for the whole host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Common {
    base: Features,
    /// Some endpoint's egress is restricted.
    egress: bool,
}

impl Common {
    pub fn new(snapshot: &Snapshot, needs: Needs) -> Self {
        let host: &Host = &snapshot.host;
        let has = |family| snapshot.pools().any(|pool| Family::of(pool.addr()) == family);
        let base = Features {
            ipv4: has(Family::Ipv4),
            ipv6: has(Family::Ipv6),
            egress_policy: needs.egress,
            ingress_policy: needs.ingress,
            source_ports: needs.source_ports,
            reject: needs.reject,
            shadow: needs.shadow,
            masquerade: host.masquerade.enabled && has(Family::Ipv4),
            publishes: needs.publishes,
            judges_requests: needs.judges_requests,
            adopts: needs.adopts,
            adopted: false,
            accounting: host.conntrack.accounting,
            events: host.flows.enabled,
            nat_ports: (host.masquerade.ports.first(), host.masquerade.ports.last()),
            event_rate: host.flows.rate,
        };
        Common { base, egress: needs.egress }
    }

    /// `egress`: whether the endpoint's own egress is restricted.
    pub fn endpoint(&self, endpoint: &Endpoint, egress: bool) -> Features {
        let (ipv4, ipv6) = (endpoint.ipv4.is_some(), endpoint.ipv6.is_some());
        let adopted = endpoint.adopted().is_some();
        let masquerade = self.base.masquerade && ipv4 && !adopted;
        settle(Features { ipv4, ipv6, egress_policy: egress, masquerade, adopted, ..self.base })
    }

    /// Without an IPv4 address too: what cannot be masqueraded there must not leave as it is.
    pub fn uplink(&self) -> Features {
        settle(Features { egress_policy: self.egress, ..self.base })
    }
}

/// Numbers that a program does not read must not make it another variant.
fn settle(mut features: Features) -> Features {
    if !features.masquerade {
        features.nat_ports = (0, 0);
    }
    if !features.events {
        features.event_rate = 0;
    }
    features
}
