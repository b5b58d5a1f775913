/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only ways to look into a map. hash_look_up() is for what costs a hash
 * or a trie walk and can count itself, which is how a test proves that an
 * established packet needs one. array_look_up() is an addition and a bounds
 * check; `drops`, a hash, is looked into by it, too: for what is dropped alone. The
 * helper itself is poisoned, so that nothing else escapes the count.
 */
#ifndef PORIN_LOOKUP_H
#define PORIN_LOOKUP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PORIN_CB_GENERATION 0
#define PORIN_CB_SLOT 1
#define PORIN_CB_LOOKUPS 4

#define hash_look_up(skb, map, key)                    \
	({                                             \
		if (features.count_lookups)            \
			(skb)->cb[PORIN_CB_LOOKUPS]++; \
		porin_look_up(map, key);               \
	})

#define array_look_up(map, key) porin_look_up(map, key)

/* Of programs at sockets, which see no packets. */
#define socket_look_up(map, key) porin_look_up(map, key)

static __always_inline void *porin_look_up(void *map, const void *key)
{
	return bpf_map_lookup_elem(map, key);
}

/*
 * Keeps calls with different maps apart. The compiler would make one call of two,
 * with either map, which the kernel can then neither inline nor call directly.
 */
#define KEEP_APART(result, which) asm volatile("" : "+r"(result) : "i"(which))

#pragma GCC poison bpf_map_lookup_elem

#endif
