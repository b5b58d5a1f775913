/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How often each rule decides: once for each new flow, and for each packet that is
 * denied; for what is allowed already the rule was counted when the flow began.
 */
#ifndef PORIN_HITS_H
#define PORIN_HITS_H

/* A rule decided, or (`shadow`) would have. What there is no room for is counted as such. */
static __noinline int count_hit(struct __sk_buff *skb, __u32 cookie, __u32 shadow)
{
	struct porin_hit_key key = { .cookie = cookie, .shadow = shadow };
	__u32 kind = PORIN_BUDGET_HITS;
	struct porin_budget *lost;
	__u64 *count, one = 1;

	count = hash_look_up(skb, &hits, &key);
	if (count) {
		(*count)++; /* per CPU */
		return 0;
	}
	if (!bpf_map_update_elem(&hits, &key, &one, BPF_ANY))
		return 0;
	lost = array_look_up(&budgets, &kind);
	if (lost)
		lost->suppressed++;
	return 0;
}

/* Cookie 0 is no rule. */
static __always_inline void count_decision(struct __sk_buff *skb, const struct reasons *why)
{
	const struct decision *is = &why->enforced, *would = &why->shadow;

	if (is->egress_cookie)
		count_hit(skb, is->egress_cookie, 0);
	if (is->ingress_cookie)
		count_hit(skb, is->ingress_cookie, 0);
	if (!features.shadow || !would->verdict)
		return;
	if (would->egress_cookie && would->egress_cookie != is->egress_cookie)
		count_hit(skb, would->egress_cookie, 1);
	if (would->ingress_cookie && would->ingress_cookie != is->ingress_cookie)
		count_hit(skb, would->ingress_cookie, 1);
}

#endif
