/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors that pass through: an error belongs to the flow of the packet that
 * it quotes, and goes to the end of it that sent that packet. Errors about
 * masqueraded flows are translated, the quoted header too (RFC 5508).
 */
#ifndef PORIN_ICMP_ERROR_H
#define PORIN_ICMP_ERROR_H

/* Parses the quoted packet, once linear. Not static: verified by itself, once.
 * Returns 0 if it could be a flow's. */
__noinline int quoted_parse(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	struct packet *p, *q;
	int reason = PACKET_SHORT;
	__u32 at;

	if (!s)
		return PORIN_DROP_FAULT;
	p = &s->packet;
	q = &s->quoted;
	at = p->l4 + sizeof(struct icmp_header);
	if (at > PACKET_PULL - 64)
		return PORIN_DROP_EXTENSION_HEADER;
	__builtin_memset(q, 0, sizeof(*q));
	q->now = p->now;
	q->generation = p->generation;
	q->slot = p->slot;
	q->hook = p->hook;
	if (features.ipv4 && p->version == 4)
		reason = packet_ip4(skb, q, at, true);
	else if (features.ipv6 && p->version == 6)
		reason = packet_ip6(skb, q, at, true);
	if (!reason && (q->kind & (PACKET_LATER_FRAGMENT | PACKET_ICMP_ERROR)))
		return PORIN_DROP_UNTRACKED_ERROR;
	return reason;
}

static __always_inline bool error_is_too_big(const struct packet *p)
{
	if (p->version == 4)
		return p->icmp_type == ICMP4_UNREACHABLE && p->icmp_code == ICMP4_FRAG_NEEDED;
	return p->icmp_type == ICMP6_TOO_BIG;
}

static __always_inline bool address_equal(const union address *a, const union address *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

/* Is the error's own sender one who may be met here? */
static __always_inline int error_sender(struct __sk_buff *skb, const struct packet *p,
					enum place place, struct scratch *s)
{
	struct end *end = &s->judgement.end[0];
	int reason;

	if (place == FROM_ENDPOINT || place == TO_UPLINK)
		return 0; /* the gate and the addresses have vouched for it */
	reason = end_resolve(skb, &p->source, p->generation & 1, packet_family(p), end);
	if (reason)
		return reason;
	if (end->slot && features.adopted)
		return came_from(skb, &end->deliver) ? 0 : PORIN_DROP_SPOOFED_ADDRESS;
	/* Through a bridge that is an uplink: for the host itself, or the gate at its end. */
	if (place == FROM_UPLINK && features.adopts && end->deliver.kind == PORIN_DELIVER_ADOPTED)
		return NOT_OURS;
	if (end->slot || (end->flags & PORIN_PREFIX_POOL))
		return PORIN_DROP_SPOOFED_ADDRESS;
	return 0;
}

/*
 * Is the quoted packet's flow allowed, judged for this packet's generation? Its ways, as
 * the quoted packet went, either way.
 */
static __always_inline bool error_flow_allowed(struct __sk_buff *skb, struct packet *q,
					       struct porin_flow *flow, __u32 direction,
					       struct scratch *s, struct ways *ways)
{
	__u64 judged = *(volatile __u64 *)&flow->judged;
	const bool reply = direction == PORIN_FLOW_REPLY;
	int reason;

	barrier();
	if (FLOW_GENERATION(judged) == q->generation) {
		flow_ways(flow, direction, ways);
		if (flow_still(flow, judged))
			return FLOW_VERDICT(judged) == PORIN_VERDICT_ALLOW;
	}
	reason = ends_resolve(skb, q, direction, s, 0, false);
	if (flow->flags & PORIN_FLOW_BY_STACK)
		back_through_stack(&s->judgement);
	if (features.judges_requests && (flow->flags & PORIN_FLOW_WORKERS))
		s->question.source_class = 0;
	if (!reason && features.publishes)
		reason = published_leads(skb, q, flow, &s->judgement.end[PORIN_FLOW_REPLY],
					 reply ? q->source_port : q->destination_port);
	if (!reason)
		reason = policy_judge(skb, &s->question, &s->judgement, q->slot);
	if (!reason)
		reason = proxied_goes_on(&s->judgement, flow);
	if (flow_outdated(q, judged))
		flow_restamp(flow, q, judged, &s->judgement, reason);
	ways->ahead = reply ? s->judgement.end[0].deliver : s->judgement.end[1].deliver;
	ways->back = reply ? s->judgement.end[1].deliver : s->judgement.end[0].deliver;
	ways->ahead.worker = to_worker(flow->flags, direction, &s->judgement.end[0].deliver);
	ways->back.worker = to_worker(flow->flags, !direction, &s->judgement.end[0].deliver);
	return reason == 0;
}

/*
 * Returns 0, the error's way and, in s->quoted, the quoted packet as its flow
 * knows it (masquerading undone); or a drop reason, or NOT_OURS.
 */
static __noinline int admit_error(struct __sk_buff *skb, struct packet *p, enum place place,
				  struct passage *way)
{
	/* Of errors about no flow of ours, an uplink's may be about the host's own. */
	const int unknown = place == FROM_UPLINK ? NOT_OURS : PORIN_DROP_UNTRACKED_ERROR;
	struct scratch *s = scratch_get();
	struct ways quoted_ways;
	struct porin_flow *flow;
	__u32 quoted_direction;
	struct packet *q;
	bool allowed;
	int reason;

	if (!s)
		return PORIN_DROP_FAULT;
	q = &s->quoted;
	packet_pull(skb, PACKET_PULL);
	if (quoted_parse(skb))
		return unknown;
	if (!address_equal(&p->destination, &q->source))
		return unknown;
	if (place == FROM_ENDPOINT && !address_equal(&p->source, &q->destination))
		return PORIN_DROP_UNTRACKED_ERROR;
	if (place == FROM_UPLINK && nat_concerns(p) && nat_chooses(q)) {
		struct porin_nat_value *nat;
		struct porin_nat_key key;

		nat_key(&key, q->protocol, q->destination.word[3], q->destination_port,
			q->source.word[3], q->source_port);
		nat = hash_look_up(skb, &nat4, &key);
		if (nat) {
			q->source.word[3] = *(__be32 *)nat->address;
			q->source_port = nat->port;
			if (q->protocol == IPPROTO_ICMP)
				q->destination_port = nat->port;
		}
	}
	flow = flow_find(skb, q, &quoted_direction);
	if (features.publishes && !features.adopted && !flow &&
	    (place == FROM_UPLINK || place == FROM_ENDPOINT) && published_quoted(skb))
		flow = flow_find(skb, q, &quoted_direction);
	if (!flow || flow_expired(flow, q))
		return unknown;
	if (!published_error_fits(s, flow, quoted_direction, place == FROM_ENDPOINT))
		return PORIN_DROP_UNTRACKED_ERROR;
	reason = error_sender(skb, p, place, s);
	if (reason)
		return reason;
	allowed = error_flow_allowed(skb, q, flow, quoted_direction, s, &quoted_ways);
	if (passes_by(place, &quoted_ways.back, &quoted_ways.ahead))
		return NOT_OURS;
	if (!allowed && !error_is_too_big(p))
		return PORIN_DROP_UNTRACKED_ERROR;
	/* The error goes back to where the quoted packet came from. */
	if (!place_fits(skb, p, place, &quoted_ways.back, &quoted_ways.ahead))
		return PORIN_DROP_UNTRACKED_ERROR;
	way->flow = flow;
	way->direction = !quoted_direction;
	way->deliver = quoted_ways.back;
	return 0;
}

/* Replaces part of a 16-bit one's complement sum (RFC 1624). */
static __always_inline __u16 csum_replace(__u16 sum, __u32 from, __u32 to)
{
	__u32 s = (__u16)~sum;

	s += (~from & 0xffff) + (~from >> 16) + (to & 0xffff) + (to >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (__u16)~s;
}

/* Where the quoted packet's own fourth layer keeps its checksum; 0: out of reach. */
static __always_inline __u32 quoted_sum(struct __sk_buff *skb, const struct packet *q)
{
	__u32 at;

	switch (q->protocol) {
	case IPPROTO_TCP:
		at = q->l4 + 16;
		break;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		at = q->l4 + 6;
		break;
	case IPPROTO_ICMP:
		at = q->l4 + 2;
		break;
	default:
		return 0;
	}
	return at + 2 <= skb->len ? at : 0;
}

/*
 * Translates an error: one address of its own header and the other of the quoted
 * one. `r` is the change to the quoted header; the outer one is its mirror. Every
 * change within the quoted bytes is made good in the error's own checksum, but
 * that of an IP header's address, which that header's checksum makes good already.
 */
static __noinline int error_rewrite(struct __sk_buff *skb, const struct packet *p,
				    const struct packet *q, const struct rewrite *r)
{
	const __u32 port_at =
		q->protocol == IPPROTO_ICMP ? q->l4 + 4 : q->l4 + (r->destination ? 2 : 0);
	const __u32 address_at = q->l3 + (r->destination ? IP4_DESTINATION : IP4_SOURCE);
	const __u32 sum_at = quoted_sum(skb, q), error_sum_at = p->l4 + 2;
	struct rewrite outer = {
		.old_address = r->old_address,
		.new_address = r->new_address,
		.destination = !r->destination,
	};
	__u16 old, new;
	int error = 0;

	if (r->old_port != r->new_port) {
		error |= bpf_skb_store_bytes(skb, port_at, &r->new_port, 2, 0);
		error |= bpf_l4_csum_replace(skb, error_sum_at, r->old_port, r->new_port, 2);
	}
	if (sum_at) {
		error |= bpf_skb_load_bytes(skb, sum_at, &old, 2);
		new = csum_replace(old, r->old_port, r->new_port);
		if (q->protocol != IPPROTO_ICMP)
			new = csum_replace(new, r->old_address, r->new_address);
		if (q->protocol == IPPROTO_UDP)
			new = old ? (new ? new : 0xffff) : 0;
		error |= bpf_skb_store_bytes(skb, sum_at, &new, 2, 0);
		error |= bpf_l4_csum_replace(skb, error_sum_at, old, new, 2);
	}
	error |= bpf_skb_load_bytes(skb, q->l3 + IP4_CHECKSUM, &old, 2);
	new = csum_replace(old, r->old_address, r->new_address);
	error |= bpf_skb_store_bytes(skb, q->l3 + IP4_CHECKSUM, &new, 2, 0);
	error |= bpf_skb_store_bytes(skb, address_at, &r->new_address, 4, 0);
	error |= nat_rewrite_l3(skb, p, &outer);
	return error ? PORIN_DROP_FAULT : 0;
}

#endif
