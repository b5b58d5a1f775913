/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters: what was dropped and why, what passed, and the token buckets. */
#ifndef PORIN_COUNTERS_H
#define PORIN_COUNTERS_H

static __always_inline void count_drop(const struct packet *p, __u32 reason)
{
	struct porin_drop_key key = { .slot = p->slot, .hook = p->hook, .reason = reason };
	__u64 *count, one = 1;

	count = array_look_up(&drops, &key);
	if (count) {
		(*count)++; /* per CPU */
		return;
	}
	/* Another program of this CPU cannot come between: it is not preempted. */
	bpf_map_update_elem(&drops, &key, &one, BPF_ANY);
}

static __always_inline void count_traffic(const struct packet *p)
{
	__u32 key = p->slot * 2 + p->hook;
	struct porin_traffic *t = array_look_up(&traffic, &key);

	if (t) {
		t->packets++;
		t->bytes += p->length;
	}
}

/* Takes a token of this CPU's bucket, which holds one second's worth. */
static __always_inline struct porin_budget *budget_take(__u32 kind, __u64 now, __u32 rate,
							bool *taken)
{
	struct porin_budget *b = array_look_up(&budgets, &kind);
	__s64 age;

	*taken = false;
	if (!b || !rate)
		return b;
	age = now - b->refilled;
	if (age < 0) /* gates have the fine clock, which is ahead of the coarse one */
		age = 0;
	if (age >= (__s64)SECOND) {
		b->tokens = rate;
		b->refilled = now;
	} else if ((__u64)age * rate >= SECOND) {
		b->tokens += (__u64)age * rate / SECOND;
		if (b->tokens > rate)
			b->tokens = rate;
		b->refilled = now;
	}
	if (b->tokens) {
		b->tokens--;
		*taken = true;
	}
	return b;
}

#endif
