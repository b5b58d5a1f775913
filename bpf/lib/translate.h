/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rewriting what passes by a published port, IPv4 and IPv6, TCP and UDP: from what is on the
 * wire (scratch.wire) to what the endpoint knows of it (scratch.packet), or back.
 */
#ifndef PORIN_TRANSLATE_H
#define PORIN_TRANSLATE_H

#define IP6_SOURCE 8
#define IP6_DESTINATION 24

#define TRANSLATE_IN 0
#define TRANSLATE_BACK 1

/* One end of a packet: as it is in the packet, and as it is to be. */
struct translation {
	union address old;
	union address new;
	__be16 old_port;
	__be16 new_port;
	__u32 destination; /* 0: the source; 1: the destination */
};

/*
 * IPv6 has no header checksum, so a change of an address is made good in the fourth layer's
 * alone. Where the device has summed up the whole packet, both changes are noted, and cancel out.
 */
static __always_inline int translate6(struct __sk_buff *skb, const struct packet *p,
				      const struct translation *t)
{
	const __u32 sum = p->l4 + (p->protocol == IPPROTO_TCP ? 16 : 6);
	const __u32 port = p->l4 + (t->destination ? 2 : 0);
	const __u64 flags = p->protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	__s64 difference = bpf_csum_diff((__be32 *)&t->old, sizeof(t->old), (__be32 *)&t->new,
					 sizeof(t->new), 0);
	int error = difference < 0;

	if (!(p->kind & PACKET_LATER_FRAGMENT)) { /* those have no fourth layer */
		error |= bpf_l4_csum_replace(skb, sum, 0, difference, BPF_F_PSEUDO_HDR | flags);
		if (t->old_port != t->new_port) {
			error |= bpf_l4_csum_replace(skb, sum, t->old_port, t->new_port, flags | 2);
			error |= bpf_skb_store_bytes(skb, port, &t->new_port, 2, 0);
		}
	}
	error |= bpf_skb_store_bytes(skb, p->l3 + (t->destination ? IP6_DESTINATION : IP6_SOURCE),
				     &t->new, sizeof(t->new), BPF_F_RECOMPUTE_CSUM);
	return error ? PORIN_DROP_FAULT : 0;
}

static __noinline int translate_end(struct __sk_buff *skb, const struct packet *p,
				    const struct translation *t)
{
	if (t->old.half[0] == t->new.half[0] && t->old.half[1] == t->new.half[1] &&
	    t->old_port == t->new_port)
		return 0;
	if (features.ipv4 && p->version == 4) {
		struct rewrite r = {
			.old_address = t->old.word[3],
			.new_address = t->new.word[3],
			.old_port = t->old_port,
			.new_port = t->new_port,
			.destination = t->destination,
		};

		return nat_rewrite(skb, p, &r);
	}
	if (features.ipv6 && p->version == 6)
		return translate6(skb, p, t);
	return PORIN_DROP_FAULT;
}

/* The packet at hand. Returns 0 or a drop reason. Not static: verified by itself, once. */
__noinline int translate(struct __sk_buff *skb, __u32 way)
{
	struct scratch *s = scratch_get();
	const struct packet *from, *to;
	struct translation t = {};
	int reason;

	if (!features.publishes || !s)
		return PORIN_DROP_FAULT;
	from = way == TRANSLATE_IN ? &s->wire : &s->packet;
	to = way == TRANSLATE_IN ? &s->packet : &s->wire;
	t.old = from->destination;
	t.new = to->destination;
	t.old_port = from->destination_port;
	t.new_port = to->destination_port;
	t.destination = 1;
	reason = translate_end(skb, &s->packet, &t);
	if (reason)
		return reason;
	t.old = from->source;
	t.new = to->source;
	t.old_port = from->source_port;
	t.new_port = to->source_port;
	t.destination = 0;
	return translate_end(skb, &s->packet, &t);
}

#endif
