// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * No program: the shared maps, created once, and in BTF every type and number
 * that Rust reads. `types` is never looked at; it keeps the compiler from
 * leaving out what only it names.
 */
#include "porin/config.h"
#include "porin/maps.h"
#include "porin/verdict.h"

const volatile struct {
	struct porin_prefix_key prefix_key;
	struct porin_prefix_value prefix_value;
	struct porin_policy_key policy_key;
	struct porin_policy_value policy_value;
	struct porin_drop_key drop_key;
	struct porin_hit_key hit_key;
	struct porin_event event;
	struct porin_features features;
	struct porin_gate gate;
	enum porin_constant constant;
	enum porin_verdict verdict;
	enum porin_delivery_kind delivery_kind;
	enum porin_event_type event_type;
	enum porin_drop_reason drop_reason;
	enum porin_budget_kind budget_kind;
} types;
