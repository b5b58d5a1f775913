/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about flows by published ports: which they are. Who knows the endpoint by a
 * published port quotes an answer that came from there; what the endpoint quotes came to it.
 */
#ifndef PORIN_PUBLISHED_ERROR_H
#define PORIN_PUBLISHED_ERROR_H

/*
 * Makes of the quoted packet, if it came from a published port, the one that the endpoint
 * sent. What was quoted is left in scratch.wire. Not static: verified by itself, once.
 */
__noinline int published_quoted(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct porin_published_side *to;
	struct porin_endpoint *e;
	struct packet *q;
	__u32 slot;

	if (!features.publishes || !s)
		return false;
	q = &s->quoted;
	to = published_find(skb, q, &q->source, q->source_port);
	if (!to)
		return false;
	slot = to->slot;
	e = array_look_up(&endpoints, &slot);
	if (!e)
		return false;
	s->packet.kind |= PACKET_PUBLISHED;
	s->wire.source = q->source;
	s->wire.source_port = q->source_port;
	if (q->version == 4)
		q->source.word[3] = *(__be32 *)e->address4;
	else
		__builtin_memcpy(&q->source, e->address6, sizeof(q->source));
	q->source_port = to->port;
	return true;
}

/* Does what is quoted belong to the flow that was found, going `direction`? */
static __always_inline bool published_error_fits(const struct scratch *s,
						 const struct porin_flow *flow, __u32 direction,
						 bool from_endpoint)
{
	const bool came = features.publishes && (s->packet.kind & PACKET_PUBLISHED);
	const __u64 *address = (const __u64 *)flow->published_address;

	if (!(flow->flags & PORIN_FLOW_PUBLISHED))
		return !came;
	if (!features.publishes || (flow->flags & PORIN_FLOW_HAIRPIN))
		return false;
	if (!came)
		return from_endpoint && !features.adopted && direction == PORIN_FLOW_ORIGINAL;
	return direction == PORIN_FLOW_REPLY && s->wire.source.half[0] == address[0] &&
	       s->wire.source.half[1] == address[1] && s->wire.source_port == flow->published_port;
}

#endif
