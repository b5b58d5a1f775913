/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Masquerading a packet, or an error about one, on its way out. */
#ifndef PORIN_MASQUERADE_H
#define PORIN_MASQUERADE_H

/*
 * Gives a packet that leaves by an uplink the uplink's address, if that is asked
 * for. Only what the endpoint began is masqueraded; for errors about such a flow
 * (p is the error) the translation exists or they are dropped.
 */
static __noinline int masquerade(struct __sk_buff *skb, const struct packet *p, struct passage *way,
				 const struct porin_uplink *uplink)
{
	struct porin_flow *flow = way->flow;
	__be32 address = uplink ? *(__be32 *)uplink->masquerade4 : 0;
	struct rewrite r = {};
	int reason;

	if (!flow)
		return PORIN_DROP_FAULT;
	if (!flow_masqueraded(flow)) {
		if (!address || way->direction != PORIN_FLOW_ORIGINAL)
			return 0;
		if (p->kind & PACKET_ICMP_ERROR)
			return PORIN_DROP_UNTRACKED_ERROR;
		reason = nat_claim(skb, p, flow, address);
		if (reason)
			return reason;
	} else if (way->touched && !(p->kind & PACKET_ICMP_ERROR)) {
		nat_refresh(skb, p, flow);
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
