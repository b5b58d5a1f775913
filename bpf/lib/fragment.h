/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments: the first leaves its ports for those that follow (RFC 791, RFC 8200
 * section 4.5). Nothing is reassembled and nothing is held back: a fragment that
 * overtakes the first is dropped.
 */
#ifndef PORIN_FRAGMENT_H
#define PORIN_FRAGMENT_H

#define FRAGMENT_TIMEOUT (30 * SECOND)

static __always_inline void fragment_key(const struct packet *p, struct porin_fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->source, &p->source, sizeof(key->source));
	__builtin_memcpy(key->destination, &p->destination, sizeof(key->destination));
	key->id = p->fragment_id;
	key->protocol = p->protocol;
}

static __noinline int fragment_note(const struct packet *p)
{
	struct porin_fragment_value value = {
		.source_port = p->source_port,
		.destination_port = p->destination_port,
		.seen = p->now,
	};
	struct porin_fragment_key key;

	fragment_key(p, &key);
	return bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* Gives a later fragment its ports. Returns 0 or a drop reason. */
static __noinline int fragment_ports(struct __sk_buff *skb, struct packet *p)
{
	struct porin_fragment_value *first;
	struct porin_fragment_key key;

	fragment_key(p, &key);
	first = hash_look_up(skb, &fragments, &key);
	if (!first || (__s64)(p->now - first->seen) > (__s64)FRAGMENT_TIMEOUT)
		return PORIN_DROP_FRAGMENT_UNKNOWN;
	p->source_port = first->source_port;
	p->destination_port = first->destination_port;
	return 0;
}

#endif
