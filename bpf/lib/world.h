/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way of an admitted packet to what the host's routes lead to: the world, or an
 * endpoint in another's network. It may still be dropped here (no
 * route, no uplink, too big, hop limit, masquerading), never let through anew.
 */
#ifndef PORIN_WORLD_H
#define PORIN_WORLD_H

#define AF_INET 2
#define AF_INET6 10
#define MTU_LEAST4 576
#define MTU_LEAST6 1280

/* L3 length of the longest packet on the wire: of a segment, if it will be cut. */
static __always_inline __u32 wire_length(struct __sk_buff *skb, const struct packet *p)
{
	__u32 segment = skb->gso_size, header = 8;
	__u8 offset = 0;

	if (!segment)
		return p->length;
	if (p->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
			return p->length;
		header = (offset >> 4) * 4;
	}
	return p->l4 - p->l3 + header + segment;
}

/* `back`: the flow that is answered, if from a published port. */
static __always_inline long route(struct __sk_buff *skb, const struct packet *p,
				  const struct porin_flow *back, struct bpf_fib_lookup *fib)
{
	__u32 length = wire_length(skb, p);

	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = p->protocol;
	fib->sport = p->source_port;
	fib->dport = p->destination_port;
	fib->tot_len = length > 0xffff ? 0xffff : length;
	fib->ifindex = skb->ifindex;
	if (p->version == 4) {
		fib->family = AF_INET;
		fib->ipv4_src = p->source.word[3];
		fib->ipv4_dst = p->destination.word[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, &p->source, sizeof(p->source));
		__builtin_memcpy(fib->ipv6_dst, &p->destination, sizeof(p->destination));
	}
	if (features.publishes && back) {
		/* Rewritten later: if it cannot go on, its sender is told of what it sent. */
		fib->sport = back->published_port;
		if (p->version == 4)
			__builtin_memcpy(&fib->ipv4_src, back->published_address + 12, 4);
		else
			__builtin_memcpy(fib->ipv6_src, back->published_address,
					 sizeof(fib->ipv6_src));
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
}

/* The MTU that a failed look-up found. Before Linux 5.12 it does not say. */
static __always_inline __u32 route_mtu(struct __sk_buff *skb, const struct packet *p,
				       const struct bpf_fib_lookup *fib)
{
	if (fib->mtu_result < wire_length(skb, p))
		return fib->mtu_result;
	return p->version == 4 ? MTU_LEAST4 : MTU_LEAST6;
}

/* On to the next hop of a route. */
static __always_inline int send_on(struct __sk_buff *skb, const struct packet *p,
				   const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh next = {};

	if (hop_limit_decrement(skb, p))
		return drop(p, PORIN_DROP_FAULT);
	count_traffic(p);
	next.nh_family = fib->family;
	__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(fib->ifindex, &next, sizeof(next), 0);
}

/* The route there; without one, `action` is what is done to the packet instead. */
static __always_inline bool is_routed(struct __sk_buff *skb, const struct packet *p,
				      const struct porin_flow *back, struct bpf_fib_lookup *fib,
				      int *action)
{
	switch (route(skb, p, back, fib)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh() will ask */
		return true;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		*action = icmp_answer(skb, PORIN_DROP_TOO_BIG, route_mtu(skb, p, fib));
		return false;
	default:
		*action = drop(p, PORIN_DROP_NO_ROUTE);
		return false;
	}
}

/*
 * Into the network of an adopted endpoint, as the host would route it, but past the
 * host's own filters. The gate there sees it again.
 */
static __noinline int deliver_adopted(struct __sk_buff *skb, const struct packet *p,
				      const struct porin_delivery *to)
{
	struct bpf_fib_lookup fib;
	int action;

	if (!is_routed(skb, p, NULL, &fib, &action))
		return action;
	if (fib.ifindex != delivery_via(to)) /* the address is its, but the route is not */
		return drop(p, PORIN_DROP_NO_ROUTE);
	if (p->hop_limit <= 1)
		return icmp_answer(skb, PORIN_DROP_HOP_LIMIT, 0);
	return send_on(skb, p, &fib);
}

/* Through the host's routing table, and out by an uplink: nothing else leads outside. */
static __noinline int deliver_world(struct __sk_buff *skb, const struct packet *p,
				    struct passage *way)
{
	const struct porin_flow *back =
		published_answer(way->flow, way->direction) ? way->flow : NULL;
	struct porin_uplink *uplink = NULL;
	struct bpf_fib_lookup fib;
	int action, reason;

	if (!way->flow)
		return drop(p, PORIN_DROP_FAULT);
	if (!is_routed(skb, p, back, &fib, &action))
		return action;

	/* The entry remembers that an interface is an uplink. */
	if (way->deliver.ifindex != fib.ifindex ||
	    (nat_concerns(p) && way->direction == PORIN_FLOW_ORIGINAL &&
	     !flow_masqueraded(way->flow))) {
		uplink = hash_look_up(skb, &uplinks, &fib.ifindex);
		if (!uplink) /* the host's stack would forward it, whatever is there */
			return drop(p, PORIN_DROP_NOT_UPLINK);
	}
	if (p->hop_limit <= 1)
		return icmp_answer(skb, PORIN_DROP_HOP_LIMIT, 0);
	reason = 0;
	if (features.publishes && back) {
		struct scratch *s = scratch_get();

		if (!s)
			return drop(p, PORIN_DROP_FAULT);
		published_leave(s, back);
		reason = translate_any(skb, p, TRANSLATE_BACK);
	} else if (nat_concerns(p))
		reason = masquerade(skb, p, way, uplink);
	if (reason)
		return drop(p, reason);
	/* Not before: who finds it there takes the flow's mapping for the uplink's. */
	if (uplink && flow_claim(way->flow, flow_allowed(p->generation))) {
		if (way->direction == PORIN_FLOW_ORIGINAL)
			way->flow->deliver[0].ifindex = fib.ifindex;
		else
			way->flow->deliver[1].ifindex = fib.ifindex;
		flow_release(way->flow, flow_allowed(p->generation));
	}
	return send_on(skb, p, &fib);
}

#endif
