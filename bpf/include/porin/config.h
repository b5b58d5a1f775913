/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Read-only constants set at load time. The verifier removes what they exclude:
 * use them in plain `if`, never #ifdef. */
#ifndef PORIN_CONFIG_H
#define PORIN_CONFIG_H

#include <linux/types.h>

/* What makes one variant differ from another. 0 or 1 each. */
struct porin_features {
	__u8 ipv4;
	__u8 ipv6;
	__u8 egress_policy; /* the endpoint's own egress is default deny or has rules */
	__u8 ingress_policy; /* some endpoint of the host has ingress rules */
	__u8 source_ports; /* some rule has source ports */
	__u8 reject; /* some rule rejects */
	__u8 shadow; /* some policy is in shadow mode */
	__u8 masquerade; /* IPv4 to the outside is masqueraded */
	__u8 publishes; /* some endpoint of the host has published ports */
	__u8 adopts; /* some endpoint of the host is adopted */
	__u8 adopted; /* the endpoint itself is: judge, and leave the rest to its network */
	__u8 accounting; /* bytes and packets per flow */
	__u8 events; /* flow and drop events */
	__u8 coarse_clock; /* bpf_ktime_get_coarse_ns exists (Linux 5.11) */
	/*
	 * For tests and benches: count hash and longest-prefix look-ups of a
	 * packet in skb->cb[4].
	 */
	__u8 count_lookups;
	__u8 judges_requests; /* some rule is about requests: their connections are the L7 worker's */
	__u16 nat_port_first; /* host order; ports to masquerade with */
	__u16 nat_port_last;
	__u32 event_rate; /* drop and deny events per second and CPU; of flows ten times that */
};

/* What a gate knows about its endpoint. */
struct porin_gate {
	__u32 slot;
	__u8 mac[6];
	__u8 has4;
	__u8 has6;
	__u8 address4[4];
	__u8 address6[16];
	__u32 event_rate; /* drop events per second and CPU; 0: none */
	/* Adopted: pass all until a generation knows the slot, so that nothing is interrupted. */
	__u8 open;
	__u8 pad[3];
};

#endif
