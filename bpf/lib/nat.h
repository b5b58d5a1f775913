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

/*
 * Can its port, or echo's identifier, be chosen? What has none (ESP, GRE, other ICMP) or
 * none that can be changed (SCTP's CRC32c cannot be mended in place) would share a remote
 * end with the host's own traffic, and take it over.
 */
static __always_inline bool nat_chooses(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP ||
	       p->protocol == IPPROTO_UDPLITE ||
	       (p->protocol == IPPROTO_ICMP && p->source_port == p->destination_port);
}

/* A mapping's inner end, as one word. */
static __always_inline __u64 *nat_end(struct porin_nat_value *value)
{
	return (__u64 *)value;
}

/*
 * Where the search for a port begins: always at the same place for a flow, so that one
 * whose entry was lost finds its old port again; and nobody outside can tell where.
 */
static __always_inline __u32 nat_begin(const struct porin_nat_key *key, __u64 end)
{
	__u32 zero = 0, hash = 0;
	struct porin_state *s = array_look_up(&state, &zero);

	if (s && !s->secret)
		__sync_val_compare_and_swap(&s->secret, 0, bpf_get_prandom_u32() | 1);
	if (s)
		hash = s->secret;
#define NAT_MIX(word)                               \
	hash = (hash ^ (__u32)(word)) * 0x9e3779b1; \
	hash ^= hash >> 15
	NAT_MIX(end);
	NAT_MIX(end >> 32);
	NAT_MIX(*(__be32 *)key->remote_address);
	NAT_MIX(*(__be32 *)key->nat_address);
	NAT_MIX((__u32)key->remote_port << 16 | key->protocol);
	if (s)
		NAT_MIX(s->secret);
#undef NAT_MIX
	return hash;
}

/* Is the mapping's flow over, or using another by now? */
static __always_inline bool nat_stale(struct __sk_buff *skb, const struct packet *p,
				      const struct porin_nat_key *key,
				      const struct porin_nat_value *holder)
{
	struct porin_flow4_key flow_key;
	struct porin_flow *flow;

	/* One that was just made is not in its flow yet. */
	if ((__s64)(p->now - holder->last_seen) < (__s64)SECOND)
		return false;
	flow4_key_of(&flow_key, key->protocol, *(__be32 *)holder->address, holder->port,
		     *(__be32 *)key->remote_address,
		     key->protocol == IPPROTO_ICMP ? holder->port : key->remote_port);
	flow = hash_look_up(skb, &flows4, &flow_key);
	return !flow || flow_expired(flow, p) || flow->nat_port != key->nat_port ||
	       *(__be32 *)flow->nat_address != *(__be32 *)key->nat_address;
}

/* Claims a port of `address` for a flow on its way out. Returns 0 or a drop reason. */
static __noinline int nat_claim(struct __sk_buff *skb, const struct packet *p,
				struct porin_flow *flow, __be32 address)
{
	const __u32 first = features.nat_port_first;
	const __u32 count = features.nat_port_last - first + 1;
	struct porin_nat_value value = {
		.port = p->source_port,
		.last_seen = p->now,
	};
	struct porin_nat_key key;
	__u32 at;
	int i;

	if (!nat_chooses(p))
		return PORIN_DROP_NOT_MASQUERADABLE;
	*(__be32 *)value.address = p->source.word[3];
	nat_key(&key, p->protocol, p->destination.word[3], p->destination_port, address, 0);
	at = nat_begin(&key, *nat_end(&value));
	for (i = 0; i < NAT_TRIES; i++) {
		struct porin_nat_value *holder;
		__u64 end;

		if ((__u32)i >= count)
			return PORIN_DROP_NAT_EXHAUSTED;
		key.nat_port = bpf_htons(first + (at % count + i) % count);
		if (!bpf_map_update_elem(&nat4, &key, &value, BPF_NOEXIST))
			break;
		/* Taken: by this very flow, or by one that is over? */
		holder = hash_look_up(skb, &nat4, &key);
		if (!holder)
			continue;
		end = *(volatile __u64 *)nat_end(holder);
		if (end != *nat_end(&value) &&
		    (!nat_stale(skb, p, &key, holder) ||
		     __sync_val_compare_and_swap(nat_end(holder), end, *nat_end(&value)) != end))
			continue;
		holder->last_seen = p->now;
		break;
	}
	if (i == NAT_TRIES)
		return PORIN_DROP_NAT_EXHAUSTED;

	if (flow_masqueraded(flow)) { /* another CPU was faster: its claim counts */
		if (flow->nat_port != key.nat_port)
			bpf_map_delete_elem(&nat4, &key);
		return 0;
	}
	flow->nat_port = key.nat_port;
	flow->flags |= PORIN_FLOW_MASQUERADED;
	barrier();
	*(volatile __be32 *)flow->nat_address = address;
	return 0;
}

/*
 * Keeps the way back alive as long as the way out is used; nat4 forgets on its own.
 * False: another flow has the port by now.
 */
static __noinline bool nat_refresh(struct __sk_buff *skb, const struct packet *p,
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
	if (!known)
		return !bpf_map_update_elem(&nat4, &key, &value, BPF_NOEXIST);
	if (*nat_end(known) != *nat_end(&value))
		return false;
	known->last_seen = p->now;
	return true;
}

/* Whom an answer from outside is for. A SYN is no answer, nor is an echo request. */
static __always_inline struct porin_nat_value *nat_find(struct __sk_buff *skb,
							const struct packet *p)
{
	struct porin_nat_key key;

	if (packet_is_syn(p) || (p->kind & PACKET_ECHO_REQUEST) || !nat_chooses(p))
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
