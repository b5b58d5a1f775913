/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors that the datapath makes: the packet is cut to what may be quoted,
 * headers are put before it, and it goes back to where it came from. RFC 792,
 * RFC 1191, RFC 1812 section 4.3.2.3 (576 bytes in all); RFC 4443 (1280 bytes).
 */
#ifndef PORIN_ICMP_H
#define PORIN_ICMP_H

#define ICMP_RATE 1000 /* errors per second and CPU (RFC 4443 section 2.4 f) */
#define ICMP4_TOTAL 576
#define ICMP6_TOTAL 1280
#define ICMP_CHUNK 64
#define ICMP_TTL 64

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 info; /* next-hop MTU, of 16 bits in IPv4 and of 32 in IPv6 */
};

/* What comes before the quotation, from eth on; pad aligns the rest. */
struct icmp4_error {
	__u8 pad[2];
	struct ethhdr eth;
	struct iphdr ip;
	struct icmp_header icmp;
};

struct icmp6_error {
	__u8 pad[2];
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmp_header icmp;
};

static __always_inline __sum16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* Sum of `length` bytes from `offset`. */
static __noinline __s64 icmp_sum(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 seed)
{
	__s64 sum = seed;
	int i;

	for (i = 0; i < ICMP6_TOTAL / ICMP_CHUNK; i++) {
		__u32 at = i * ICMP_CHUNK, n;
		__u8 chunk[ICMP_CHUNK] __attribute__((aligned(8))) = {};

		if (at >= length)
			break;
		n = length - at;
		asm volatile("" : "+r"(n)); /* keep the bounds below where they are */
		if (n > ICMP_CHUNK)
			n = ICMP_CHUNK;
		if (n < 1)
			break;
		if (bpf_skb_load_bytes(skb, offset + at, chunk, n))
			return -1;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)chunk, sizeof(chunk), sum);
		if (sum < 0)
			return -1;
	}
	return sum;
}

/* Cuts the packet to `quoted` bytes of L3 and makes room for `room` more before them. */
static __always_inline int icmp_reshape(struct __sk_buff *skb, __u32 quoted, __u32 room)
{
	if (bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0))
		return -1;
	return bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0);
}

static __noinline int icmp4_build(struct __sk_buff *skb, const struct packet *p, __be32 source,
				  __u32 type, __u64 code_info)
{
	struct icmp4_error e = {};
	const __u32 headers = sizeof(e.ip) + sizeof(e.icmp);
	__u32 quoted = p->length;
	__s64 sum;

	if (quoted > ICMP4_TOTAL - headers)
		quoted = ICMP4_TOTAL - headers;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, e.eth.h_dest, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, 0, e.eth.h_source, ETH_ALEN) ||
	    icmp_reshape(skb, quoted, headers))
		return -1;
	e.eth.h_proto = bpf_htons(ETH_P_IP);
	e.ip.version = 4;
	e.ip.ihl = sizeof(e.ip) / 4;
	e.ip.tos = 0xc0; /* internetwork control (RFC 1812 section 4.3.2.5) */
	e.ip.tot_len = bpf_htons(headers + quoted);
	e.ip.frag_off = bpf_htons(0x4000);
	e.ip.ttl = ICMP_TTL;
	e.ip.protocol = IPPROTO_ICMP;
	e.ip.saddr = source;
	e.ip.daddr = p->source.word[3];
	e.ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&e.ip, sizeof(e.ip), 0));
	e.icmp.type = type;
	e.icmp.code = code_info >> 32;
	e.icmp.info = bpf_htonl((__u32)code_info);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&e.icmp, sizeof(e.icmp), 0);
	sum = icmp_sum(skb, ETH_HLEN + headers, quoted, sum);
	if (sum < 0)
		return -1;
	e.icmp.checksum = csum_fold(sum);
	return bpf_skb_store_bytes(skb, 0, &e.eth, sizeof(e) - sizeof(e.pad), 0);
}

static __noinline int icmp6_build(struct __sk_buff *skb, const struct packet *p,
				  const union address *source, __u32 type, __u64 code_info)
{
	struct icmp6_error e = {};
	const __u32 headers = sizeof(e.ip) + sizeof(e.icmp);
	__u32 quoted = p->length;
	__be32 pseudo[2];
	__s64 sum;

	if (quoted > ICMP6_TOTAL - headers)
		quoted = ICMP6_TOTAL - headers;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, e.eth.h_dest, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, 0, e.eth.h_source, ETH_ALEN) ||
	    icmp_reshape(skb, quoted, headers))
		return -1;
	e.eth.h_proto = bpf_htons(ETH_P_IPV6);
	e.ip.version = 6;
	e.ip.payload_len = bpf_htons(sizeof(e.icmp) + quoted);
	e.ip.nexthdr = IPPROTO_ICMPV6;
	e.ip.hop_limit = ICMP_TTL;
	__builtin_memcpy(&e.ip.saddr, source, sizeof(e.ip.saddr));
	__builtin_memcpy(&e.ip.daddr, &p->source, sizeof(e.ip.daddr));
	e.icmp.type = type;
	e.icmp.code = code_info >> 32;
	e.icmp.info = bpf_htonl((__u32)code_info);
	pseudo[0] = bpf_htonl(sizeof(e.icmp) + quoted);
	pseudo[1] = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)source, sizeof(*source), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&p->source, sizeof(p->source), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&e.icmp, sizeof(e.icmp), sum);
	sum = icmp_sum(skb, ETH_HLEN + headers, quoted, sum);
	if (sum < 0)
		return -1;
	e.icmp.checksum = csum_fold(sum);
	return bpf_skb_store_bytes(skb, 0, &e.eth, sizeof(e) - sizeof(e.pad), 0);
}

/* Each object says whether its packets' senders know this host as their gateway. */
static __always_inline bool answers_as_gateway(void);

/* May an error be told of the packet now? RFC 1122 section 3.2.2, RFC 4443 section 2.4 e and f. */
static __always_inline bool icmp_may(const struct packet *p)
{
	struct porin_budget *budget;
	bool taken;

	budget = budget_take(PORIN_BUDGET_ICMP, p->now, ICMP_RATE, &taken);
	return budget && taken && !(p->kind & (PACKET_LATER_FRAGMENT | PACKET_ICMP_ERROR));
}

/*
 * Drops the packet, and tells its sender why unless an error may not be told of
 * it. An endpoint hears it from its gateway. To the outside the error bears the
 * address that the packet was sent to: this host answers for it, and has no better
 * one that porin knows.
 */
__noinline int icmp_answer(struct __sk_buff *skb, __u32 reason, __u32 mtu)
{
	const bool too_big = reason == PORIN_DROP_TOO_BIG;
	struct scratch *s = scratch_get();
	union address source;
	struct packet *p;
	int error = -1;

	if (!s)
		return TC_ACT_SHOT;
	p = &s->packet;
	drop(p, reason);
	if (!icmp_may(p))
		return TC_ACT_SHOT;
	source = p->destination;
	if (features.ipv4 && p->version == 4) {
		if (answers_as_gateway())
			source.word[3] = bpf_htonl(0xa9fe0001);
		error = too_big ? icmp4_build(skb, p, source.word[3], ICMP4_UNREACHABLE,
					      (__u64)ICMP4_FRAG_NEEDED << 32 | mtu)
				: icmp4_build(skb, p, source.word[3], ICMP4_TIME_EXCEEDED, 0);
	} else if (features.ipv6 && p->version == 6) {
		if (answers_as_gateway()) {
			source.word[0] = bpf_htonl(0xfe800000);
			source.word[1] = 0;
			source.word[2] = 0;
			source.word[3] = bpf_htonl(1);
		}
		error = too_big ? icmp6_build(skb, p, &source, ICMP6_TOO_BIG, mtu)
				: icmp6_build(skb, p, &source, ICMP6_TIME_EXCEEDED, 0);
	}
	if (error)
		return TC_ACT_SHOT;
	if (answers_as_gateway())
		return bpf_redirect_peer(skb->ifindex, 0);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
