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
	__u32 peer; /* identity or address class */
	__u32 policy; /* policy slot; endpoints only */
	__u32 flags; /* PORIN_PREFIX_*; others only */
	struct porin_delivery deliver;
};

struct judgement {
	struct end end[2]; /* [PORIN_FLOW_ORIGINAL] originator, [PORIN_FLOW_REPLY] responder */
	__u32 egress_cookie;
	__u32 ingress_cookie;
};

/* What a verdict is about, in the flow's original direction. */
struct question {
	union address originator;
	union address responder;
	__be16 port; /* see policy_port() */
	__u8 protocol;
	__u8 side;
};

/* An endpoint, as known by its slot. */
static __always_inline int end_of_slot(__u32 slot, __u32 side, struct end *end)
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
	end->peer = s->identity;
	end->policy = s->policy;
	end->deliver.ifindex = e->ifindex;
	end->deliver.kind = PORIN_DELIVER_LOCAL;
	end->deliver.pad = 0;
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
				  struct end *end)
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
			return endpoint_has(slot, address) ? end_of_slot(slot, side, end)
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

/* Asks one end's policy about the other. Returns 0 (allowed) or a drop reason. */
static __noinline int policy_ask(struct __sk_buff *skb, const struct question *q,
				 struct judgement *j, __u32 direction)
{
	const bool egress = direction == PORIN_EGRESS;
	const struct end *subject = egress ? &j->end[0] : &j->end[1];
	const struct end *peer = egress ? &j->end[1] : &j->end[0];
	__u32 index = PORIN_POLICY_INDEX(subject->policy, q->side & 1);
	struct porin_policy_value *named, *any, *best;
	struct porin_policy_key key = {
		.prefixlen = 64,
		.peer = bpf_htonl(peer->peer),
		.direction = direction,
		.protocol = q->protocol,
		.port = q->port,
	};
	__u32 *number = array_look_up(&policy_tables, &index);
	void *table = number ? array_look_up(&policies, number) : NULL;

	if (!table)
		return PORIN_DROP_NO_POLICY;
	named = hash_look_up(skb, table, &key);
	key.peer = PORIN_PEER_ANY;
	any = hash_look_up(skb, table, &key);
	best = any;
	if (named && (!any || named->precedence > any->precedence))
		best = named;
	if (!best)
		return PORIN_DROP_NO_POLICY;
	if (egress)
		j->egress_cookie = best->cookie;
	else
		j->ingress_cookie = best->cookie;
	if (best->verdict == PORIN_VERDICT_ALLOW)
		return 0;
	return egress ? PORIN_DROP_POLICY_EGRESS : PORIN_DROP_POLICY_INGRESS;
}

/*
 * Both must agree: the originator's egress and the responder's ingress, each if
 * it is an endpoint. `own` is the slot whose variant this is: its features say
 * whether its own egress can deny at all; another's must be asked.
 */
static __always_inline int policy_judge(struct __sk_buff *skb, const struct question *q,
					struct judgement *j, __u32 own)
{
	const __u32 from = j->end[PORIN_FLOW_ORIGINAL].slot, to = j->end[PORIN_FLOW_REPLY].slot;
	int reason;

	j->egress_cookie = 0;
	j->ingress_cookie = 0;
	if (from && (features.egress_policy || from != own)) {
		reason = policy_ask(skb, q, j, PORIN_EGRESS);
		if (reason)
			return reason;
	}
	if (to && features.ingress_policy)
		return policy_ask(skb, q, j, PORIN_INGRESS);
	return 0;
}

#endif
