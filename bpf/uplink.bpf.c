// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The variants behind an uplink's gates. Most of what passes an uplink is the
 * host's own and goes on to whatever program is next, untouched and uncounted.
 */
#include <linux/if_packet.h>

#include "lib/datapath.h"

static __always_inline __u32 event_rate(void)
{
	return features.events ? features.event_rate : 0;
}

static __always_inline bool answers_as_gateway(void)
{
	return false;
}

/* Is the address an endpoint's, on this packet's side? An adopted one's own gate sees to it. */
static __noinline bool is_endpoint(struct __sk_buff *skb, const struct packet *p,
				   const union address *a)
{
	struct porin_address_value *known = hash_look_up(skb, &addresses, a);

	struct porin_endpoint *e;
	__u32 slot = 0;

	if (known)
		slot = p->generation & 1 ? known->slot[1] : known->slot[0];
	if (!slot || !features.adopts)
		return slot;
	e = array_look_up(&endpoints, &slot);
	return !e || !e->adopted;
}

/* Undoes masquerading in `p`, not yet in the packet. True if there was any. */
static __always_inline bool unmasquerade(struct __sk_buff *skb, struct packet *p, struct rewrite *r)
{
	struct porin_nat_value *nat;

	if (!nat_concerns(p))
		return false;
	nat = nat_find(skb, p);
	if (!nat)
		return false;
	if ((__s64)(p->now - nat->last_seen) > (__s64)FLOW_TOUCH)
		nat->last_seen = p->now;
	r->destination = 1;
	r->old_address = p->destination.word[3];
	r->old_port = p->destination_port;
	r->new_address = *(__be32 *)nat->address;
	r->new_port = nat->port;
	p->destination.word[3] = r->new_address;
	p->destination_port = r->new_port;
	if (p->protocol == IPPROTO_ICMP)
		p->source_port = r->new_port;
	return true;
}

/* An error about one of our flows; translated if that is masqueraded. */
static __always_inline int error_in(struct __sk_buff *skb, struct packet *p, struct passage *way,
				    struct rewrite *r)
{
	int reason = admit_error(skb, p, FROM_UPLINK, way);
	struct scratch *s = scratch_get();

	if (reason)
		return reason;
	if (!s || !way->flow)
		return PORIN_DROP_FAULT;
	if (features.publishes && (p->kind & PACKET_PUBLISHED))
		return translate_error(skb, TRANSLATE_IN);
	if (nat_concerns(p) && flow_masqueraded(way->flow)) {
		r->old_address = p->destination.word[3];
		r->old_port = way->flow->nat_port;
		r->new_address = s->quoted.source.word[3];
		r->new_port = s->quoted.source_port;
		if (r->old_address != r->new_address)
			return error_rewrite(skb, p, &s->quoted, r);
	}
	return 0;
}

/* What is not a whole, sound packet is dropped if an endpoint would have got it. */
static __always_inline int unsound(struct __sk_buff *skb, const struct packet *p, int reason)
{
	if (p->version && is_endpoint(skb, p, &p->destination))
		return reason;
	return NOT_OURS;
}

static __always_inline int enter(struct __sk_buff *skb, struct scratch *s, struct passage *way,
				 struct rewrite *r)
{
	struct packet *p = &s->packet;
	int reason = packet_parse(skb, p);

	if (!reason && (p->kind & PACKET_LATER_FRAGMENT))
		reason = fragment_ports(skb, p);
	if (reason)
		return unsound(skb, p, reason);
	if (p->kind & PACKET_ICMP_ERROR) {
		reason = error_in(skb, p, way, r);
		if (reason == NOT_OURS)
			return unsound(skb, p, PORIN_DROP_UNTRACKED_ERROR);
		if (!reason && p->hop_limit <= 1)
			return PORIN_DROP_HOP_LIMIT;
		return reason;
	}
	s->wire = *p;
	way->translated = unmasquerade(skb, p, r);
	reason = admit(skb, p, FROM_UPLINK, way);
	/* Later fragments look for what was on the wire. */
	if (!reason && (p->kind & PACKET_FIRST_FRAGMENT))
		fragment_note(&s->wire);
	if (reason)
		return reason;
	if (p->hop_limit <= 1) {
		p->destination = s->wire.destination;
		return PORIN_DROP_HOP_LIMIT;
	}
	if (way->translated)
		return nat_rewrite(skb, p, r);
	if (features.publishes && (p->kind & PACKET_PUBLISHED))
		return translate(skb, TRANSLATE_IN);
	return 0;
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	struct passage way = {};
	struct rewrite r = {};
	struct scratch *s;
	struct packet *p;
	int reason;

	if (skb->pkt_type != PACKET_HOST) /* overheard, or for all: not to be forwarded */
		return TC_ACT_UNSPEC;
	s = packet_begin(skb, PORIN_HOOK_INGRESS);
	if (!s)
		return TC_ACT_SHOT;
	p = &s->packet;
	reason = enter(skb, s, &way, &r);
	if (reason == NOT_OURS)
		return TC_ACT_UNSPEC;
	if (reason == PORIN_DROP_HOP_LIMIT)
		return icmp_answer(skb, reason, 0);
	if (reason)
		return refuse(skb, p, reason, FROM_UPLINK);
	if (features.judges_requests && way.deliver.worker)
		return steer(skb);
	if (hop_limit_decrement(skb, p) || way.deliver.kind != PORIN_DELIVER_LOCAL)
		return drop(p, PORIN_DROP_FAULT);
	return deliver_local(skb, p, &way.deliver);
}

/*
 * What leaves by an uplink with an endpoint's address as its source: sent on by
 * from_endpoint, or by the host's own stack to which that left it. The latter may
 * still have to be masqueraded. Only the endpoint's own gate counts its traffic.
 */
SEC("tc")
int to_uplink(struct __sk_buff *skb)
{
	struct porin_uplink *uplink;
	struct passage way = {};
	__u32 ifindex = skb->ifindex;
	struct scratch *s;
	struct packet *p;
	int reason;

	s = packet_begin(skb, PORIN_HOOK_EGRESS);
	if (!s)
		return TC_ACT_SHOT;
	p = &s->packet;
	reason = packet_parse(skb, p);
	if (!p->version || !is_endpoint(skb, p, &p->source))
		return TC_ACT_UNSPEC;
	worker_tell(skb, p);
	if (!reason && (p->kind & PACKET_LATER_FRAGMENT))
		reason = fragment_ports(skb, p);
	if (!reason)
		reason = p->kind & PACKET_ICMP_ERROR ? admit_error(skb, p, TO_UPLINK, &way)
						     : admit(skb, p, TO_UPLINK, &way);
	if (reason == NOT_OURS)
		return TC_ACT_UNSPEC;
	if (!reason && features.adopts && way.deliver.kind == PORIN_DELIVER_ADOPTED)
		return TC_ACT_UNSPEC; /* the uplink is the bridge that the endpoint is at */
	if (!reason && way.deliver.worker) /* that is not out there */
		reason = PORIN_DROP_NO_WORKER;
	if (!reason && by_worker(p) && published_answer(way.flow, way.direction)) {
		published_leave(s, way.flow);
		reason = translate(skb, TRANSLATE_BACK);
	}
	if (!reason && nat_concerns(p)) {
		uplink = hash_look_up(skb, &uplinks, &ifindex);
		reason = masquerade(skb, p, &way, uplink);
	}
	if (reason)
		return drop(p, reason);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
