// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Gates: the only programs that know one endpoint or uplink, and the place where
 * a packet's generation is read, once. One is loaded per interface and hook, a
 * thousand on a big host, so they are small.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "porin/config.h"
#include "porin/maps.h"
#include "porin/verdict.h"

const volatile struct porin_gate gate;
static const struct porin_features features = { .ipv4 = 1, .ipv6 = 1 };

#include "lib/lookup.h"
#include "lib/clock.h"
#include "lib/packet.h"
#include "lib/counters.h"
#include "lib/events.h"

static __always_inline __u32 event_rate(void)
{
	return gate.event_rate;
}

static __always_inline struct porin_state *state_get(void)
{
	__u32 zero = 0;

	return array_look_up(&state, &zero);
}

/* Is this a variant's own answer (reject.h), on its way to who shall have it? */
static __always_inline bool is_answer(struct __sk_buff *skb, const struct porin_state *s)
{
	if (!s || !skb->mark || skb->mark != *(volatile const __u32 *)&s->mark)
		return false;
	skb->mark = 0;
	return true;
}

/*
 * Goes on to the variant of the generation in force. Returns only if there is
 * none. The generation, the slot and the count of look-ups go along.
 */
static __always_inline void enter_variant(struct __sk_buff *skb, const struct porin_state *s,
					  __u32 hook)
{
	__u32 generation;

	if (!s)
		return;
	generation = *(volatile const __u32 *)&s->generation;
	if (!generation)
		return;
	skb->cb[PORIN_CB_GENERATION] = generation;
	skb->cb[PORIN_CB_SLOT] = gate.slot;
	skb->cb[PORIN_CB_LOOKUPS] = 0;
	bpf_tail_call(skb, &programs, PORIN_PROGRAM_INDEX(gate.slot, hook, generation & 1));
}

/* For the event: whose packet it was, if the headers are there. */
static __always_inline void note_addresses(struct __sk_buff *skb, struct packet *p)
{
	const void *end = (void *)(long)skb->data_end;
	const void *l3 = (void *)(long)skb->data + ETH_HLEN;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = l3;

		if ((void *)(ip + 1) > end)
			return;
		p->source.word[2] = bpf_htonl(0xffff);
		p->source.word[3] = ip->saddr;
		p->destination.word[2] = bpf_htonl(0xffff);
		p->destination.word[3] = ip->daddr;
		p->protocol = ip->protocol;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = l3;

		if ((void *)(ip + 1) > end)
			return;
		__builtin_memcpy(&p->source, &ip->saddr, sizeof(p->source));
		__builtin_memcpy(&p->destination, &ip->daddr, sizeof(p->destination));
		p->protocol = ip->nexthdr;
	}
}

static __noinline int refuse(struct __sk_buff *skb, __u32 hook, int reason)
{
	struct packet p = {
		.now = bpf_ktime_get_ns(),
		.slot = gate.slot,
		.hook = hook,
		.length = skb->len - ETH_HLEN,
	};

	note_addresses(skb, &p);
	return drop(&p, reason);
}

/* Bound to fail, but from an interface that has just come up, not an attack. */
static __always_inline bool noise4(__be32 source)
{
	return (source & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

static __always_inline bool noise6(const struct in6_addr *source)
{
	const __u64 *half = (const __u64 *)source;

	return (source->s6_addr32[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       (half[0] == 0 && half[1] == 0);
}

static __always_inline int check4(const struct iphdr *ip)
{
	if (!gate.has4)
		return PORIN_DROP_FAMILY;
	if (ip->saddr == *(const volatile __be32 *)gate.address4)
		return 0;
	return noise4(ip->saddr) ? PORIN_DROP_LINK_LOCAL : PORIN_DROP_SPOOFED_ADDRESS;
}

static __always_inline int check6(const struct ipv6hdr *ip)
{
	const __u64 *source = (const __u64 *)&ip->saddr;
	const volatile __u64 *own = (const volatile __u64 *)gate.address6;

	if (gate.has6 && source[0] == own[0] && source[1] == own[1])
		return 0;
	if (noise6(&ip->saddr))
		return PORIN_DROP_LINK_LOCAL;
	return gate.has6 ? PORIN_DROP_SPOOFED_ADDRESS : PORIN_DROP_FAMILY;
}

#include "lib/link_service.h"

/* Is the packet from the endpoint's own MAC and one of its own addresses? */
static __always_inline int check_source(struct __sk_buff *skb)
{
	const __u32 want =
		ETH_HLEN + (skb->protocol == bpf_htons(ETH_P_IPV6) ? sizeof(struct ipv6hdr)
								   : sizeof(struct iphdr));
	const struct ethhdr *eth;
	const void *end;

	packet_pull(skb, want);
	eth = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) > end)
		return PORIN_DROP_MALFORMED;
	if (*(__u32 *)eth->h_source != *(const volatile __u32 *)gate.mac ||
	    *(__u16 *)(eth->h_source + 4) != *(const volatile __u16 *)(gate.mac + 4))
		return PORIN_DROP_SPOOFED_MAC;
	if (skb->vlan_present)
		return PORIN_DROP_NOT_IP;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = (void *)(eth + 1);

		return (void *)(ip + 1) > end ? PORIN_DROP_MALFORMED : check4(ip);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = (void *)(eth + 1);

		return (void *)(ip + 1) > end ? PORIN_DROP_MALFORMED : check6(ip);
	}
	return PORIN_DROP_NOT_IP;
}

SEC("tc")
int gate_ingress(struct __sk_buff *skb)
{
	struct porin_state *s = state_get();
	int reason;

	if (is_answer(skb, s))
		return TC_ACT_OK;
	/* What the host sent to this endpoint and is turned round: see lib/steer.h. */
	reason = skb->mark == PORIN_MARK_STEER ? 0 : check_source(skb);
	if (reason)
		return refuse(skb, PORIN_HOOK_INGRESS, reason);
	enter_variant(skb, s, PORIN_HOOK_INGRESS);
	return refuse(skb, PORIN_HOOK_INGRESS, PORIN_DROP_NOT_READY);
}

SEC("tc")
int gate_egress(struct __sk_buff *skb)
{
	enter_variant(skb, state_get(), PORIN_HOOK_EGRESS);
	return refuse(skb, PORIN_HOOK_EGRESS, PORIN_DROP_NOT_READY);
}

/*
 * An adopted interface has been running: until a generation knows the endpoint, all goes
 * on as before.
 */
static __always_inline bool is_unknown(__u32 generation)
{
	__u32 slot = gate.slot;
	struct porin_endpoint *e = array_look_up(&endpoints, &slot);

	if (!gate.open || !e)
		return false;
	return generation & 1 ? !e->side[1].identity : !e->side[0].identity;
}

/* What a bridge sends to all its ports is no news, however much of it is dropped. */
static __always_inline int hush(__u32 hook, int reason)
{
	struct packet p = { .slot = gate.slot, .hook = hook };

	count_drop(&p, reason);
	return TC_ACT_SHOT;
}

/*
 * An adopted endpoint's gates judge, and leave everything else to its network and to
 * whatever program is next. `reason`: what the look at the link has found.
 */
static __always_inline int adopted(struct __sk_buff *skb, const struct porin_state *s, __u32 hook,
				   int reason)
{
	if (reason == LINK_SERVICE)
		return TC_ACT_UNSPEC;
	skb->cb[PORIN_CB_GENERATION] = s ? *(volatile const __u32 *)&s->generation : 0;
	if (!reason) {
		enter_variant(skb, s, hook);
		reason = PORIN_DROP_NOT_READY;
	}
	if (is_unknown(skb->cb[PORIN_CB_GENERATION]))
		return TC_ACT_UNSPEC;
	if (hook == PORIN_HOOK_EGRESS && reason != PORIN_DROP_NOT_READY)
		return hush(hook, reason);
	return refuse(skb, hook, reason);
}

SEC("tc")
int adopted_ingress(struct __sk_buff *skb)
{
	struct porin_state *s = state_get();

	return is_answer(skb, s) ? TC_ACT_UNSPEC
				 : adopted(skb, s, PORIN_HOOK_INGRESS, link_sent(skb));
}

SEC("tc")
int adopted_egress(struct __sk_buff *skb)
{
	struct porin_state *s = state_get();

	return is_answer(skb, s) ? TC_ACT_UNSPEC
				 : adopted(skb, s, PORIN_HOOK_EGRESS, link_received(skb));
}

/*
 * An uplink's gates let pass what no variant sees: it is the host's own network.
 * That opens nothing. Without a generation the endpoints' own gates are shut, and
 * no packet reaches or leaves an endpoint but through one of them or a variant.
 */
SEC("tc")
int uplink_ingress(struct __sk_buff *skb)
{
	if (!skb->vlan_present &&
	    (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6)))
		enter_variant(skb, state_get(), PORIN_HOOK_INGRESS);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int uplink_egress(struct __sk_buff *skb)
{
	struct porin_state *s = state_get();

	if (is_answer(skb, s))
		return TC_ACT_UNSPEC;
	if (!skb->vlan_present &&
	    (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6)))
		enter_variant(skb, s, PORIN_HOOK_EGRESS);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
