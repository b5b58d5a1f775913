/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sending an admitted packet to where there is no more to decide. */
#ifndef PORIN_DELIVER_H
#define PORIN_DELIVER_H

/* Straight into the endpoint's namespace. */
static __always_inline int deliver_local(struct __sk_buff *skb, const struct packet *p,
					 const struct porin_delivery *to)
{
	__u8 macs[2 * ETH_ALEN] = { [ETH_ALEN] = 0x02, 0x70, 0x6f, 0x72, 0x69, 0x6e };

	__builtin_memcpy(macs, to->mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop(p, PORIN_DROP_FAULT);
	count_traffic(p);
	return bpf_redirect_peer(to->ifindex, 0);
}

/*
 * On to wherever the packet was going: nothing was done to it. On another's interface
 * other programs may follow.
 */
static __always_inline int pass(const struct packet *p)
{
	count_traffic(p);
	return features.adopted ? TC_ACT_UNSPEC : TC_ACT_OK;
}

/* One hop less. The caller has seen that there is one left. */
static __always_inline int hop_limit_decrement(struct __sk_buff *skb, const struct packet *p)
{
	__u8 left = p->hop_limit - 1;

	if (p->version == 4) {
		int error = bpf_l3_csum_replace(skb, p->l3 + IP4_CHECKSUM,
						bpf_htons((__u16)p->hop_limit << 8 | p->protocol),
						bpf_htons((__u16)left << 8 | p->protocol), 2);

		return error | bpf_skb_store_bytes(skb, p->l3 + 8, &left, 1, 0);
	}
	return bpf_skb_store_bytes(skb, p->l3 + 7, &left, 1, BPF_F_RECOMPUTE_CSUM);
}

#endif
