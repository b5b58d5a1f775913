/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: keys, states, time-outs. One entry serves both directions. Nothing here
 * decides what is allowed.
 *
 * Who writes what belongs to a verdict (deliveries, cookies, identities) has the entry
 * to itself, by FLOW_BUSY in `judged` (track.h). All else is written without locks:
 * two CPUs may lose each other's flag or time, a later packet writes it again, and no
 * verdict depends on it.
 */
#ifndef PORIN_CONNTRACK_H
#define PORIN_CONNTRACK_H

#define FLOW_TOUCH (SECOND / 4) /* how stale last_seen may get: spares the cache line */
#define FLOW_BUSY 0ULL /* of no generation, and no verdict: being written to */
#define FLOW_REASON(judged) ((__u32)(judged) >> 8 & 0xff)
#define FLOW_VERDICT(judged) ((__u32)(judged) & 0xff)
#define FLOW_GENERATION(judged) ((__u32)((judged) >> 32))

union flow_key {
	struct porin_flow4_key v4;
	struct porin_flow6_key v6;
};

static __always_inline void flow_order(const struct packet *p, bool low, __be16 *port)
{
	port[0] = low ? p->source_port : p->destination_port;
	port[1] = low ? p->destination_port : p->source_port;
}

/* Fills the key of a flow between (s, sp) and (d, dp); true if the former is its lower end. */
static __always_inline bool flow4_key_of(struct porin_flow4_key *key, __u8 protocol, __be32 s,
					 __be16 sp, __be32 d, __be16 dp)
{
	bool low = s == d ? bpf_ntohs(sp) <= bpf_ntohs(dp) : bpf_ntohl(s) < bpf_ntohl(d);

	*(__be32 *)key->address[0] = low ? s : d;
	*(__be32 *)key->address[1] = low ? d : s;
	key->port[0] = low ? sp : dp;
	key->port[1] = low ? dp : sp;
	*(__u32 *)&key->protocol = 0;
	key->protocol = protocol;
	return low;
}

static __always_inline bool flow4_key(const struct packet *p, struct porin_flow4_key *key)
{
	return flow4_key_of(key, p->protocol, p->source.word[3], p->source_port,
			    p->destination.word[3], p->destination_port);
}

static __always_inline bool flow6_key(const struct packet *p, struct porin_flow6_key *key)
{
	const union address *s = &p->source, *d = &p->destination;
	__u64 *low_end = (__u64 *)key->address[0], *high_end = (__u64 *)key->address[1];
	bool low;

	if (s->half[0] != d->half[0])
		low = bpf_be64_to_cpu(s->half[0]) < bpf_be64_to_cpu(d->half[0]);
	else if (s->half[1] != d->half[1])
		low = bpf_be64_to_cpu(s->half[1]) < bpf_be64_to_cpu(d->half[1]);
	else
		low = bpf_ntohs(p->source_port) <= bpf_ntohs(p->destination_port);
	low_end[0] = low ? s->half[0] : d->half[0];
	low_end[1] = low ? s->half[1] : d->half[1];
	high_end[0] = low ? d->half[0] : s->half[0];
	high_end[1] = low ? d->half[1] : s->half[1];
	flow_order(p, low, key->port);
	*(__u32 *)&key->protocol = 0;
	key->protocol = p->protocol;
	return low;
}

/* The packet's entry, if any, and in which direction of it the packet goes. */
static __always_inline struct porin_flow *flow_find(struct __sk_buff *skb, const struct packet *p,
						    __u32 *direction)
{
	struct porin_flow *flow = NULL;
	bool low = false;

	if (features.ipv4 && p->version == 4) {
		struct porin_flow4_key key;

		low = flow4_key(p, &key);
		flow = hash_look_up(skb, &flows4, &key);
		KEEP_APART(flow, 4);
	} else if (features.ipv6 && p->version == 6) {
		struct porin_flow6_key key __attribute__((aligned(8)));

		low = flow6_key(p, &key);
		flow = hash_look_up(skb, &flows6, &key);
		KEEP_APART(flow, 6);
	}
	*direction = PORIN_FLOW_ORIGINAL;
	if (flow && low != !!(flow->flags & PORIN_FLOW_LOW_ORIGINATES))
		*direction = PORIN_FLOW_REPLY;
	return flow;
}

/* The address tells, and is written last; the flag is for userspace. */
static __always_inline bool flow_masqueraded(const struct porin_flow *flow)
{
	return *(__be32 *)flow->nat_address != 0;
}

static __always_inline bool flow_closed(__u32 flags)
{
	const __u32 both = PORIN_FLOW_FIN_ORIGINAL | PORIN_FLOW_FIN_REPLY;

	return (flags & PORIN_FLOW_RST) || (flags & both) == both;
}

static __always_inline __u64 flow_timeout(__u8 protocol, __u32 flags)
{
	switch (protocol) {
	case IPPROTO_TCP:
		if (flow_closed(flags))
			return PORIN_TIMEOUT_TCP_CLOSING * SECOND;
		return (flags & PORIN_FLOW_ESTABLISHED ? PORIN_TIMEOUT_TCP_ESTABLISHED
						       : PORIN_TIMEOUT_TCP_SYN) *
		       SECOND;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return (flags & PORIN_FLOW_SEEN_REPLY ? PORIN_TIMEOUT_UDP_REPLIED
						      : PORIN_TIMEOUT_UDP) *
		       SECOND;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return PORIN_TIMEOUT_ICMP * SECOND;
	}
	return PORIN_TIMEOUT_OTHER * SECOND;
}

static __always_inline bool flow_expired(const struct porin_flow *flow, const struct packet *p)
{
	__s64 age = p->now - flow->last_seen; /* another CPU may be ahead of our clock */

	if (age < (__s64)(PORIN_TIMEOUT_ICMP * SECOND)) /* the shortest of all */
		return false;
	return age > (__s64)flow_timeout(p->protocol, flow->flags);
}

/* A packet that asks for a flow of its own although there is an entry. */
static __always_inline bool flow_anew(const struct porin_flow *flow, const struct packet *p,
				      __u32 direction)
{
	if (packet_is_syn(p))
		return direction == PORIN_FLOW_REPLY || flow_closed(flow->flags);
	return (p->kind & PACKET_ECHO_REQUEST) && direction == PORIN_FLOW_REPLY;
}

/* TCP flags that fit no state at all (RFC 9293: a segment has ACK, SYN or RST). */
static __always_inline bool flow_absurd(const struct packet *p)
{
	__u8 f = p->tcp_flags;

	if (p->protocol != IPPROTO_TCP || (p->kind & PACKET_LATER_FRAGMENT))
		return false;
	return !(f & (TCP_SYN | TCP_ACK | TCP_RST)) || ((f & TCP_SYN) && (f & (TCP_FIN | TCP_RST)));
}

/* A packet that cannot be the first of a flow. */
static __always_inline bool flow_unexpected(const struct packet *p)
{
	if (p->kind & PACKET_ECHO_REPLY)
		return true;
	if (p->protocol != IPPROTO_TCP || (p->kind & PACKET_LATER_FRAGMENT))
		return false;
	return (p->tcp_flags & TCP_RST) ||
	       (p->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

static __always_inline __u32 flow_state(__u32 flags, const struct packet *p, __u32 direction)
{
	if (direction == PORIN_FLOW_REPLY)
		flags |= PORIN_FLOW_SEEN_REPLY;
	if (p->protocol != IPPROTO_TCP || (p->kind & PACKET_LATER_FRAGMENT))
		return flags;
	if (p->tcp_flags & TCP_RST)
		return flags | PORIN_FLOW_RST;
	if (p->tcp_flags & TCP_SYN) {
		if (direction == PORIN_FLOW_REPLY)
			return flags | PORIN_FLOW_SYNACK;
		return flags | PORIN_FLOW_SYN;
	}
	/* What was picked up in mid-stream needs an answer: a stray ACK makes no connection. */
	if (direction == PORIN_FLOW_ORIGINAL &&
	    ((flags & PORIN_FLOW_SYNACK) ||
	     (flags & (PORIN_FLOW_SYN | PORIN_FLOW_SEEN_REPLY)) == PORIN_FLOW_SEEN_REPLY))
		flags |= PORIN_FLOW_ESTABLISHED;
	if (p->tcp_flags & TCP_FIN)
		flags |= direction == PORIN_FLOW_REPLY ? PORIN_FLOW_FIN_REPLY
						       : PORIN_FLOW_FIN_ORIGINAL;
	return flags;
}

/* Notes an allowed packet; what passes two hooks is counted at one. True if the entry's time was moved on. */
static __always_inline bool flow_touch(struct porin_flow *flow, const struct packet *p,
				       __u32 direction, bool count)
{
	const bool stale = (__s64)(p->now - flow->last_seen) > (__s64)FLOW_TOUCH;
	__u32 flags = flow_state(flow->flags, p, direction);

	if (flags != flow->flags)
		flow->flags = flags;
	if (stale)
		flow->last_seen = p->now;
	if (features.accounting && count) {
		if (direction == PORIN_FLOW_REPLY) {
			__sync_fetch_and_add(&flow->packets[1], 1);
			__sync_fetch_and_add(&flow->bytes[1], p->length);
		} else {
			__sync_fetch_and_add(&flow->packets[0], 1);
			__sync_fetch_and_add(&flow->bytes[0], p->length);
		}
	}
	return stale;
}

/* Stores a new entry. BPF_NOEXIST: of two first packets one makes it. */
static __always_inline int flow_store(const struct packet *p, struct porin_flow *flow, __u64 how)
{
	if (features.ipv4 && p->version == 4) {
		struct porin_flow4_key key;
		int error;

		if (flow4_key(p, &key))
			flow->flags |= PORIN_FLOW_LOW_ORIGINATES;
		error = bpf_map_update_elem(&flows4, &key, flow, how);
		KEEP_APART(error, 4);
		return error;
	}
	if (features.ipv6 && p->version == 6) {
		struct porin_flow6_key key __attribute__((aligned(8)));
		int error;

		if (flow6_key(p, &key))
			flow->flags |= PORIN_FLOW_LOW_ORIGINATES;
		error = bpf_map_update_elem(&flows6, &key, flow, how);
		KEEP_APART(error, 6);
		return error;
	}
	return -1;
}

#endif
