//! The structs and numbers that C and Rust share, under Rust's names.
//!
//! Everything is generated from the BTF of the compiled datapath, so neither a
//! layout nor a number is written twice; sizes are asserted all the same.
//! `bpf/include/porin/abi.h` says what the fields mean.

use super::skel::maps::types;

pub use types::porin_address as Address;
pub use types::porin_address_value as AddressValue;
pub use types::porin_budget as Budget;
pub use types::porin_delivery as Delivery;
pub use types::porin_drop_key as DropKey;
pub use types::porin_endpoint as Endpoint;
pub use types::porin_endpoint_side as EndpointSide;
pub use types::porin_event as Event;
pub use types::porin_features as Features;
pub use types::porin_flow as Flow;
pub use types::porin_flow4_key as Flow4Key;
pub use types::porin_flow6_key as Flow6Key;
pub use types::porin_fragment_key as FragmentKey;
pub use types::porin_fragment_value as FragmentValue;
pub use types::porin_gate as Gate;
pub use types::porin_hit_key as HitKey;
pub use types::porin_nat_key as NatKey;
pub use types::porin_nat_value as NatValue;
pub use types::porin_origin as Origin;
pub use types::porin_origin_key as OriginKey;
pub use types::porin_policy_key as PolicyKey;
pub use types::porin_policy_value as PolicyValue;
pub use types::porin_prefix_key as PrefixKey;
pub use types::porin_prefix_value as PrefixValue;
pub use types::porin_published as Published;
pub use types::porin_published_key as PublishedKey;
pub use types::porin_published_side as PublishedSide;
pub use types::porin_source_block as SourceBlock;
pub use types::porin_state as State;
pub use types::porin_traffic as Traffic;
pub use types::porin_uplink as Uplink;

use types::{
    porin_budget_kind, porin_constant as c, porin_delivery_kind, porin_drop_reason,
    porin_event_type, porin_verdict,
};

/// The MAC that every endpoint sees as its gateway.
pub const GATEWAY_MAC: [u8; 6] = *b"\x02porin";

macro_rules! constants {
    ($($name:ident = $of:ident::$c:ident as $ty:ty;)*) => { $( pub const $name: $ty = $of::$c.0 as $ty; )* };
}

constants! {
    ABI = c::PORIN_ABI as u32;
    MAX_SLOTS = c::PORIN_MAX_SLOTS as u32;
    MAX_POLICY_SLOTS = c::PORIN_MAX_POLICY_SLOTS as u32;
    MAX_POLICY_TABLES = c::PORIN_MAX_POLICY_TABLES as u32;
    MAX_PREFIX_TABLES = c::PORIN_MAX_PREFIX_TABLES as u32;
    MAX_UPLINKS = c::PORIN_MAX_UPLINKS as u32;
    MAX_PUBLISHED = c::PORIN_MAX_PUBLISHED as u32;
    MAX_ORIGINS = c::PORIN_MAX_ORIGINS as u32;
    MAX_HITS = c::PORIN_MAX_HITS as u32;
    MAX_RULESETS = c::PORIN_MAX_RULESETS as u32;
    HOOK_INGRESS = c::PORIN_HOOK_INGRESS as u32;
    HOOK_EGRESS = c::PORIN_HOOK_EGRESS as u32;
    INGRESS = c::PORIN_INGRESS as u8;
    EGRESS = c::PORIN_EGRESS as u8;
    PEER_ANY = c::PORIN_PEER_ANY as u32;
    IDENTITY_FIRST = c::PORIN_IDENTITY_FIRST as u32;
    PEER_ROLE = c::PORIN_PEER_ROLE as u32;
    PEER_CLASS = c::PORIN_PEER_CLASS as u32;
    FAMILY_IPV6 = c::PORIN_FAMILY_IPV6 as usize;
    FAMILY_IPV4 = c::PORIN_FAMILY_IPV4 as usize;
    SOURCE_CLASSES = c::PORIN_SOURCE_CLASSES as u32;
    SOURCE_BLOCK = c::PORIN_SOURCE_BLOCK as usize;
    SOURCE_BLOCKS = c::PORIN_SOURCE_BLOCKS as u32;
    PREFIX_HOST = c::PORIN_PREFIX_HOST as u32;
    PREFIX_POOL = c::PORIN_PREFIX_POOL as u32;
    FLOW_ORIGINAL = c::PORIN_FLOW_ORIGINAL as usize;
    FLOW_REPLY = c::PORIN_FLOW_REPLY as usize;
    FLOW_LOW_ORIGINATES = c::PORIN_FLOW_LOW_ORIGINATES as u32;
    FLOW_MASQUERADED = c::PORIN_FLOW_MASQUERADED as u32;
    FLOW_SEEN_REPLY = c::PORIN_FLOW_SEEN_REPLY as u32;
    FLOW_PUBLISHED = c::PORIN_FLOW_PUBLISHED as u32;
    FLOW_PROXIED = c::PORIN_FLOW_PROXIED as u32;
    FLOW_WORKERS = c::PORIN_FLOW_WORKERS as u32;
    MARK_WORKER = c::PORIN_MARK_WORKER as u32;
    MARK_STEER = c::PORIN_MARK_STEER as u32;
    FLOW_SYN = c::PORIN_FLOW_SYN as u32;
    FLOW_SYNACK = c::PORIN_FLOW_SYNACK as u32;
    FLOW_ESTABLISHED = c::PORIN_FLOW_ESTABLISHED as u32;
    FLOW_FIN_ORIGINAL = c::PORIN_FLOW_FIN_ORIGINAL as u32;
    FLOW_FIN_REPLY = c::PORIN_FLOW_FIN_REPLY as u32;
    FLOW_RST = c::PORIN_FLOW_RST as u32;
    TIMEOUT_TCP_SYN = c::PORIN_TIMEOUT_TCP_SYN as u64;
    TIMEOUT_TCP_ESTABLISHED = c::PORIN_TIMEOUT_TCP_ESTABLISHED as u64;
    TIMEOUT_TCP_CLOSING = c::PORIN_TIMEOUT_TCP_CLOSING as u64;
    TIMEOUT_UDP = c::PORIN_TIMEOUT_UDP as u64;
    TIMEOUT_UDP_REPLIED = c::PORIN_TIMEOUT_UDP_REPLIED as u64;
    TIMEOUT_ICMP = c::PORIN_TIMEOUT_ICMP as u64;
    TIMEOUT_OTHER = c::PORIN_TIMEOUT_OTHER as u64;
    VERDICT_NONE = porin_verdict::PORIN_VERDICT_NONE as u8;
    VERDICT_ALLOW = porin_verdict::PORIN_VERDICT_ALLOW as u8;
    VERDICT_DENY = porin_verdict::PORIN_VERDICT_DENY as u8;
    VERDICT_REJECT = porin_verdict::PORIN_VERDICT_REJECT as u8;
    DELIVER_NONE = porin_delivery_kind::PORIN_DELIVER_NONE as u8;
    DELIVER_LOCAL = porin_delivery_kind::PORIN_DELIVER_LOCAL as u8;
    DELIVER_HOST = porin_delivery_kind::PORIN_DELIVER_HOST as u8;
    DELIVER_WORLD = porin_delivery_kind::PORIN_DELIVER_WORLD as u8;
    DELIVER_ADOPTED = porin_delivery_kind::PORIN_DELIVER_ADOPTED as u8;
    EVENT_FLOW = porin_event_type::PORIN_EVENT_FLOW as u32;
    EVENT_DENY = porin_event_type::PORIN_EVENT_DENY as u32;
    EVENT_DROP = porin_event_type::PORIN_EVENT_DROP as u32;
    BUDGET_EVENTS = porin_budget_kind::PORIN_BUDGET_EVENTS as u32;
    BUDGET_FLOWS = porin_budget_kind::PORIN_BUDGET_FLOWS as u32;
    BUDGET_HITS = porin_budget_kind::PORIN_BUDGET_HITS as u32;
    DROP_REASONS = porin_drop_reason::PORIN_DROP_REASONS as u32;
}

/// An enumerator of `enum porin_drop_reason`, by its C name.
pub use types::porin_drop_reason as DropReason;

/// `programs[program_index(slot, hook, side)]`
pub const fn program_index(slot: u32, hook: u32, side: u32) -> u32 {
    slot * 4 + hook * 2 + side
}

/// `policies[policy_tables[policy_index(policy_slot, side)]]`
pub const fn policy_index(policy: u32, side: u32) -> u32 {
    policy * 2 + side
}

/// `source_classes[source_index(port / SOURCE_BLOCK, side)]`
pub const fn source_index(block: u32, side: u32) -> u32 {
    block * 2 + side
}

/// `PolicyKey::scope`: a direction and the class of the source port, 0 for any.
pub const fn scope(direction: u8, source_class: u8) -> u8 {
    direction | source_class << 1
}

/// The generation a flow was judged in, from `Flow::judged`.
pub const fn judged_generation(judged: u64) -> u32 {
    (judged >> 32) as u32
}

/// The verdict (`VERDICT_*`), from `Flow::judged`.
pub const fn judged_verdict(judged: u64) -> u8 {
    judged as u8
}

/// Why it was denied (an `enum porin_drop_reason`), from `Flow::judged`.
pub const fn judged_reason(judged: u64) -> u32 {
    (judged >> 8) as u32 & 0xff
}

const _: () = {
    assert!(size_of::<State>() == 16);
    assert!(size_of::<Endpoint>() == 88);
    assert!(size_of::<SourceBlock>() == 64);
    assert!(size_of::<HitKey>() == 8);
    assert!(SOURCE_BLOCKS as usize * SOURCE_BLOCK == 1 << 16);
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<AddressValue>() == 8);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<PrefixValue>() == 8);
    assert!(size_of::<PolicyKey>() == 12);
    assert!(size_of::<PolicyValue>() == 16);
    assert!(size_of::<Uplink>() == 16);
    assert!(size_of::<Flow4Key>() == 16);
    assert!(size_of::<Flow6Key>() == 40);
    assert!(size_of::<Flow>() == 128);
    assert!(size_of::<PublishedKey>() == 20);
    assert!(size_of::<Published>() == 16);
    assert!(size_of::<OriginKey>() == 32);
    assert!(size_of::<Origin>() == 20);
    assert!(size_of::<NatKey>() == 16);
    assert!(size_of::<NatValue>() == 16);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentValue>() == 16);
    assert!(size_of::<DropKey>() == 8);
    assert!(size_of::<Traffic>() == 16);
    assert!(size_of::<Budget>() == 24);
    assert!(size_of::<Event>() == 96);
};
