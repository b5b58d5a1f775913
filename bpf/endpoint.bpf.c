// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The variants behind an endpoint's gates: what its container sends, and what
 * the host's own stack sends it. (What other endpoints and uplinks send it never
 * passes here: that goes straight into its namespace.) If the endpoint is adopted:
 * all that it sends and all that it is sent.
 */
#include <linux/if_packet.h>

#include "lib/datapath.h"
#include "lib/world.h"

static __always_inline __u32 event_rate(void)
{
	return features.events ? features.event_rate : 0;
}

static __always_inline bool answers_as_gateway(void)
{
	return true;
}

/* What both hooks do before they differ. Returns 0 or a drop reason. */
static __always_inline int enter(struct __sk_buff *skb, struct scratch *s, enum place place,
				 struct passage *way)
{
	struct packet *p = &s->packet;
	int reason = packet_parse(skb, p);

	if (reason)
		return reason;
	if (place == TO_ENDPOINT)
		worker_tell(skb, p);
	if (p->kind & PACKET_LATER_FRAGMENT) {
		reason = fragment_ports(skb, p);
		if (reason)
			return reason;
	}
	if (p->kind & PACKET_ICMP_ERROR) {
		if (packet_special(p, &p->source) || packet_special(p, &p->destination))
			return PORIN_DROP_LINK_LOCAL;
		return admit_error(skb, p, place, way);
	}
	reason = admit(skb, p, place, way);
	/* What is denied must not put others' fragments out of the table. */
	if (!reason && (p->kind & PACKET_FIRST_FRAGMENT))
		fragment_note(packet_on_wire(s));
	return reason;
}

/* What a published port has to do with an admitted packet. Returns 0 or a drop reason. */
static __always_inline int translate_ends(struct __sk_buff *skb, struct scratch *s,
					  const struct passage *way)
{
	if (!features.publishes || features.adopted)
		return 0;
	if (s->packet.kind & PACKET_PUBLISHED)
		return translate_any(skb, &s->packet, TRANSLATE_IN);
	if (!published_answer(way->flow, way->direction) ||
	    way->deliver.kind == PORIN_DELIVER_WORLD)
		return 0; /* the latter is first to be routed */
	if (way->deliver.kind != PORIN_DELIVER_LOCAL) /* its originator is another by now */
		return PORIN_DROP_NOT_PUBLISHED;
	published_leave(s, way->flow);
	return translate_any(skb, &s->packet, TRANSLATE_BACK);
}

/* What was sent to this endpoint by the host, and was judged then. */
static __noinline int turned(struct __sk_buff *skb)
{
	struct scratch *s = packet_begin(skb, PORIN_HOOK_INGRESS);
	int reason;

	if (!s)
		return TC_ACT_SHOT;
	reason = packet_parse(skb, &s->packet);
	if (reason || bpf_skb_change_type(skb, PACKET_HOST))
		return drop(&s->packet, reason ? reason : PORIN_DROP_FAULT);
	return steer(skb);
}

SEC("tc")
int from_endpoint(struct __sk_buff *skb)
{
	struct passage way = {};
	struct scratch *s;
	struct packet *p;
	int reason;

	if (skb->mark == PORIN_MARK_STEER)
		return features.judges_requests ? turned(skb) : TC_ACT_SHOT;
	s = packet_begin(skb, PORIN_HOOK_INGRESS);
	if (!s)
		return TC_ACT_SHOT;
	p = &s->packet;
	reason = enter(skb, s, FROM_ENDPOINT, &way);
	if (!reason)
		reason = translate_ends(skb, s, &way);
	if (reason)
		return refuse(skb, p, reason, FROM_ENDPOINT);
	if (features.judges_requests && way.deliver.worker)
		return steer(skb);
	switch (way.deliver.kind) {
	case PORIN_DELIVER_LOCAL:
		return deliver_local(skb, p, &way.deliver);
	case PORIN_DELIVER_HOST:
	case PORIN_DELIVER_STACK:
		return pass(p);
	case PORIN_DELIVER_ADOPTED:
		if (!features.adopts)
			break;
		return features.adopted ? pass(p) : deliver_adopted(skb, p, &way.deliver);
	case PORIN_DELIVER_WORLD:
		return features.adopted ? pass(p) : deliver_world(skb, p, &way);
	}
	return drop(p, PORIN_DROP_FAULT);
}

SEC("tc")
int to_endpoint(struct __sk_buff *skb)
{
	struct passage way = {};
	struct scratch *s;
	struct packet *p;
	int reason;

	s = packet_begin(skb, PORIN_HOOK_EGRESS);
	if (!s)
		return TC_ACT_SHOT;
	p = &s->packet;
	reason = enter(skb, s, TO_ENDPOINT, &way);
	if (!reason && by_worker(p))
		reason = translate_ends(skb, s, &way);
	if (reason)
		return refuse(skb, p, reason, TO_ENDPOINT);
	if (features.judges_requests && way.deliver.worker)
		return turn(skb, p);
	return pass(p);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
