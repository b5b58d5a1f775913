/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one clock of the datapath: monotonic, nanoseconds. Time-outs are of
 * seconds, so the coarse clock (a tick's resolution) serves where it exists. */
#ifndef PORIN_CLOCK_H
#define PORIN_CLOCK_H

#define SECOND 1000000000ULL

static __always_inline __u64 clock_now(void)
{
	if (features.coarse_clock)
		return bpf_ktime_get_coarse_ns();
	return bpf_ktime_get_ns();
}

#endif
