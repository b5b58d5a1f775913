/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Telling the daemon: new flows, denials, drops. The daemon polls the ring, so
 * records wake nobody until a good part of the ring is full.
 */
#ifndef PORIN_EVENTS_H
#define PORIN_EVENTS_H

#define EVENTS_WAKE (1 << 18) /* wake the daemon whenever so much more is waiting */

#define EVENTS_FLOWS_ROOM (3 << 18) /* of the ring; the rest is for drops and denials */
#define EVENTS_FLOWS 10 /* events of flows for each that a drop or denial may have */

/* Each object says how many drop and deny events per second and CPU it may tell. */
static __always_inline __u32 event_rate(void);

static __noinline int event_tell(const struct packet *p, __u32 type, __u32 reason)
{
	struct porin_budget *budget;
	bool taken, crossing;
	struct porin_event *e;
	__u64 waiting;

	if (type == PORIN_EVENT_FLOW) {
		budget = budget_take(PORIN_BUDGET_FLOWS, p->now, event_rate() * EVENTS_FLOWS,
				     &taken);
		if (taken)
			taken = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < EVENTS_FLOWS_ROOM;
	} else {
		budget = budget_take(PORIN_BUDGET_EVENTS, p->now, event_rate(), &taken);
	}
	if (!budget)
		return 0;
	e = taken ? bpf_ringbuf_reserve(&events, sizeof(*e), 0) : NULL;
	if (!e) {
		budget->suppressed++;
		return 0;
	}
	e->time = p->now;
	e->type = type;
	e->reason = reason;
	e->generation = p->generation;
	e->slot = p->slot;
	e->hook = p->hook;
	e->length = p->length;
	__builtin_memcpy(e->source, &p->source, sizeof(e->source));
	__builtin_memcpy(e->destination, &p->destination, sizeof(e->destination));
	e->source_port = p->source_port;
	e->destination_port = p->destination_port;
	e->protocol = p->protocol;
	e->verdict = type == PORIN_EVENT_FLOW ? PORIN_VERDICT_ALLOW : PORIN_VERDICT_DENY;
	if (type == PORIN_EVENT_DENY && p->why.enforced.verdict == PORIN_VERDICT_REJECT)
		e->verdict = PORIN_VERDICT_REJECT;
	e->tcp_flags = p->tcp_flags;
	e->shadow = p->why.shadow.verdict;
	e->source_peer = p->why.source_peer;
	e->destination_peer = p->why.destination_peer;
	e->egress_cookie = p->why.enforced.egress_cookie;
	e->ingress_cookie = p->why.enforced.ingress_cookie;
	e->shadow_egress_cookie = p->why.shadow.egress_cookie;
	e->shadow_ingress_cookie = p->why.shadow.ingress_cookie;
	/* This record is among those waiting. A wake-up costs microseconds: one per crossing. */
	waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	crossing =
		waiting >= EVENTS_WAKE && waiting % EVENTS_WAKE < sizeof(*e) + BPF_RINGBUF_HDR_SZ;
	bpf_ringbuf_submit(e, crossing ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

/* What every interface says to its link when it comes up, and again later. */
static __always_inline bool event_is_chatter(const struct packet *p, __u32 reason)
{
	const union address *to = &p->destination;

	if (reason != PORIN_DROP_LINK_LOCAL && reason != PORIN_DROP_NOT_READY)
		return false;
	if (to->half[0] == 0 && to->word[2] == bpf_htonl(0xffff))
		return (to->word[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
	return (to->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

/*
 * The only way out for a packet that is not let through: counted, told, gone.
 * Chatter is only counted: it would fill the flow log.
 */
static __noinline int drop(const struct packet *p, __u32 reason)
{
	count_drop(p, reason);
	if (event_rate() && !event_is_chatter(p, reason))
		event_tell(p,
			   reason == PORIN_DROP_POLICY_EGRESS || reason == PORIN_DROP_POLICY_INGRESS
				   ? PORIN_EVENT_DENY
				   : PORIN_EVENT_DROP,
			   reason);
	return TC_ACT_SHOT;
}

#endif
