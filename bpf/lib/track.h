/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Admitting a packet: its flow's entry if that was judged in the packet's own
 * generation, which takes one look-up; else judging it, and keeping the answer.
 * Knows where the packet was met (enum place), not where it will go.
 */
#ifndef PORIN_TRACK_H
#define PORIN_TRACK_H

#define EEXIST 17

/* Not a drop reason: no concern of ours. Uplinks only. */
#define NOT_OURS 0x10000
/* Nor this: there is no entry that says so, and it is to be judged. */
#define NOT_KNOWN 0x20000

enum place {
	FROM_ENDPOINT,
	TO_ENDPOINT,
	FROM_UPLINK,
	TO_UPLINK,
};

/* An admitted packet's way. */
struct passage {
	struct porin_flow *flow; /* always there on the way to the world */
	__u32 direction;
	bool touched; /* the entry's time was moved on */
	bool translated; /* it came for a masqueraded flow */
	struct porin_delivery deliver;
};

/* Both ways of a flow, from where the packet goes; copied out of its entry. */
struct ways {
	struct porin_delivery ahead;
	struct porin_delivery back;
};

static __always_inline void flow_ways(const struct porin_flow *flow, __u32 direction,
				      struct ways *ways)
{
	const bool reply = direction == PORIN_FLOW_REPLY;

	ways->ahead = reply ? flow->deliver[1] : flow->deliver[0];
	ways->back = reply ? flow->deliver[0] : flow->deliver[1];
}

/* The interface that the host's own stack reaches an adopted endpoint by. */
static __always_inline __u32 delivery_via(const struct porin_delivery *to)
{
	__u32 via;

	__builtin_memcpy(&via, to->mac + sizeof(to->mac) - sizeof(via), sizeof(via));
	return via;
}

static __always_inline bool is_endpoints(const struct porin_delivery *way)
{
	return way->kind == PORIN_DELIVER_LOCAL ||
	       (features.adopts && way->kind == PORIN_DELIVER_ADOPTED);
}

static __always_inline bool is_worlds(const struct porin_delivery *way)
{
	return way->kind == PORIN_DELIVER_WORLD || way->kind == PORIN_DELIVER_STACK;
}

/*
 * What the host's stack forwarded from the world, it may have translated on the way (a
 * published port). Only what passes it again is translated back.
 */
static __always_inline void back_through_stack(struct judgement *j)
{
	struct porin_delivery *originator = &j->end[PORIN_FLOW_ORIGINAL].deliver;

	if (originator->kind == PORIN_DELIVER_WORLD)
		originator->kind = PORIN_DELIVER_STACK;
}

/*
 * On its way to an adopted endpoint a packet has passed through a bridge or the host's
 * stack, and whoever else is there can say that he is an endpoint. What an endpoint sends
 * came in by its own interface or, if the host routed it, by the bridge that this is a
 * port of.
 */
static __always_inline bool came_from(struct __sk_buff *skb, const struct porin_delivery *sender)
{
	if (!is_endpoints(sender) || skb->ingress_ifindex == sender->ifindex)
		return true;
	return sender->kind == PORIN_DELIVER_ADOPTED &&
	       skb->ingress_ifindex == delivery_via(sender);
}

/* Is a packet counted here? What passes two hooks is counted at one. */
static __always_inline bool counts(enum place place, const struct porin_delivery *sender)
{
	if (features.adopted && place == TO_ENDPOINT)
		return !is_endpoints(sender);
	return place != TO_UPLINK;
}

/* What of an adopted endpoint's passes an uplink is its own gate's to judge. */
static __always_inline bool passes_by(enum place place, const struct porin_delivery *ahead,
				      const struct porin_delivery *back)
{
	if (!features.adopts || place != FROM_UPLINK)
		return false;
	return ahead->kind == PORIN_DELIVER_ADOPTED ||
	       (back->kind == PORIN_DELIVER_ADOPTED && !is_endpoints(ahead));
}

/* Does an entry's idea of its two ends agree with where its packet was met? */
static __always_inline bool place_fits(struct __sk_buff *skb, const struct packet *p,
				       enum place place, const struct porin_delivery *ahead,
				       const struct porin_delivery *back)
{
	switch (place) {
	case FROM_ENDPOINT: /* the gate has checked the source */
		return true;
	case TO_ENDPOINT:
		if (features.adopted)
			return ahead->kind == PORIN_DELIVER_ADOPTED &&
			       ahead->ifindex == skb->ifindex;
		return ahead->kind == PORIN_DELIVER_LOCAL && ahead->ifindex == skb->ifindex &&
		       (by_worker(p) || !is_endpoints(back));
	case FROM_UPLINK:
		return ahead->kind == PORIN_DELIVER_LOCAL && is_worlds(back);
	case TO_UPLINK: /* which may be the bridge of an adopted endpoint */
		return is_worlds(ahead) ||
		       (features.adopts && ahead->kind == PORIN_DELIVER_ADOPTED);
	}
	return false;
}

/* The same question of a packet whose ends were just resolved. */
static __always_inline int place_check(struct __sk_buff *skb, const struct packet *p,
				       enum place place, const struct end *source,
				       const struct end *destination, bool hairpin)
{
	const bool foreign = !source->slot && !(source->flags & PORIN_PREFIX_POOL);

	switch (place) {
	case FROM_ENDPOINT:
		if (source->slot != p->slot)
			return PORIN_DROP_SPOOFED_ADDRESS;
		if (destination->slot == p->slot && !hairpin)
			return PORIN_DROP_MALFORMED; /* from itself to itself */
		break;
	case TO_ENDPOINT:
		if (!foreign && !by_worker(p) &&
		    !(features.adopted && source->slot && came_from(skb, &source->deliver)))
			return PORIN_DROP_SPOOFED_ADDRESS;
		if (destination->slot != p->slot)
			return PORIN_DROP_NO_ENDPOINT;
		break;
	case FROM_UPLINK:
		if (passes_by(place, &destination->deliver, &source->deliver) &&
		    !(destination->flags & PORIN_PREFIX_POOL))
			return NOT_OURS;
		if (source->slot)
			return PORIN_DROP_SPOOFED_ADDRESS;
		/* A pool may overlap a network that the host is in: that is not cut off. */
		if (!destination->slot && !(destination->flags & PORIN_PREFIX_POOL))
			return NOT_OURS;
		if (destination->slot && (!foreign || (source->flags & PORIN_PREFIX_HOST)))
			return PORIN_DROP_SPOOFED_ADDRESS;
		break;
	case TO_UPLINK:
		if (!source->slot)
			return NOT_OURS;
		break;
	}
	if (destination->flags & PORIN_PREFIX_POOL)
		return PORIN_DROP_NO_ENDPOINT;
	return 0;
}

/*
 * Fills in the question and both ends, in the flow's original direction. `own`, if
 * not 0, is the slot that the packet is known to come from: the gate has seen to it.
 * `hairpin`: and the one that it goes to.
 */
static __always_inline int ends_resolve(struct __sk_buff *skb, const struct packet *p,
					__u32 direction, struct scratch *s, __u32 own, bool hairpin)
{
	struct end *originator = &s->judgement.end[PORIN_FLOW_ORIGINAL];
	struct end *responder = &s->judgement.end[PORIN_FLOW_REPLY];
	const bool reply = direction == PORIN_FLOW_REPLY;
	const struct decision none = {};
	struct question *q = &s->question;
	__be16 source_port;
	int from, to;

	if (reply) {
		q->originator = p->destination;
		q->responder = p->source;
		source_port = p->destination_port;
		q->port = policy_port(p->protocol, p->destination_port, p->source_port);
	} else {
		q->originator = p->source;
		q->responder = p->destination;
		source_port = p->source_port;
		q->port = policy_port(p->protocol, p->source_port, p->destination_port);
	}
	q->protocol = p->protocol;
	q->side = p->generation & 1;
	q->family = packet_family(p);
	q->source_class = source_class(p->protocol, source_port, q->side);
	s->judgement.enforced = none;
	s->judgement.shadow = none;
	from = own && (!reply || hairpin)
		       ? end_of_slot(own, q->side, q->family, originator)
		       : end_resolve(skb, &q->originator, q->side, q->family, originator);
	to = own && (reply || hairpin)
		     ? end_of_slot(own, q->side, q->family, responder)
		     : end_resolve(skb, &q->responder, q->side, q->family, responder);
	return from ? from : to;
}

static __always_inline void reasons_from(struct reasons *why, const struct judgement *j,
					 __u32 direction)
{
	const bool reply = direction == PORIN_FLOW_REPLY;

	why->source_peer = reply ? j->end[1].peer : j->end[0].peer;
	why->destination_peer = reply ? j->end[0].peer : j->end[1].peer;
	why->enforced = j->enforced;
	why->shadow = j->shadow;
}

/* A verdict, but for the flow's flags, which say whether the worker has a part in it. */
static __always_inline void flow_fill(struct porin_flow *flow, const struct judgement *j)
{
	const struct porin_delivery *originator = &j->end[PORIN_FLOW_ORIGINAL].deliver;
	__u32 direction;

	flow->deliver[PORIN_FLOW_ORIGINAL] = j->end[PORIN_FLOW_REPLY].deliver;
	flow->deliver[PORIN_FLOW_REPLY] = j->end[PORIN_FLOW_ORIGINAL].deliver;
	flow->egress_cookie = j->enforced.egress_cookie;
	flow->ingress_cookie = j->enforced.ingress_cookie;
	flow->identity[0] = j->end[0].peer;
	flow->identity[1] = j->end[1].peer;
	if (!features.judges_requests)
		return;
	flow->ruleset[PORIN_INGRESS] = j->ruleset[PORIN_INGRESS];
	flow->ruleset[PORIN_EGRESS] = j->ruleset[PORIN_EGRESS];
	for (direction = 0; direction < 2; direction++)
		flow->deliver[direction].worker = to_worker(flow->flags, direction, originator);
}

static __always_inline __u64 flow_word(__u32 generation, __u32 reason, __u32 verdict)
{
	return (__u64)generation << 32 | reason << 8 | verdict;
}

static __always_inline __u64 flow_allowed(__u32 generation)
{
	return flow_word(generation, 0, PORIN_VERDICT_ALLOW);
}

static __always_inline bool reason_is_policy(__u32 reason)
{
	return reason == PORIN_DROP_POLICY_EGRESS || reason == PORIN_DROP_POLICY_INGRESS;
}

/* Is the packet's generation later than the one the entry was judged in? */
static __always_inline bool flow_outdated(const struct packet *p, __u64 judged)
{
	return (__s32)(p->generation - FLOW_GENERATION(judged)) > 0;
}

/*
 * Makes the entry this CPU's to write to. False: it is another's, or was written to
 * since its word was `seen`. Meanwhile others judge for themselves.
 */
static __always_inline bool flow_claim(struct porin_flow *flow, __u64 seen)
{
	return seen != FLOW_BUSY &&
	       __sync_val_compare_and_swap(&flow->judged, seen, FLOW_BUSY) == seen;
}

/* Not a plain store: what was written is there before the word. */
static __always_inline void flow_release(struct porin_flow *flow, __u64 word)
{
	__sync_lock_test_and_set(&flow->judged, word);
}

/*
 * Who reads the word, then the fields, then the same word again, has fields that belong
 * to it. (That loads keep their order is x86's promise; elsewhere it is all but certain.)
 */
static __always_inline bool flow_still(const struct porin_flow *flow, __u64 word)
{
	barrier();
	return *(volatile __u64 *)&flow->judged == word;
}

static __always_inline void flow_restamp(struct porin_flow *flow, const struct packet *p,
					 __u64 seen, const struct judgement *j, __u32 reason)
{
	if (reason && !reason_is_policy(reason))
		return; /* a fault is not a verdict */
	if (!flow_claim(flow, seen))
		return;
	flow_fill(flow, j);
	flow_release(flow, flow_word(p->generation, reason, j->enforced.verdict));
}

static __always_inline bool judges_requests(const struct judgement *j)
{
	return features.judges_requests && (j->ruleset[PORIN_INGRESS] || j->ruleset[PORIN_EGRESS]);
}

/*
 * May what is allowed if its requests are begin with the worker? To an adopted endpoint's
 * link the worker has no way, nor has an endpoint to itself; and what the worker would send
 * to the host passes no gate that could track it. Returns 0 or a drop reason.
 */
static __always_inline int proxied_begins(const struct packet *p, enum place place,
					  const struct judgement *j, bool hairpin)
{
	if (!judges_requests(j) || by_worker(p))
		return 0;
	if (hairpin || place == TO_UPLINK || features.adopted ||
	    j->end[0].deliver.kind == PORIN_DELIVER_ADOPTED ||
	    j->end[1].deliver.kind == PORIN_DELIVER_ADOPTED ||
	    j->end[1].deliver.kind == PORIN_DELIVER_HOST)
		return PORIN_DROP_NOT_PROXIED;
	return 0;
}

/* And go on? One that began without the worker has no socket there. */
static __always_inline int proxied_goes_on(const struct judgement *j, const struct porin_flow *flow)
{
	if (!judges_requests(j) || (flow->flags & (PORIN_FLOW_PROXIED | PORIN_FLOW_WORKERS)))
		return 0;
	return PORIN_DROP_NOT_PROXIED;
}

/* A new entry. Of two CPUs with a first packet each, one makes it. */
static __always_inline int flow_create(const struct packet *p, struct scratch *s, __u64 how)
{
	struct porin_flow *flow = &s->flow;
	int error;

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->first_seen = p->now;
	flow->last_seen = p->now;
	flow->flags = flow_state(0, p, PORIN_FLOW_ORIGINAL);
	if (by_worker(p))
		flow->flags |= PORIN_FLOW_WORKERS;
	else if (judges_requests(&s->judgement))
		flow->flags |= PORIN_FLOW_PROXIED;
	flow_fill(flow, &s->judgement);
	if (s->judgement.end[PORIN_FLOW_ORIGINAL].deliver.kind == PORIN_DELIVER_STACK)
		flow->flags |= PORIN_FLOW_BY_STACK;
	if (features.accounting) {
		flow->packets[0] = 1;
		flow->bytes[0] = p->length;
	}
	if (features.publishes && (p->kind & PACKET_PUBLISHED)) {
		flow->flags |= PORIN_FLOW_PUBLISHED;
		if (p->kind & PACKET_HAIRPIN)
			flow->flags |= PORIN_FLOW_HAIRPIN;
		__builtin_memcpy(flow->published_address, &s->wire.destination,
				 sizeof(flow->published_address));
		flow->published_port = s->wire.destination_port;
	}
	flow->judged = flow_allowed(p->generation);
	error = flow_store(p, flow, how);
	if (error && error != -EEXIST)
		return PORIN_DROP_CONNTRACK_FULL;
	return 0;
}

/*
 * UDP has no beginnings: what comes back on a flow that may not be may be one of its own.
 * Not through a mapping, which leads to that flow alone.
 */
static __always_inline bool flow_apart(const struct porin_flow *flow, const struct packet *p,
				       __u32 direction)
{
	const __u64 judged = *(volatile __u64 *)&flow->judged;

	return (p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_UDPLITE) &&
	       direction == PORIN_FLOW_REPLY && !flow_masqueraded(flow) &&
	       FLOW_GENERATION(judged) == p->generation &&
	       FLOW_VERDICT(judged) != PORIN_VERDICT_ALLOW;
}

/* Notes what was decided. `first`: of a new flow, or to deny; what goes on is not counted again. */
static __always_inline void decided(struct __sk_buff *skb, struct packet *p, struct scratch *s,
				    __u32 direction, bool first)
{
	if (features.shadow && first)
		policy_shadow(skb, &s->question, &s->judgement, p->slot);
	reasons_from(&p->why, &s->judgement, direction);
	if (first)
		count_decision(skb, &p->why);
}

/*
 * The long way of the packet at hand: no entry, an entry of another generation, or one that
 * denies. `known`: there is an entry. Leaves direction and delivery in the scratch space. Not
 * static: verified by itself, once, and so for any place.
 */
__noinline int admit_judged(struct __sk_buff *skb, __u32 place, __u32 known)
{
	struct scratch *s = scratch_get();
	struct end *source, *destination;
	bool special, fresh, reply, hairpin;
	struct porin_flow *flow = NULL;
	struct reasons *why;
	__u64 judged = 0;
	struct packet *p;
	__u32 direction;
	int reason;

	if (!s)
		return PORIN_DROP_FAULT;
	p = &s->packet;
	why = &p->why;
	direction = PORIN_FLOW_ORIGINAL;
	if (known)
		flow = flow_find(skb, p, &direction);
	fresh = !flow || flow_expired(flow, p) || flow_anew(flow, p, direction) ||
		flow_apart(flow, p, direction);
	if (fresh)
		direction = PORIN_FLOW_ORIGINAL;
	reply = direction == PORIN_FLOW_REPLY;
	special = packet_special(p, &p->source) || packet_special(p, &p->destination);
	hairpin = features.publishes && place == FROM_ENDPOINT &&
		  ((p->kind & PACKET_HAIRPIN) || (!fresh && (flow->flags & PORIN_FLOW_HAIRPIN)));
	if (special && (place == FROM_ENDPOINT || place == TO_ENDPOINT))
		return PORIN_DROP_LINK_LOCAL;
	/* The worker begins connections, and no flow in their midst. */
	if (fresh ? by_worker(p) && !packet_is_syn(p) : !worker_fits(flow, p, direction))
		return PORIN_DROP_INVALID_STATE;
	reason = ends_resolve(skb, p, direction, s, place == FROM_ENDPOINT ? p->slot : 0, hairpin);
	if (fresh ? place == TO_ENDPOINT && !features.adopted : flow->flags & PORIN_FLOW_BY_STACK)
		back_through_stack(&s->judgement);
	/* The client's port was judged with the client's own connection. */
	if (fresh ? by_worker(p) : features.judges_requests && (flow->flags & PORIN_FLOW_WORKERS))
		s->question.source_class = 0;
	reasons_from(why, &s->judgement, direction);
	source = reply ? &s->judgement.end[1] : &s->judgement.end[0];
	destination = reply ? &s->judgement.end[0] : &s->judgement.end[1];
	/* A fault in our tables must not cut the host itself off. */
	if (reason && place == FROM_UPLINK && !destination->slot)
		return NOT_OURS;
	if (reason)
		return reason;
	reason = place_check(skb, p, place, source, destination, hairpin);
	if (reason)
		return reason;
	if (special)
		return PORIN_DROP_LINK_LOCAL;
	if (!fresh) {
		reason = published_holds(skb, p, flow, direction, &s->judgement.end[1]);
		if (reason)
			return reason;
	}
	if (flow_absurd(p) || (fresh && flow_unexpected(p)))
		return PORIN_DROP_INVALID_STATE;
	s->direction = direction;
	s->deliver = destination->deliver;

	if (!fresh) {
		judged = *(volatile __u64 *)&flow->judged;
		barrier();
		if (FLOW_GENERATION(judged) == p->generation &&
		    FLOW_VERDICT(judged) != PORIN_VERDICT_ALLOW) {
			s->judgement.enforced.egress_cookie = flow->egress_cookie;
			s->judgement.enforced.ingress_cookie = flow->ingress_cookie;
			s->judgement.enforced.verdict = FLOW_VERDICT(judged);
			reason = FLOW_REASON(judged);
			if (flow_still(flow, judged)) {
				decided(skb, p, s, direction, true);
				return reason ? reason : PORIN_DROP_FAULT;
			}
		}
	}
	reason = policy_judge(skb, &s->question, &s->judgement, p->slot);
	if (!reason)
		reason = fresh ? proxied_begins(p, place, &s->judgement, hairpin)
			       : proxied_goes_on(&s->judgement, flow);
	if (!fresh && flow_outdated(p, judged))
		flow_restamp(flow, p, judged, &s->judgement, reason);
	decided(skb, p, s, direction, reason ? reason_is_policy(reason) : fresh && !by_worker(p));
	if (reason)
		return reason;
	if (!fresh) {
		s->deliver.worker = to_worker(flow->flags, direction, &s->judgement.end[0].deliver);
		flow_touch(flow, p, direction, counts(place, &source->deliver));
		return 0;
	}
	reason = flow_create(p, s, flow ? BPF_ANY : BPF_NOEXIST);
	s->deliver.worker = s->flow.deliver[PORIN_FLOW_ORIGINAL].worker;
	if (!reason && features.events && !by_worker(p))
		event_tell(p, PORIN_EVENT_FLOW, 0);
	return reason;
}

/*
 * A mapping is no door: it leads to the flow that made it and to nothing else,
 * and that flow is not reached past it.
 */
static __always_inline int masquerade_fits(const struct porin_flow *flow, const struct packet *p,
					   const struct passage *way)
{
	const bool answers = flow && way->direction == PORIN_FLOW_REPLY && flow_masqueraded(flow) &&
			     !flow_expired(flow, p);

	if (way->translated && !answers)
		return NOT_OURS;
	if (!way->translated && answers)
		return PORIN_DROP_INVALID_STATE;
	return 0;
}

/* What its entry says of a packet, if that was judged in its generation; else NOT_KNOWN. */
static __always_inline int admit_known(struct __sk_buff *skb, struct packet *p, enum place place,
				       struct passage *way)
{
	struct porin_flow *flow = way->flow;
	struct ways ways;

	if (!flow || flow_expired(flow, p) || flow_anew(flow, p, way->direction) ||
	    flow_absurd(p) || *(volatile __u64 *)&flow->judged != flow_allowed(p->generation))
		return NOT_KNOWN;
	if (!worker_fits(flow, p, way->direction))
		return PORIN_DROP_INVALID_STATE;
	if (features.publishes && !published_same(flow, p, way->direction))
		return NOT_KNOWN;
	barrier();
	flow_ways(flow, way->direction, &ways);
	if (!flow_still(flow, flow_allowed(p->generation)))
		return NOT_KNOWN;
	if (passes_by(place, &ways.ahead, &ways.back))
		return NOT_OURS;
	if (!place_fits(skb, p, place, &ways.ahead, &ways.back))
		return PORIN_DROP_SPOOFED_ADDRESS;
	if (features.adopted && place == TO_ENDPOINT && !came_from(skb, &ways.back))
		return PORIN_DROP_SPOOFED_ADDRESS;
	way->touched = flow_touch(flow, p, way->direction, counts(place, &ways.back));
	way->deliver = ways.ahead;
	return 0;
}

/*
 * What no entry speaks of as it is may be for a published port: then the same question of
 * what it leads to. Asked in this order, so that ports that are published cost established
 * flows nothing.
 */
static __noinline int admit_published(struct __sk_buff *skb, struct packet *p, enum place place,
				      struct passage *way)
{
	int reason;

	if (!published_enter(skb))
		return NOT_KNOWN;
	way->flow = flow_find(skb, p, &way->direction);
	if (place == FROM_UPLINK) {
		reason = masquerade_fits(way->flow, p, way);
		if (reason)
			return reason;
	}
	return admit_known(skb, p, place, way);
}

/* Returns 0 and the packet's way, or a drop reason, or NOT_OURS. */
static __always_inline int admit(struct __sk_buff *skb, struct packet *p, enum place place,
				 struct passage *way)
{
	const bool leads_in = place == FROM_UPLINK || (place == FROM_ENDPOINT && !features.adopted);
	struct scratch *s;
	int reason;

	way->flow = flow_find(skb, p, &way->direction);
	if (place == FROM_UPLINK) {
		reason = masquerade_fits(way->flow, p, way);
		if (reason)
			return reason;
	}
	reason = admit_known(skb, p, place, way);
	if (features.publishes && leads_in && reason == NOT_KNOWN && !way->translated)
		reason = admit_published(skb, p, place, way);
	if (reason != NOT_KNOWN)
		return reason;
	reason = admit_judged(skb, place, way->flow != NULL);
	if (reason)
		return reason;
	s = scratch_get();
	if (!s)
		return PORIN_DROP_FAULT;
	way->direction = s->direction;
	way->deliver = s->deliver;
	/* Only the way to the world, or back to a published port, needs the entry itself. */
	if (!features.adopted && (features.publishes || way->deliver.kind == PORIN_DELIVER_WORLD)) {
		__u32 direction;

		way->flow = flow_find(skb, p, &direction);
		if (!way->flow)
			return PORIN_DROP_CONNTRACK_FULL;
	}
	return 0;
}

#endif
