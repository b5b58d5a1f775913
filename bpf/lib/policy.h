/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who is who, and who may: addresses to ends, ends to verdicts. Judging knows a
 * flow's two ends, protocol and port; it knows nothing of packets' directions,
 * of conntrack, or of delivery beyond where an end is found.
 */
#ifndef PORIN_POLICY_H
#define PORIN_POLICY_H

/* One end of a flow, as one side of the tables has it. */
struct end {
	__u32 slot; /* 0: no endpoint of this host */
	__u32 peer; /* identity, role or address class */
	__u32 policy; /* policy slot; endpoints only */
	__u32 shadow; /* likewise, with shadow policies; 0: none */
	__u32 flags; /* PORIN_PREFIX_*; others only */
	struct porin_delivery deliver;
};

struct judgement {
	struct end end[2]; /* [PORIN_FLOW_ORIGINAL] originator, [PORIN_FLOW_REPLY] responder */
	struct decision enforced;
	struct decision shadow; /* verdict 0: neither end has shadow policies, or nobody asked */
	__u32 ruleset[2]; /* [PORIN_INGRESS], [PORIN_EGRESS]: what is allowed; 0: all requests */
};

/* What a verdict is about, in the flow's original direction. */
struct question {
	union address originator;
	union address responder;
	__be16 port; /* see policy_port() */
	__u8 protocol;
	__u8 side;
	__u8 family; /* PORIN_FAMILY_* */
	__u8 source_class;
	__u8 pad[2];
};

static __always_inline __u32 packet_family(const struct packet *p)
{
	return p->version == 4 ? PORIN_FAMILY_IPV4 : PORIN_FAMILY_IPV6;
}

/* An endpoint, as known by its slot. What it is called depends on the family it is met in. */
static __always_inline int end_of_slot(__u32 slot, __u32 side, __u32 family, struct end *end)
{
	struct porin_endpoint *e = array_look_up(&endpoints, &slot);
	struct porin_endpoint_side *s;

	if (!e)
		return PORIN_DROP_FAULT;
	end->slot = slot;
	end->flags = 0;
	s = side ? &e->side[1] : &e->side[0];
	if (!s->identity)
		return PORIN_DROP_NO_ENDPOINT;
	end->peer = family == PORIN_FAMILY_IPV4 ? s->peer[PORIN_FAMILY_IPV4]
						: s->peer[PORIN_FAMILY_IPV6];
	end->policy = s->policy;
	end->shadow = s->shadow;
	end->deliver.ifindex = e->ifindex;
	end->deliver.kind =
		features.adopts && e->adopted ? PORIN_DELIVER_ADOPTED : PORIN_DELIVER_LOCAL;
	end->deliver.worker = 0;
	__builtin_memcpy(end->deliver.mac, e->mac, sizeof(e->mac));
	return 0;
}

/* An element of `addresses` may be given to another address while it is being read. */
static __always_inline bool endpoint_has(__u32 slot, const union address *address)
{
	struct porin_endpoint *e = array_look_up(&endpoints, &slot);
	const __u64 *own;

	if (!e)
		return false;
	if (address->half[0] == 0 && address->word[2] == bpf_htonl(0xffff))
		return *(__be32 *)e->address4 == address->word[3];
	own = (const __u64 *)e->address6;
	return own[0] == address->half[0] && own[1] == address->half[1];
}

/* Whoever has an address. */
static __noinline int end_resolve(struct __sk_buff *skb, const union address *address, __u32 side,
				  __u32 family, struct end *end)
{
	struct porin_prefix_value *prefix;
	struct porin_address_value *known;
	struct porin_prefix_key key;
	__u32 *number;
	void *table;

	__builtin_memset(end, 0, sizeof(*end));
	side &= 1;
	known = hash_look_up(skb, &addresses, address);
	if (known) {
		__u32 slot = side ? known->slot[1] : known->slot[0];

		if (slot)
			return endpoint_has(slot, address) ? end_of_slot(slot, side, family, end)
							   : PORIN_DROP_NO_ENDPOINT;
	}

	number = array_look_up(&prefix_tables, &side);
	table = number ? array_look_up(&prefixes, number) : NULL;
	if (!table)
		return PORIN_DROP_NO_POLICY;
	key.prefixlen = 128;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	prefix = hash_look_up(skb, table, &key);
	if (!prefix)
		return PORIN_DROP_NO_POLICY;
	end->peer = prefix->peer;
	end->flags = prefix->flags;
	end->deliver.kind =
		prefix->flags & PORIN_PREFIX_HOST ? PORIN_DELIVER_HOST : PORIN_DELIVER_WORLD;
	return 0;
}

/* The class of a source port; 0 if the protocol has none. */
static __always_inline __u8 source_class(__u8 protocol, __be16 source_port, __u32 side)
{
	struct porin_source_block *block;
	__u32 port = bpf_ntohs(source_port), index;

	if (!features.source_ports)
		return 0;
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		break;
	default:
		return 0;
	}
	index = PORIN_SOURCE_INDEX(port / PORIN_SOURCE_BLOCK, side & 1);
	block = array_look_up(&source_classes, &index);
	return block ? block->class[port % PORIN_SOURCE_BLOCK] : 0;
}

/* The better of two answers, of which the first is preferred. Either may be none. */
static __always_inline struct porin_policy_value *policy_better(struct porin_policy_value *first,
								struct porin_policy_value *second)
{
	return first && (!second || first->precedence >= second->precedence) ? first : second;
}

/* The answer for the packet's class of source ports, or for any (0). */
static __always_inline struct porin_policy_value *
policy_look_up(struct __sk_buff *skb, void *table, struct porin_policy_key *key, __u32 peer)
{
	struct porin_policy_value *named, *any;

	key->peer = bpf_htonl(peer);
	named = hash_look_up(skb, table, key);
	key->peer = PORIN_PEER_ANY;
	any = hash_look_up(skb, table, key);
	return policy_better(named, any);
}

/*
 * Asks one end's policy about the other: that which is enforced, or the one with shadow
 * policies if it has one. Returns a verdict; PORIN_VERDICT_NONE is a fault.
 */
static __noinline __u32 policy_ask(struct __sk_buff *skb, const struct question *q,
				   struct judgement *j, __u32 direction, __u32 shadow)
{
	const bool egress = direction == PORIN_EGRESS;
	const struct end *subject = egress ? &j->end[0] : &j->end[1];
	const struct end *peer = egress ? &j->end[1] : &j->end[0];
	const __u32 slot = shadow && subject->shadow ? subject->shadow : subject->policy;
	__u32 index = PORIN_POLICY_INDEX(slot, q->side & 1);
	struct decision *decision = shadow ? &j->shadow : &j->enforced;
	struct porin_policy_value *best = NULL;
	struct porin_policy_key key = {
		.prefixlen = 64,
		.scope = PORIN_SCOPE(direction, 0),
		.protocol = q->protocol,
		.port = q->port,
	};
	__u32 *number = array_look_up(&policy_tables, &index);
	void *table = number ? array_look_up(&policies, number) : NULL;

	if (!table)
		return PORIN_VERDICT_NONE;
	if (features.source_ports && q->source_class) {
		key.scope = PORIN_SCOPE(direction, q->source_class);
		best = policy_look_up(skb, table, &key, peer->peer);
		key.scope = PORIN_SCOPE(direction, 0);
	}
	best = policy_better(best, policy_look_up(skb, table, &key, peer->peer));
	if (!best)
		return PORIN_VERDICT_NONE;
	if (egress)
		decision->egress_cookie = best->cookie;
	else
		decision->ingress_cookie = best->cookie;
	decision->verdict = best->verdict;
	if (features.judges_requests && !shadow)
		j->ruleset[direction] = best->ruleset;
	return best->verdict;
}

/* The drop reason of a verdict, or 0. */
static __always_inline int policy_reason(__u32 verdict, __u32 direction)
{
	switch (verdict) {
	case PORIN_VERDICT_ALLOW:
		return 0;
	case PORIN_VERDICT_NONE:
		return PORIN_DROP_NO_POLICY;
	}
	return direction == PORIN_EGRESS ? PORIN_DROP_POLICY_EGRESS : PORIN_DROP_POLICY_INGRESS;
}

/*
 * Both must agree: the originator's egress and the responder's ingress, each if
 * it is an endpoint. `own` is the slot whose variant this is: its features say
 * whether its own egress can deny at all; another's must be asked. Returns 0
 * (allowed) or a drop reason.
 */
static __always_inline int policy_judge(struct __sk_buff *skb, const struct question *q,
					struct judgement *j, __u32 own)
{
	const __u32 from = j->end[PORIN_FLOW_ORIGINAL].slot, to = j->end[PORIN_FLOW_REPLY].slot;
	const struct decision allowed = { .verdict = PORIN_VERDICT_ALLOW };
	int reason;

	j->enforced = allowed;
	j->ruleset[PORIN_INGRESS] = 0;
	j->ruleset[PORIN_EGRESS] = 0;
	if (from && (features.egress_policy || from != own)) {
		reason = policy_reason(policy_ask(skb, q, j, PORIN_EGRESS, false), PORIN_EGRESS);
		if (reason)
			return reason;
	}
	if (to && features.ingress_policy)
		return policy_reason(policy_ask(skb, q, j, PORIN_INGRESS, false), PORIN_INGRESS);
	return 0;
}

/* Judges again as if shadow policies were enforced, if either end has any. Changes no verdict. */
static __noinline int policy_shadow(struct __sk_buff *skb, const struct question *q,
				    struct judgement *j, __u32 own)
{
	const struct end *from = &j->end[PORIN_FLOW_ORIGINAL], *to = &j->end[PORIN_FLOW_REPLY];
	const struct decision none = {};
	__u32 verdict = PORIN_VERDICT_ALLOW;

	j->shadow = none;
	if (!(from->slot && from->shadow) && !(to->slot && to->shadow))
		return 0;
	if (from->slot && (from->shadow || features.egress_policy || from->slot != own))
		verdict = policy_ask(skb, q, j, PORIN_EGRESS, true);
	if (verdict == PORIN_VERDICT_ALLOW && to->slot && (to->shadow || features.ingress_policy))
		verdict = policy_ask(skb, q, j, PORIN_INGRESS, true);
	if (verdict == PORIN_VERDICT_NONE)
		j->shadow = none; /* a fault is not a verdict */
	else
		j->shadow.verdict = verdict;
	return 0;
}

#endif
