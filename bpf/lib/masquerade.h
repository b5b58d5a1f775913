/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Masquerading a packet, or an error about one, on its way out. */
#ifndef PORIN_MASQUERADE_H
#define PORIN_MASQUERADE_H

/* A flow's mapping will not do: another if the flow can go on with one. */
static __always_inline int masquerade_anew(struct __sk_buff *skb, const struct packet *p,
					   struct porin_flow *flow, __be32 address)
{
	if (p->kind & PACKET_ICMP_ERROR)
		return PORIN_DROP_UNTRACKED_ERROR;
	/* A connection is known by its address and port at the other end. */
	if (p->protocol == IPPROTO_TCP && flow_masqueraded(flow) && !packet_is_syn(p))
		return PORIN_DROP_NOT_MASQUERADABLE;
	if (!address)
		return PORIN_DROP_NOT_MASQUERADABLE;
	*(volatile __be32 *)flow->nat_address = 0;
	return nat_claim(skb, p, flow, address);
}

/*
 * Gives a packet that leaves by an uplink the uplink's address. Only what the endpoint
 * began is masqueraded; for errors about such a flow (p is the error) the translation
 * exists or they are dropped. Without `uplink` the flow's mapping is this uplink's.
 */
static __noinline int masquerade(struct __sk_buff *skb, const struct packet *p, struct passage *way,
				 const struct porin_uplink *uplink)
{
	struct porin_flow *flow = way->flow;
	__be32 address, mapped;
	struct rewrite r = {};
	int reason;

	if (!flow)
		return PORIN_DROP_FAULT;
	if (way->direction != PORIN_FLOW_ORIGINAL)
		return 0;
	mapped = *(volatile __be32 *)flow->nat_address;
	address = uplink ? *(__be32 *)uplink->masquerade4 : mapped;
	if (!mapped || mapped != address ||
	    (way->touched && !(p->kind & PACKET_ICMP_ERROR) && !nat_refresh(skb, p, flow))) {
		reason = masquerade_anew(skb, p, flow, address);
		if (reason)
			return reason;
	}
	r.new_address = *(__be32 *)flow->nat_address;
	r.new_port = flow->nat_port;
	r.old_address = p->source.word[3];
	if (p->kind & PACKET_ICMP_ERROR) {
		struct scratch *s = scratch_get();

		if (!s)
			return PORIN_DROP_FAULT;
		r.old_port = s->quoted.destination_port;
		r.destination = 1;
		return error_rewrite(skb, p, &s->quoted, &r);
	}
	r.old_port = p->source_port;
	return nat_rewrite(skb, p, &r);
}

#endif
