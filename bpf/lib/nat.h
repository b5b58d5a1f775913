/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Masquerading, IPv4 only: choosing a port, rewriting a packet. The mapping is
 * kept twice, in the flow for the way out and in nat4 for the way back.
 */
#ifndef PORIN_NAT_H
#define PORIN_NAT_H

#define NAT_TRIES 16

#define IP4_CHECKSUM 10
#define IP4_SOURCE 12
#define IP4_DESTINATION 16

/* Is masquerading of any concern to the packet? */
static __always_inline bool nat_concerns(const struct packet *p)
{
	return features.ipv4 && features.masquerade && p->version == 4;
}

/* The key under which an answer from outside finds its mapping. */
static __always_inline void nat_key(struct porin_nat_key *key, __u8 protocol, __be32 remote,
				    __be16 remote_port, __be32 address, __be16 port)
{
	__builtin_memset(key, 0, sizeof(*key));
	*(__be32 *)key->remote_address = remote;
	*(__be32 *)key->nat_address = address;
	key->remote_port = protocol == IPPROTO_ICMP ? 0 : remote_port;
	key->nat_port = port;
	key->protocol = protocol;
}

/* Can the port be changed? SCTP's checksum (CRC32c) cannot be mended in place, and
 * what has no ports has none to choose. */
static __always_inline bool nat_chooses(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_ICMP;
}

/* Claims a port of `address` for a flow on its way out. Returns 0 or a drop reason. */
static __noinline int nat_claim(struct __sk_buff *skb, const struct packet *p,
				struct porin_flow *flow, __be32 address)
{
	const __u32 first = features.nat_port_first;
	const __u32 count = features.nat_port_last - first + 1;
	const bool chooses = nat_chooses(p->protocol);
	__u32 at = bpf_get_prandom_u32();
	struct porin_nat_value value = {
		.port = p->source_port,
		.last_seen = p->now,
	};
	struct porin_nat_key key;
	int i;

	*(__be32 *)value.address = p->source.word[3];
	nat_key(&key, p->protocol, p->destination.word[3], p->destination_port, address,
		p->source_port);
	for (i = 0; i < NAT_TRIES; i++) {
		struct porin_nat_value *holder;

		if (chooses && count)
			key.nat_port = bpf_htons(first + (at + i) % count);
		if (!bpf_map_update_elem(&nat4, &key, &value, BPF_NOEXIST))
			break;
		/* Taken; by a flow that is long over? */
		holder = hash_look_up(skb, &nat4, &key);
		if (holder &&
		    (__s64)(p->now - holder->last_seen) >
			    (__s64)flow_timeout(p->protocol,
						PORIN_FLOW_ESTABLISHED | PORIN_FLOW_SEEN_REPLY)) {
			bpf_map_delete_elem(&nat4, &key);
			if (!bpf_map_update_elem(&nat4, &key, &value, BPF_NOEXIST))
				break;
		}
		if (!chooses || (__u32)i + 1 >= count)
			return PORIN_DROP_NAT_EXHAUSTED;
	}
	if (i == NAT_TRIES)
		return PORIN_DROP_NAT_EXHAUSTED;

	if (flow_masqueraded(flow)) { /* another CPU was faster: its claim counts */
		bpf_map_delete_elem(&nat4, &key);
		return 0;
	}
	flow->nat_port = key.nat_port;
	flow->flags |= PORIN_FLOW_MASQUERADED;
	barrier();
	*(volatile __be32 *)flow->nat_address = address;
	return 0;
}

/* Keeps the way back alive as long as the way out is used; nat4 forgets on its own. */
static __noinline int nat_refresh(struct __sk_buff *skb, const struct packet *p,
				  const struct porin_flow *flow)
{
	struct porin_nat_value value = {
		.port = p->source_port,
		.last_seen = p->now,
	};
	struct porin_nat_value *known;
	struct porin_nat_key key;

	*(__be32 *)value.address = p->source.word[3];
	nat_key(&key, p->protocol, p->destination.word[3], p->destination_port,
		*(__be32 *)flow->nat_address, flow->nat_port);
	known = hash_look_up(skb, &nat4, &key);
	if (known)
		known->last_seen = p->now;
	else
		bpf_map_update_elem(&nat4, &key, &value, BPF_NOEXIST);
	return 0;
}

/* Whom an answer from outside is for. A SYN is no answer, nor is an echo request. */
static __always_inline struct porin_nat_value *nat_find(struct __sk_buff *skb,
							const struct packet *p)
{
	struct porin_nat_key key;

	if (packet_is_syn(p) || (p->kind & PACKET_ECHO_REQUEST))
		return NULL;
	nat_key(&key, p->protocol, p->source.word[3], p->source_port, p->destination.word[3],
		p->destination_port);
	return hash_look_up(skb, &nat4, &key);
}

/* One address and its port, of a packet's source or destination, from old to new. */
struct rewrite {
	__be32 old_address;
	__be32 new_address;
	__be16 old_port;
	__be16 new_port;
	__u32 destination; /* 0: the source's; 1: the destination's */
};

static __always_inline int nat_rewrite_l4(struct __sk_buff *skb, const struct packet *p,
					  const struct rewrite *r)
{
	__u64 flags = 0;
	__u32 sum, port = p->l4 + (r->destination ? 2 : 0);
	int error = 0;

	switch (p->protocol) {
	case IPPROTO_TCP:
		sum = p->l4 + 16;
		break;
	case IPPROTO_UDP:
		flags = BPF_F_MARK_MANGLED_0; /* 0 is "no checksum" (RFC 768) */
	case IPPROTO_UDPLITE:
		sum = p->l4 + 6;
		break;
	case IPPROTO_ICMP: /* no pseudo-header; the identifier is its port */
		error |= bpf_l4_csum_replace(skb, p->l4 + 2, r->old_port, r->new_port, 2);
		error |= bpf_skb_store_bytes(skb, p->l4 + 4, &r->new_port, 2, 0);
		return error;
	default:
		return 0;
	}
	error |= bpf_l4_csum_replace(skb, sum, r->old_address, r->new_address,
				     BPF_F_PSEUDO_HDR | flags | 4);
	if (r->old_port != r->new_port) {
		error |= bpf_l4_csum_replace(skb, sum, r->old_port, r->new_port, flags | 2);
		error |= bpf_skb_store_bytes(skb, port, &r->new_port, 2, 0);
	}
	return error;
}

static __always_inline int nat_rewrite_l3(struct __sk_buff *skb, const struct packet *p,
					  const struct rewrite *r)
{
	int error;

	error = bpf_l3_csum_replace(skb, p->l3 + IP4_CHECKSUM, r->old_address, r->new_address, 4);
	error |= bpf_skb_store_bytes(skb, p->l3 + (r->destination ? IP4_DESTINATION : IP4_SOURCE),
				     &r->new_address, 4, 0);
	return error;
}

/* Returns 0 or a drop reason. */
static __noinline int nat_rewrite(struct __sk_buff *skb, const struct packet *p,
				  const struct rewrite *r)
{
	int error = 0;

	if (!(p->kind & PACKET_LATER_FRAGMENT)) /* those have no fourth layer */
		error = nat_rewrite_l4(skb, p, r);
	error |= nat_rewrite_l3(skb, p, r);
	return error ? PORIN_DROP_FAULT : 0;
}

#endif
