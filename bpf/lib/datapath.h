/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* All of a variant, in the order in which the parts rest upon each other. */
#ifndef PORIN_DATAPATH_H
#define PORIN_DATAPATH_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "porin/config.h"
#include "porin/maps.h"
#include "porin/verdict.h"

const volatile struct porin_features features;

#include "lookup.h"
#include "clock.h"
#include "packet.h"
#include "counters.h"
#include "hits.h"
#include "events.h"
#include "policy.h"
#include "conntrack.h"
#include "parse.h"
#include "published.h"
#include "proxied.h"
#include "track.h"
#include "fragment.h"
#include "nat.h"
#include "translate.h"
#include "icmp.h"
#include "reject.h"
#include "published_error.h"
#include "icmp_error.h"
#include "translate_error.h"
#include "masquerade.h"
#include "deliver.h"
#include "steer.h"

#endif
