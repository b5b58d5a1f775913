/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that all programs share. maps.bpf.c creates them; every other object
 * is given the same maps before it is loaded. Sizes here are defaults: the
 * daemon may set those of the flow, NAT and fragment tables before creation.
 */
#ifndef PORIN_MAPS_H
#define PORIN_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct porin_state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PORIN_MAX_SLOTS * 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORIN_MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct porin_endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORIN_MAX_SLOTS * 4); /* two families, two sides */
	__type(key, struct porin_address);
	__type(value, struct porin_address_value);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PORIN_MAX_PUBLISHED);
	__type(key, struct porin_published_key);
	__type(value, struct porin_published);
} published SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PORIN_MAX_ORIGINS);
	__type(key, struct porin_origin_key);
	__type(value, struct porin_origin);
} origins SEC(".maps");

/*
 * Inner maps bear sizes, not types: clang leaves no full BTF for a struct that
 * only an inner map names. How many entries a table may have is the daemon's choice.
 */
struct porin_prefix_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct porin_prefix_key));
	__uint(value_size, sizeof(struct porin_prefix_value));
};

struct porin_policy_table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct porin_policy_key));
	__uint(value_size, sizeof(struct porin_policy_value));
};

/* Which table is whose on which side: numbers. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} prefix_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORIN_MAX_POLICY_SLOTS * 2);
	__type(key, __u32);
	__type(value, __u32);
} policy_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORIN_SOURCE_BLOCKS * 2);
	__type(key, __u32);
	__type(value, struct porin_source_block);
} source_classes SEC(".maps");

/* The tables by number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, PORIN_MAX_PREFIX_TABLES);
	__type(key, __u32);
	__array(values, struct porin_prefix_table);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, PORIN_MAX_POLICY_TABLES);
	__type(key, __u32);
	__array(values, struct porin_policy_table);
} policies SEC(".maps");

/* The L7 worker's listening sockets, [PORIN_FAMILY_*]. One that is closed is gone from here. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} workers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORIN_MAX_UPLINKS);
	__type(key, __u32);
	__type(value, struct porin_uplink);
} uplinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct porin_flow4_key);
	__type(value, struct porin_flow);
} flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct porin_flow6_key);
	__type(value, struct porin_flow);
} flows6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct porin_nat_key);
	__type(value, struct porin_nat_value);
} nat4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct porin_fragment_key);
	__type(value, struct porin_fragment_value);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct porin_drop_key);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PORIN_MAX_HITS);
	__type(key, struct porin_hit_key);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORIN_MAX_SLOTS * 2); /* slot * 2 + hook: what passed there */
	__type(key, __u32);
	__type(value, struct porin_traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORIN_BUDGETS);
	__type(key, __u32);
	__type(value, struct porin_budget);
} budgets SEC(".maps");

#endif
