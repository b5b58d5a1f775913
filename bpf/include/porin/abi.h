/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the datapath and the daemon both read: map keys and values, map sizes,
 * numbers. The Rust side is generated from the BTF of these structs. No
 * bit-fields; padding is explicit (hash and LPM keys are compared as bytes);
 * sizes are asserted here and again in Rust.
 *
 * A change of any layout below needs a new PORIN_ABI: maps of another ABI live
 * in another bpffs directory and are never mixed.
 *
 * Addresses are in network order. IPv4 addresses in 16-byte fields are
 * IPv4-mapped (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2). Ports in keys are in
 * network order too, so that a longest-prefix match over a port works.
 */
#ifndef PORIN_ABI_H
#define PORIN_ABI_H

#include <linux/types.h>

/* Plain numbers are enumerators, so that BTF has them and Rust can compare. */
enum porin_constant {
	PORIN_ABI = 3,

	/* Sizes. Slots number endpoints and uplinks alike; slot 0 is nobody. */
	PORIN_MAX_SLOTS = 16384,
	PORIN_MAX_POLICY_SLOTS = 16384, /* policy slot 0 is nobody's */
	/*
	 * Table numbers, from 1; 0 is none. Each side may need one policy table
	 * per policy slot, and a third set is filled while two are referred to.
	 */
	PORIN_MAX_POLICY_TABLES = 65536,
	PORIN_MAX_PREFIX_TABLES = 16,
	PORIN_MAX_UPLINKS = 64,
	PORIN_MAX_HITS = 131072, /* two for each rule that decided anything */
	PORIN_MAX_PUBLISHED = 65536, /* each side may have half of them */
	PORIN_MAX_RULESETS = 65535, /* numbers of rulesets, from 1 */
	PORIN_MAX_ORIGINS = 16384, /* of the host's own sockets */

	/*
	 * The hook's direction, as the kernel names it: ingress is what comes
	 * in from the device (for an endpoint's host-side veth: what the
	 * container sends).
	 */
	PORIN_HOOK_INGRESS = 0,
	PORIN_HOOK_EGRESS = 1,

	/* A policy's direction, seen from its subject. */
	PORIN_INGRESS = 0,
	PORIN_EGRESS = 1,

	/*
	 * Peers. 0 matches any. Identities of endpoints are below PORIN_PEER_ROLE; roles,
	 * which some of an identity's endpoints have, below PORIN_PEER_CLASS; address
	 * classes (see struct porin_prefix_value) from it on.
	 */
	PORIN_PEER_ANY = 0,
	PORIN_IDENTITY_FIRST = 256,
	PORIN_PEER_ROLE = 0x800000,
	PORIN_PEER_CLASS = 0x1000000,

	/* Index of what an endpoint has one of per family. */
	PORIN_FAMILY_IPV6 = 0,
	PORIN_FAMILY_IPV4 = 1,

	/* Classes of source ports, as many as the scope of a policy key has room for. */
	PORIN_SOURCE_CLASSES = 128,
	PORIN_SOURCE_BLOCK = 64, /* ports in an element of `source_classes` */
	PORIN_SOURCE_BLOCKS = 1024,

	/* struct porin_prefix_value.flags */
	PORIN_PREFIX_HOST = 1, /* an address of this host: deliver to its stack */
	PORIN_PREFIX_POOL = 2, /* in a pool, but no endpoint has it */

	/* Direction of a packet within its flow. */
	PORIN_FLOW_ORIGINAL = 0,
	PORIN_FLOW_REPLY = 1,

	/* struct porin_flow.flags */
	PORIN_FLOW_LOW_ORIGINATES = 0x1, /* key side [0] sent the first packet */
	PORIN_FLOW_MASQUERADED = 0x2,
	PORIN_FLOW_SEEN_REPLY = 0x4,
	PORIN_FLOW_BY_STACK = 0x8, /* the host's own stack forwarded it from the world */
	PORIN_FLOW_SYN = 0x10, /* original SYN seen */
	PORIN_FLOW_SYNACK = 0x20,
	PORIN_FLOW_ESTABLISHED =
		0x40, /* original's ACK after SYN-ACK; in mid-stream, after any reply */
	PORIN_FLOW_FIN_ORIGINAL = 0x100,
	PORIN_FLOW_FIN_REPLY = 0x200,
	PORIN_FLOW_RST = 0x400,
	PORIN_FLOW_PUBLISHED = 0x1000, /* it came by a published port */
	PORIN_FLOW_HAIRPIN = 0x2000, /* and its originator is the endpoint itself */
	PORIN_FLOW_PROXIED = 0x4000, /* a client's connection, which the L7 worker accepts */
	PORIN_FLOW_WORKERS = 0x8000, /* the L7 worker's own, to the server that a client wanted */

	/*
	 * Marks of packets in the host's own network namespace; the kernel takes marks off
	 * between namespaces, so no container can set one. Those of the L7 worker's sockets,
	 * and of what is to be delivered to them by a routing rule. Without the bits that
	 * Kubernetes gives a meaning to (0x4000: masquerade, 0x8000: drop).
	 */
	PORIN_MARK_WORKER = 0x706f0203,
	PORIN_MARK_STEER = 0x706f0204,

	/* Time-outs, in seconds, after which an entry is as if it were not there. */
	PORIN_TIMEOUT_TCP_SYN = 60,
	PORIN_TIMEOUT_TCP_ESTABLISHED = 21600,
	PORIN_TIMEOUT_TCP_CLOSING = 30,
	PORIN_TIMEOUT_UDP = 60,
	PORIN_TIMEOUT_UDP_REPLIED = 180,
	PORIN_TIMEOUT_ICMP = 30,
	PORIN_TIMEOUT_OTHER = 600,
};

/* Tail calls: programs[PORIN_PROGRAM_INDEX(slot, direction, side)]. */
#define PORIN_PROGRAM_INDEX(slot, direction, side) ((slot) * 4 + (direction) * 2 + (side))
/*
 * Policies: policies[policy_tables[PORIN_POLICY_INDEX(policy_slot, side)]]. A write
 * to a table of tables waits for a grace period, one to a plain array does not: so
 * tables are put under numbers ahead of time, and a commit only says which number.
 */
#define PORIN_POLICY_INDEX(policy, side) ((policy) * 2 + (side))
/* Classes of source ports: source_classes[PORIN_SOURCE_INDEX(port / PORIN_SOURCE_BLOCK, side)]. */
#define PORIN_SOURCE_INDEX(block, side) ((block) * 2 + (side))
/* What a policy is asked about besides the peer: its direction, and the class of the source port. */
#define PORIN_SCOPE(direction, source_class) ((direction) | (source_class) << 1)

/* The MAC that every endpoint sees as its gateway: 02:"porin". */
#define PORIN_GATEWAY_MAC { 0x02, 0x70, 0x6f, 0x72, 0x69, 0x6e }

/* state[0]: the only word whose store is a commit. Memory-mapped by the daemon. */
struct porin_state {
	__u32 generation; /* active; 0: nothing committed yet, everything is closed */
	__u32 secret; /* the datapath's own, of the choice of NAT ports; 0: none yet */
	__u32 mark; /* likewise: on answers that a gate is to let through as they are */
	__u32 pad;
};

/* endpoints[slot]. Only side[inactive] changes while the slot is in use. */
struct porin_endpoint_side {
	__u32 identity; /* 0: the slot is nobody on this side */
	__u32 policy; /* policy slot */
	__u32 shadow; /* that of the table with shadow policies; 0: it would be the same */
	__u32 peer[2]; /* what others' policies call it, [PORIN_FAMILY_*]: identity or role */
};

struct porin_endpoint {
	__u8 address6[16]; /* all zero: none */
	__u8 address4[4]; /* all zero: none */
	__u32 ifindex; /* host-side interface */
	__u8 mac[6]; /* the container's; adopted: see struct porin_delivery */
	__u8 adopted; /* 1: its network is another's, and porin only judges */
	__u8 pad;
	struct porin_endpoint_side side[2];
	__u8 incarnation[16]; /* digest of name, place and addresses: whose slot this is */
};
_Static_assert(sizeof(struct porin_endpoint) == 88, "porin_endpoint");

/* addresses[address] -> slot on either side; 0: nobody. Key: 16 bytes. */
struct porin_address {
	__u8 bytes[16];
};

struct porin_address_value {
	__u32 slot[2];
};

/*
 * Published ports: published[address and port of the host] -> an endpoint's port, on
 * either side. Which address the endpoint has, its slot says.
 */
struct porin_published_key {
	__u8 address[16];
	__u16 port; /* network order */
	__u8 protocol; /* TCP or UDP */
	/*
	 * 1: a loopback address, which only the host's own sockets mean. No packet is ever
	 * looked up so: one for 127.0.0.1 that comes by a wire must find nothing.
	 */
	__u8 loopback;
};
_Static_assert(sizeof(struct porin_published_key) == 20, "porin_published_key");

struct porin_published_side {
	__u32 slot; /* 0: it leads nowhere */
	__u16 port; /* network order */
	__u16 pad;
};

struct porin_published {
	struct porin_published_side side[2];
};

/*
 * origins[socket, an endpoint's end] -> what the socket sent to, a published port that
 * led there. Of the host's own sockets; they are told so where answers come from.
 */
struct porin_origin_key {
	__u64 cookie; /* of the socket: none is ever given twice */
	__u8 address[16];
	__u16 port; /* network order */
	__u8 pad[6];
};
_Static_assert(sizeof(struct porin_origin_key) == 32, "porin_origin_key");

struct porin_origin {
	__u8 address[16];
	__u16 port; /* network order */
	__u8 pad[2];
};
_Static_assert(sizeof(struct porin_origin) == 20, "porin_origin");

/*
 * prefixes[prefix_tables[side]] -> LPM trie. Every address that is not an endpoint's falls
 * into one class: the set of all CIDR sets of all rules that contain it,
 * together with what it is (host, world). One number per distinct set, so a
 * rule's CIDR set is a set of peers, and no rule can disturb another's.
 */
struct porin_prefix_key {
	__u32 prefixlen; /* bits of address, IPv4 counted from 96 */
	__u8 address[16];
};

struct porin_prefix_value {
	__u32 peer; /* >= PORIN_PEER_CLASS */
	__u32 flags;
};

/* source_classes[PORIN_SOURCE_INDEX]: ports of one class are in the same rules' source ports. */
struct porin_source_block {
	__u8 class[PORIN_SOURCE_BLOCK]; /* below PORIN_SOURCE_CLASSES; 0: in none's */
};
_Static_assert(sizeof(struct porin_source_block) == 64, "porin_source_block");

/*
 * policies[policy_tables[PORIN_POLICY_INDEX]] -> LPM trie. prefixlen counts the bits after it:
 * 40 any protocol, 48 one protocol and any port, 48..64 a port prefix.
 * For ICMP and ICMPv6 the port is type << 8 | code; for other protocols
 * without ports it is 0.
 *
 * Among the entries of one (peer, scope) the longest match carries the right
 * answer. Between peer and PORIN_PEER_ANY, and between the packet's class of source
 * ports and any (0), the higher precedence wins; of equal ones the first in the order
 * (peer, class), (any, class), (peer, 0), (any, 0). Every map has (any, ingress) and
 * (any, egress), of class 0, with prefixlen 40: the default. No match at all is a
 * fault: drop.
 */
struct porin_policy_key {
	__u32 prefixlen;
	__u32 peer; /* network order */
	__u8 scope; /* PORIN_SCOPE */
	__u8 protocol;
	__u16 port; /* network order */
};
_Static_assert(sizeof(struct porin_policy_key) == 12, "porin_policy_key");

struct porin_policy_value {
	__u32 precedence;
	__u32 cookie; /* the rule; 0: no rule, the default without policies */
	__u32 ruleset; /* whose requests are judged, up to PORIN_MAX_RULESETS; 0: all are allowed */
	__u8 verdict; /* enum porin_verdict */
	__u8 pad[3];
};
_Static_assert(sizeof(struct porin_policy_value) == 16, "porin_policy_value");

/* uplinks[ifindex]: an interface to the outside. */
struct porin_uplink {
	__u8 mac[6];
	__u8 pad[2];
	__u32 slot;
	__u8 masquerade4[4]; /* source of masqueraded flows; all zero: none */
};

/*
 * Conntrack. One entry for both directions of a flow: the key has the lower
 * (address, port) in [0]. For ICMP echo both ports are the identifier.
 */
struct porin_flow4_key {
	__u8 address[2][4];
	__u16 port[2];
	__u8 protocol;
	__u8 pad[3];
};

struct porin_flow6_key {
	__u8 address[2][16];
	__u16 port[2];
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct porin_flow4_key) == 16, "porin_flow4_key");
_Static_assert(sizeof(struct porin_flow6_key) == 40, "porin_flow6_key");

/* Where packets of one direction of a flow go. */
struct porin_delivery {
	__u32 ifindex; /* an endpoint's host-side interface */
	__u8 kind; /* enum porin_delivery_kind */
	__u8 worker; /* 1: to a socket of the L7 worker's instead */
	/*
	 * PORIN_DELIVER_LOCAL: destination MAC. PORIN_DELIVER_ADOPTED, where nobody needs
	 * one: in the last four, in host order, the ifindex that the host's stack reaches
	 * the endpoint by: of the bridge that its interface is a port of, or its own.
	 */
	__u8 mac[6];
};

struct porin_flow {
	/*
	 * generation << 32 | enum porin_drop_reason << 8 | enum porin_verdict:
	 * judged in, why not, and judged to, in one store
	 */
	__u64 judged;
	__u64 last_seen; /* ns, monotonic */
	__u64 first_seen; /* ns, monotonic */
	__u64 packets[2]; /* [PORIN_FLOW_ORIGINAL], [PORIN_FLOW_REPLY]; with accounting only */
	__u64 bytes[2]; /* of L3 and above */
	struct porin_delivery deliver[2];
	__u32 flags;
	__u32 egress_cookie; /* rule of the sender's egress verdict */
	__u32 ingress_cookie; /* rule of the receiver's ingress verdict */
	__u32 identity[2]; /* peer numbers of originator and responder */
	__u16 nat_port; /* network order; PORIN_FLOW_MASQUERADED */
	__u16 published_port; /* likewise; PORIN_FLOW_PUBLISHED: what the originator sent to */
	__u8 nat_address[4];
	__u16 ruleset[2]; /* [PORIN_INGRESS], [PORIN_EGRESS]; 0: none */
	__u8 published_address[16];
};
_Static_assert(sizeof(struct porin_flow) == 128, "porin_flow");

/* Masquerading, the way back: what the outside sees -> the endpoint's end. IPv4. */
struct porin_nat_key {
	__u8 remote_address[4];
	__u8 nat_address[4];
	__u16 remote_port;
	__u16 nat_port; /* ICMP echo: identifier, with remote_port 0 */
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct porin_nat_key) == 16, "porin_nat_key");

struct porin_nat_value {
	__u8 address[4];
	__u16 port;
	__u16 pad;
	__u64 last_seen; /* ns, monotonic */
};

/* First fragments leave the ports for those that follow (RFC 791, RFC 8200 section 4.5). */
struct porin_fragment_key {
	__u8 source[16];
	__u8 destination[16];
	__u32 id; /* network order */
	__u8 protocol;
	__u8 pad[3];
};

struct porin_fragment_value {
	__u16 source_port; /* as judged: before any translation by us */
	__u16 destination_port;
	__u32 pad;
	__u64 seen; /* ns, monotonic */
};

/* Counters: drops per slot, hook and reason. */
struct porin_drop_key {
	__u32 slot;
	__u16 hook;
	__u16 reason;
};

struct porin_traffic {
	__u64 packets;
	__u64 bytes;
};

/* Token buckets, one set per CPU: how fast events and ICMP errors may be made. */
enum porin_budget_kind {
	PORIN_BUDGET_EVENTS = 0,
	PORIN_BUDGET_ICMP = 1,
	PORIN_BUDGET_FLOWS = 2, /* events of new flows: they must not crowd out denials */
	PORIN_BUDGET_HITS = 3, /* not limited: what `hits` had no room for is suppressed */
	PORIN_BUDGETS, /* how many */
};

struct porin_budget {
	__u64 refilled; /* ns, monotonic */
	__u64 tokens;
	__u64 suppressed; /* events: not told, for lack of tokens or of room in the ring */
};

/*
 * Counters: how often a rule decided about a new flow, or a packet that was denied.
 * With `shadow`: how often it would have, in another's place, if shadow policies
 * were enforced.
 */
struct porin_hit_key {
	__u32 cookie;
	__u32 shadow; /* 0 or 1 */
};
_Static_assert(sizeof(struct porin_hit_key) == 8, "porin_hit_key");

/* Ring-buffer records. */
struct porin_event {
	__u64 time; /* ns, monotonic */
	__u32 type; /* enum porin_event_type */
	__u32 reason; /* enum porin_drop_reason; 0 unless dropped */
	__u32 generation;
	__u32 slot; /* of the hook that saw it */
	__u32 hook;
	__u32 length; /* bytes of L3 and above */
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port; /* network order */
	__u16 destination_port;
	__u8 protocol;
	__u8 verdict;
	__u8 tcp_flags;
	__u8 shadow; /* enum porin_verdict, if shadow policies were enforced; 0: none matter */
	__u32 source_peer; /* identity, role or address class */
	__u32 destination_peer;
	__u32 egress_cookie;
	__u32 ingress_cookie;
	__u32 shadow_egress_cookie;
	__u32 shadow_ingress_cookie;
};
_Static_assert(sizeof(struct porin_event) == 96, "porin_event");

#endif
