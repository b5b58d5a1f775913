/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rewriting ICMP errors about flows by published ports: one end of the quoted packet, and
 * the address at the other end of the error itself.
 */
#ifndef PORIN_TRANSLATE_ERROR_H
#define PORIN_TRANSLATE_ERROR_H

/*
 * As error_rewrite(), for IPv6. No IP header has a checksum there; the error's own covers
 * its pseudo-header and all that is quoted.
 */
static __always_inline int error_translate6(struct __sk_buff *skb, const struct packet *p,
					    const struct packet *q, const struct translation *t)
{
	const __u32 port_at = q->l4 + (t->destination ? 2 : 0);
	const __u32 quoted_at = q->l3 + (t->destination ? IP6_DESTINATION : IP6_SOURCE);
	const __u32 outer_at = p->l3 + (t->destination ? IP6_SOURCE : IP6_DESTINATION);
	const __u32 sum_at = quoted_sum(skb, q), error_sum_at = p->l4 + 2;
	__s64 difference = bpf_csum_diff((__be32 *)&t->old, sizeof(t->old), (__be32 *)&t->new,
					 sizeof(t->new), 0);
	int error = difference < 0;
	__u16 old, new;

	if (t->old_port != t->new_port) {
		error |= bpf_skb_store_bytes(skb, port_at, &t->new_port, 2, 0);
		error |= bpf_l4_csum_replace(skb, error_sum_at, t->old_port, t->new_port, 2);
	}
	if (sum_at) {
		error |= bpf_skb_load_bytes(skb, sum_at, &old, 2);
		new = csum_replace(old, t->old_port, t->new_port);
		new = csum_replace(new, t->old.word[0], t->new.word[0]);
		new = csum_replace(new, t->old.word[1], t->new.word[1]);
		new = csum_replace(new, t->old.word[2], t->new.word[2]);
		new = csum_replace(new, t->old.word[3], t->new.word[3]);
		if (q->protocol == IPPROTO_UDP)
			new = old ? (new ? new : 0xffff) : 0;
		error |= bpf_skb_store_bytes(skb, sum_at, &new, 2, 0);
		error |= bpf_l4_csum_replace(skb, error_sum_at, old, new, 2);
	}
	error |= bpf_skb_store_bytes(skb, quoted_at, &t->new, sizeof(t->new), 0);
	error |= bpf_l4_csum_replace(skb, error_sum_at, 0, difference, 0);
	error |= bpf_l4_csum_replace(skb, error_sum_at, 0, difference, BPF_F_PSEUDO_HDR);
	error |= bpf_skb_store_bytes(skb, outer_at, &t->new, sizeof(t->new), BPF_F_RECOMPUTE_CSUM);
	return error ? PORIN_DROP_FAULT : 0;
}

/*
 * The error at hand. The published end is in scratch.wire, as its source; the endpoint's is
 * in scratch.quoted. Returns 0 or a drop reason. Not static: verified by itself, once.
 */
__noinline int translate_error(struct __sk_buff *skb, __u32 way)
{
	const bool in = way == TRANSLATE_IN;
	struct scratch *s = scratch_get();
	struct translation t = {};
	const struct packet *q;

	if (!features.publishes || !s)
		return PORIN_DROP_FAULT;
	q = &s->quoted;
	if (in) {
		t.old = s->wire.source;
		t.old_port = s->wire.source_port;
		t.new = q->source;
		t.new_port = q->source_port;
	} else {
		t.old = q->destination;
		t.old_port = q->destination_port;
		t.new = s->wire.source;
		t.new_port = s->wire.source_port;
		t.destination = 1;
	}
	if (features.ipv4 && q->version == 4) {
		struct rewrite r = {
			.old_address = t.old.word[3],
			.new_address = t.new.word[3],
			.old_port = t.old_port,
			.new_port = t.new_port,
			.destination = t.destination,
		};

		return error_rewrite(skb, &s->packet, q, &r);
	}
	if (features.ipv6 && q->version == 6)
		return error_translate6(skb, &s->packet, q, &t);
	return PORIN_DROP_FAULT;
}

/* Whatever the packet at hand is. */
static __always_inline int translate_any(struct __sk_buff *skb, const struct packet *p, __u32 way)
{
	return p->kind & PACKET_ICMP_ERROR ? translate_error(skb, way) : translate(skb, way);
}

#endif
