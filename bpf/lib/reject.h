/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Denying out loud: TCP is answered with a reset (RFC 9293 section 3.10.7.1), all
 * else with an ICMP error that says "administratively prohibited". The answer comes
 * from the address that was tried, so that the sender takes it for the end of its
 * attempt. What cannot be answered is dropped like any denied packet.
 */
#ifndef PORIN_REJECT_H
#define PORIN_REJECT_H

#define TCP_SUM 16 /* offset of the checksum in a TCP header */
#define EINVAL 22

struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__sum16 checksum;
	__be16 urgent;
};

struct reset4 {
	struct iphdr ip;
	struct tcp_header tcp;
};

struct reset6 {
	struct ipv6hdr ip;
	struct tcp_header tcp;
};

/*
 * May `p` be answered with a reset now? In a fragment the segment's length cannot be
 * told. `limited`: the answer is for the outside, where a source can be forged at will
 * and whoever has the address be made to hear of it; so it is within the budget of
 * ICMP errors.
 */
static __always_inline bool reset_may(const struct packet *p, bool limited)
{
	if ((p->kind & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) || (p->tcp_flags & TCP_RST))
		return false;
	return !limited || icmp_may(p);
}

/* The reset that answers `p`, all but its checksum. */
static __always_inline int reset_of(struct __sk_buff *skb, const struct packet *p,
				    struct tcp_header *reset)
{
	struct tcp_header tried;
	__u32 length;

	if (bpf_skb_load_bytes(skb, p->l4, &tried, sizeof(tried)))
		return -1;
	reset->source_port = tried.destination_port;
	reset->destination_port = tried.source_port;
	reset->offset = sizeof(*reset) / 4 << 4;
	if (tried.flags & TCP_ACK) {
		reset->sequence = tried.acknowledged;
		reset->flags = TCP_RST;
		return 0;
	}
	length = p->length - (p->l4 - p->l3) - (tried.offset >> 4) * 4;
	length += !!(tried.flags & TCP_SYN) + !!(tried.flags & TCP_FIN);
	reset->acknowledged = bpf_htonl(bpf_ntohl(tried.sequence) + length);
	reset->flags = TCP_RST | TCP_ACK;
	return 0;
}

/*
 * Cuts the packet to `size` bytes, of which the last are a TCP header. `partial`: the
 * sender left the checksum to its device, and the kernel still means to fill it in, at
 * the place where it was. It tells by refusing to cut the field off, with EINVAL; any
 * other failure tells nothing, and there is no answer.
 */
static __always_inline int reset_reshape(struct __sk_buff *skb, const struct packet *p, __u32 size,
					 bool *partial)
{
	const __u32 l4 = size - sizeof(struct tcp_header);

	long error = 0;

	if (p->l4 == l4)
		error = bpf_skb_change_tail(skb, l4 + TCP_SUM + 1, 0);
	*partial = error == -EINVAL;
	if (error && !*partial)
		return -1;
	return bpf_skb_change_tail(skb, size, 0);
}

static __always_inline __sum16 reset_sum(const struct tcp_header *tcp, __s64 pseudo, bool partial)
{
	if (partial)
		return ~csum_fold(pseudo);
	return csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), pseudo));
}

static __noinline int reset4_build(struct __sk_buff *skb, const struct packet *p)
{
	const __u32 size = ETH_HLEN + sizeof(struct reset4);
	struct reset4 r = {};
	bool partial;
	__be32 pseudo[3];
	__s64 sum;

	if (reset_of(skb, p, &r.tcp) || reset_reshape(skb, p, size, &partial))
		return -1;
	r.ip.version = 4;
	r.ip.ihl = sizeof(r.ip) / 4;
	r.ip.tot_len = bpf_htons(sizeof(r));
	r.ip.frag_off = bpf_htons(0x4000);
	r.ip.ttl = ICMP_TTL;
	r.ip.protocol = IPPROTO_TCP;
	r.ip.saddr = p->destination.word[3];
	r.ip.daddr = p->source.word[3];
	r.ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&r.ip, sizeof(r.ip), 0));
	pseudo[0] = r.ip.saddr;
	pseudo[1] = r.ip.daddr;
	pseudo[2] = bpf_htonl(IPPROTO_TCP << 16 | sizeof(r.tcp));
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	r.tcp.checksum = reset_sum(&r.tcp, sum, partial);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &r, sizeof(r), BPF_F_RECOMPUTE_CSUM);
}

static __noinline int reset6_build(struct __sk_buff *skb, const struct packet *p)
{
	const __u32 size = ETH_HLEN + sizeof(struct reset6);
	struct reset6 r = {};
	bool partial;
	__be32 pseudo[2];
	__s64 sum;

	if (reset_of(skb, p, &r.tcp) || reset_reshape(skb, p, size, &partial))
		return -1;
	r.ip.version = 6;
	r.ip.payload_len = bpf_htons(sizeof(r.tcp));
	r.ip.nexthdr = IPPROTO_TCP;
	r.ip.hop_limit = ICMP_TTL;
	__builtin_memcpy(&r.ip.saddr, &p->destination, sizeof(r.ip.saddr));
	__builtin_memcpy(&r.ip.daddr, &p->source, sizeof(r.ip.daddr));
	pseudo[0] = bpf_htonl(sizeof(r.tcp));
	pseudo[1] = bpf_htonl(IPPROTO_TCP);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&r.ip.saddr, 2 * sizeof(r.ip.saddr), sum);
	r.tcp.checksum = reset_sum(&r.tcp, sum, partial);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &r, sizeof(r), BPF_F_RECOMPUTE_CSUM);
}

/* Back to whoever sent the frame. */
static __always_inline int macs_swap(struct __sk_buff *skb)
{
	__u8 macs[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, macs, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, 0, macs + ETH_ALEN, ETH_ALEN))
		return -1;
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}

/* Turns the packet into its answer; `outside`: which leaves by an uplink. */
static __always_inline int reject_build(struct __sk_buff *skb, const struct packet *p, bool outside)
{
	const __u64 code4 = ICMP4_PROHIBITED, code6 = ICMP6_PROHIBITED;

	if (p->protocol == IPPROTO_TCP) {
		if (!reset_may(p, outside))
			return -1;
		if (features.ipv4 && p->version == 4)
			return reset4_build(skb, p) || macs_swap(skb);
		if (features.ipv6 && p->version == 6)
			return reset6_build(skb, p) || macs_swap(skb);
		return -1;
	}
	if (!icmp_may(p))
		return -1;
	if (features.ipv4 && p->version == 4)
		return icmp4_build(skb, p, p->destination.word[3], ICMP4_UNREACHABLE, code4 << 32);
	if (features.ipv6 && p->version == 6)
		return icmp6_build(skb, p, &p->destination, ICMP6_UNREACHABLE, code6 << 32);
	return -1;
}

/*
 * The answer meets a gate of its own interface once more. No container can set a mark
 * that is seen here, and nobody knows this one.
 */
static __always_inline int reject_mark(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct porin_state *s = array_look_up(&state, &zero);

	if (!s)
		return -1;
	if (!s->mark)
		__sync_val_compare_and_swap(&s->mark, 0, bpf_get_prandom_u32() | 1);
	skb->mark = s->mark;
	return 0;
}

/* Drops the packet and answers it. Not static: verified by itself, once. */
__noinline int reject_answer(struct __sk_buff *skb, __u32 reason, __u32 place)
{
	struct scratch *s = scratch_get();

	if (!features.reject || !s)
		return TC_ACT_SHOT;
	drop(&s->packet, reason);
	switch (place) {
	case FROM_ENDPOINT: /* who knows nothing of what a published port leads to */
		if (reject_build(skb, packet_on_wire(s), false))
			return TC_ACT_SHOT;
		if (features.adopted) /* which may have no peer */
			return reject_mark(skb) ? TC_ACT_SHOT : bpf_redirect(skb->ifindex, 0);
		return bpf_redirect_peer(skb->ifindex, 0);
	case TO_ENDPOINT: /* the sender is the host's own stack, or who it forwards for */
		if (reject_build(skb, &s->packet, false) || reject_mark(skb))
			return TC_ACT_SHOT;
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	case FROM_UPLINK: /* who knows nothing of masquerading */
		if (reject_build(skb, &s->wire, true) || reject_mark(skb))
			return TC_ACT_SHOT;
		return bpf_redirect(skb->ifindex, 0);
	}
	return TC_ACT_SHOT;
}

/* Drops the packet, out loud if that is what policy says. */
static __always_inline int refuse(struct __sk_buff *skb, const struct packet *p, __u32 reason,
				  enum place place)
{
	/* The worker's own connection is nobody's to be told of: its client is. */
	if (features.reject && reason_is_policy(reason) && !by_worker(p) &&
	    p->why.enforced.verdict == PORIN_VERDICT_REJECT)
		return reject_answer(skb, reason, place);
	return drop(p, reason);
}

#endif
