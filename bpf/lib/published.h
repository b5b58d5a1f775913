/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Published ports: what is sent to an address and port of the host is an endpoint's.
 * A packet is looked at, judged and tracked as what it will be, with the endpoint's own
 * address and port; the flow's entry remembers what its originator sent to, for the
 * answers. As two published ports may lead to one end, which could then not tell two flows
 * with the same remote end apart, the second is dropped for as long as there is the first.
 *
 * Rewriting packets is translate.h's.
 */
#ifndef PORIN_PUBLISHED_H
#define PORIN_PUBLISHED_H

/* What `address` and `port` lead to on this packet's side; NULL: nothing. */
static __always_inline struct porin_published_side *
published_find(struct __sk_buff *skb, const struct packet *p, const void *address, __be16 port)
{
	struct porin_published_key key = { .port = port, .protocol = p->protocol };
	struct porin_published_side *side;
	struct porin_published *to;

	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return NULL;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	to = hash_look_up(skb, &published, &key);
	if (!to)
		return NULL;
	side = p->generation & 1 ? &to->side[1] : &to->side[0];
	return side->slot ? side : NULL;
}

/* The packet as its sender sent it. */
static __always_inline const struct packet *packet_on_wire(const struct scratch *s)
{
	if (features.publishes && (s->packet.kind & PACKET_PUBLISHED))
		return &s->wire;
	return &s->packet;
}

/*
 * Makes of the packet at hand, if it is to a published port, one to the endpoint's own. To
 * itself an endpoint cannot send, so what it sends to a port of its own comes from the host's
 * address. True if it is one. Not static: verified by itself, once.
 */
__noinline int published_enter(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct porin_published_side *to;
	struct porin_endpoint *e;
	struct packet *p;
	__u32 slot;

	if (!features.publishes || !s)
		return false;
	p = &s->packet;
	to = published_find(skb, p, &p->destination, p->destination_port);
	if (!to)
		return false;
	slot = to->slot;
	e = array_look_up(&endpoints, &slot);
	if (!e)
		return false;
	s->wire = *p;
	p->kind |= PACKET_PUBLISHED;
	if (slot == p->slot) {
		p->kind |= PACKET_HAIRPIN;
		p->source = p->destination;
	}
	if (p->version == 4)
		p->destination.word[3] = *(__be32 *)e->address4;
	else
		__builtin_memcpy(&p->destination, e->address6, sizeof(p->destination));
	p->destination_port = to->port;
	return true;
}

/* The other way round: what the packet at hand, an answer, is to be on its way back. */
static __always_inline void published_leave(struct scratch *s, const struct porin_flow *flow)
{
	const struct packet *p = &s->packet;
	struct packet *wire = &s->wire;

	__builtin_memcpy(&wire->source, flow->published_address, sizeof(wire->source));
	wire->source_port = flow->published_port;
	wire->destination = flow->flags & PORIN_FLOW_HAIRPIN ? p->source : p->destination;
	wire->destination_port = p->destination_port;
}

/*
 * Did the packet come the same way as its flow's first? An answer did not come by a published
 * port: what did, from an end that another flow began with, is none.
 */
static __always_inline bool published_same(const struct porin_flow *flow, const struct packet *p,
					   __u32 direction)
{
	const bool came = p->kind & PACKET_PUBLISHED;
	const __u64 *address = (const __u64 *)flow->published_address;
	struct scratch *s;

	if (direction == PORIN_FLOW_REPLY)
		return !came;
	if (!(flow->flags & PORIN_FLOW_PUBLISHED) || !came)
		return !(flow->flags & PORIN_FLOW_PUBLISHED) && !came;
	s = scratch_get();
	return s && s->wire.destination.half[0] == address[0] &&
	       s->wire.destination.half[1] == address[1] &&
	       s->wire.destination_port == flow->published_port;
}

/* Does the port that the flow came by, if any, still lead to its responder? */
static __always_inline int published_leads(struct __sk_buff *skb, const struct packet *p,
					   const struct porin_flow *flow,
					   const struct end *responder, __be16 port)
{
	struct porin_published_side *to;

	if (!(flow->flags & PORIN_FLOW_PUBLISHED))
		return 0;
	to = published_find(skb, p, flow->published_address, flow->published_port);
	if (!to || to->slot != responder->slot || to->port != port)
		return PORIN_DROP_NOT_PUBLISHED;
	return 0;
}

/*
 * Does what the entry says of a published port still hold? `responder`: the flow's.
 * Returns 0 or a drop reason.
 */
static __always_inline int published_holds(struct __sk_buff *skb, const struct packet *p,
					   const struct porin_flow *flow, __u32 direction,
					   const struct end *responder)
{
	if (!features.publishes)
		return flow->flags & PORIN_FLOW_PUBLISHED ? PORIN_DROP_NOT_PUBLISHED : 0;
	if (!published_same(flow, p, direction))
		return PORIN_DROP_PUBLISHED_TWICE;
	if (direction == PORIN_FLOW_ORIGINAL) /* it has just been looked up */
		return 0;
	return published_leads(skb, p, flow, responder, p->source_port);
}

/* Is it an answer to who knows its sender by a published port only? */
static __always_inline bool published_answer(const struct porin_flow *flow, __u32 direction)
{
	return features.publishes && !features.adopted && flow && direction == PORIN_FLOW_REPLY &&
	       (flow->flags & PORIN_FLOW_PUBLISHED);
}

#endif
