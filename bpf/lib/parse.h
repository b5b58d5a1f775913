/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The packet at hand. It lies in a per-CPU map rather than on the stack: that is
 * small, and the verifier, which knows nothing of a map's contents, then walks
 * through what comes after parsing once and not once per way of parsing.
 */
#ifndef PORIN_PARSE_H
#define PORIN_PARSE_H

/* Programs of one CPU do not interrupt each other (they run in softirq or with it
 * off), and none keeps anything here from one packet to the next. */
struct scratch {
	struct packet packet;
	struct packet quoted; /* in an ICMP error */
	struct packet wire; /* before unmasquerading, or as it came for a published port */
	struct porin_flow flow; /* being made */
	struct judgement judgement;
	struct question question;
	struct porin_delivery deliver; /* of a packet that was judged, and its direction */
	__u32 direction;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct scratch));
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_get(void)
{
	__u32 zero = 0;

	return array_look_up(&scratch, &zero);
}

/* Begins with a packet that a gate has passed on. */
static __always_inline struct scratch *packet_begin(struct __sk_buff *skb, __u32 hook)
{
	struct scratch *s = scratch_get();
	struct packet *p;

	if (!s)
		return NULL;
	p = &s->packet;
	__builtin_memset(p, 0, sizeof(*p));
	p->generation = skb->cb[PORIN_CB_GENERATION];
	p->slot = skb->cb[PORIN_CB_SLOT];
	p->hook = hook;
	p->now = clock_now();
	return s;
}

static __always_inline int packet_parse_linear(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return features.ipv4 ? packet_ip4(skb, p, ETH_HLEN, false) : PORIN_DROP_FAMILY;
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return features.ipv6 ? packet_ip6(skb, p, ETH_HLEN, false) : PORIN_DROP_FAMILY;
	return PORIN_DROP_NOT_IP;
}

/* For the rare packet whose headers had to be pulled. Not static: verified by itself. */
__noinline int packet_parse_pulled(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();

	if (!s)
		return PORIN_DROP_FAULT;
	s->packet.kind = 0;
	return packet_parse_linear(skb, &s->packet);
}

/* Returns 0 or a drop reason. Addresses are valid as soon as version is not 0. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct packet *p)
{
	int reason = packet_parse_linear(skb, p);

	if (reason == PACKET_SHORT && packet_pull(skb, PACKET_PULL))
		reason = packet_parse_pulled(skb);
	return reason == PACKET_SHORT ? PORIN_DROP_MALFORMED : reason;
}

#endif
