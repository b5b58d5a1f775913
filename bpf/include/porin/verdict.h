/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Outcomes and their names. The daemon reads the names from BTF: an enumerator
 * added here shows in flows and metrics without a change there. */
#ifndef PORIN_VERDICT_H
#define PORIN_VERDICT_H

enum porin_verdict {
	PORIN_VERDICT_NONE = 0, /* not judged: treat as drop */
	PORIN_VERDICT_ALLOW = 1,
	PORIN_VERDICT_DENY = 2,
	PORIN_VERDICT_REJECT = 3, /* deny, and tell the sender */
};

enum porin_delivery_kind {
	PORIN_DELIVER_NONE = 0,
	PORIN_DELIVER_LOCAL = 1, /* redirect_peer into the namespace of an endpoint */
	PORIN_DELIVER_HOST = 2, /* up the host's own stack */
	PORIN_DELIVER_WORLD = 3, /* through the host's routing table */
	PORIN_DELIVER_ADOPTED = 4, /* to an endpoint whose network is another's */
	PORIN_DELIVER_STACK =
		5, /* to the world, by the host's own stack, which forwarded from there */
};

enum porin_event_type {
	PORIN_EVENT_FLOW = 1, /* a flow was judged for the first time, and allowed */
	PORIN_EVENT_DENY = 2, /* policy denied or rejected */
	PORIN_EVENT_DROP = 3, /* dropped for another reason */
};

enum porin_drop_reason {
	PORIN_DROP_NONE = 0,
	PORIN_DROP_POLICY_EGRESS, /* the sender's egress policy */
	PORIN_DROP_POLICY_INGRESS, /* the receiver's ingress policy */
	PORIN_DROP_NOT_READY, /* no generation in force for this endpoint yet */
	PORIN_DROP_SPOOFED_MAC, /* not the endpoint's own MAC */
	PORIN_DROP_SPOOFED_ADDRESS, /* not one of the endpoint's own addresses */
	PORIN_DROP_NOT_IP, /* neither IPv4 nor IPv6 (ARP included: neighbours are permanent) */
	PORIN_DROP_LINK_LOCAL, /* link-local or multicast: nothing beyond the gateway hears it */
	PORIN_DROP_MALFORMED, /* headers cut short or contradictory */
	PORIN_DROP_EXTENSION_HEADER, /* IPv6 extension headers too many, or a routing header */
	PORIN_DROP_FRAGMENT_UNKNOWN, /* a later fragment whose first was not seen */
	PORIN_DROP_INVALID_STATE, /* TCP segment that fits no flow (SYN-ACK out of nowhere) */
	PORIN_DROP_NO_ENDPOINT, /* an address of a pool that no endpoint has */
	PORIN_DROP_NO_ROUTE, /* the host has no route */
	PORIN_DROP_TOO_BIG, /* exceeds the path MTU; the sender was told */
	PORIN_DROP_HOP_LIMIT, /* TTL or hop limit used up; the sender was told */
	PORIN_DROP_NAT_EXHAUSTED, /* no free port to masquerade with */
	PORIN_DROP_NO_POLICY, /* the identity's policy map is missing: a fault */
	PORIN_DROP_UNTRACKED_ERROR, /* ICMP error about no tracked flow */
	PORIN_DROP_CONNTRACK_FULL, /* the entry could not be made */
	PORIN_DROP_FAMILY, /* the endpoint has no address of this family */
	PORIN_DROP_FAULT, /* a helper failed that should not */
	PORIN_DROP_NOT_UPLINK, /* the route leads out of an interface that is no uplink */
	PORIN_DROP_NOT_MASQUERADABLE, /* no port to tell it by, no address to do it with, or begun under another */
	PORIN_DROP_ELSEWHERE, /* another's frame, which a bridge sends to all its ports */
	PORIN_DROP_NOT_PUBLISHED, /* its flow came by a port that is not published any more */
	PORIN_DROP_PUBLISHED_TWICE, /* the same ports lead to the same end another way already */
	PORIN_DROP_NO_WORKER, /* its requests are to be judged, and no L7 worker listens */
	PORIN_DROP_NOT_PROXIED, /* its requests are to be judged, and it began before they were */
	PORIN_DROP_REASONS, /* how many */
};

#endif
