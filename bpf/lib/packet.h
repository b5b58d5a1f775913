/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the datapath needs to know of a packet, parsed once. Nothing here knows
 * of policy, flows or maps.
 *
 * IPv4: RFC 791. IPv6 and its extension headers: RFC 8200; the chain is followed
 * for PACKET_EXTENSIONS headers. ICMP: RFC 792, RFC 4443.
 */
#ifndef PORIN_PACKET_H
#define PORIN_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "porin/verdict.h"

#define PACKET_EXTENSIONS 6
#define PACKET_PULL 256 /* bytes made linear when headers are not */
#define PACKET_SHORT (-1) /* parse: headers are not linear */

/* struct packet.kind */
#define PACKET_FIRST_FRAGMENT 0x1
#define PACKET_LATER_FRAGMENT 0x2
#define PACKET_ICMP_ERROR 0x4
#define PACKET_ECHO_REQUEST 0x8
#define PACKET_ECHO_REPLY 0x10
#define PACKET_PUBLISHED 0x20 /* sent to a published port: see struct scratch.wire */
#define PACKET_HAIRPIN 0x40 /* of the sender's own */
#define PACKET_WORKERS 0x80 /* the L7 worker sends it */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACHABLE 3
#define ICMP4_FRAG_NEEDED 4 /* code of the above */
#define ICMP4_PROHIBITED 13 /* likewise: communication administratively prohibited */
#define ICMP4_QUENCH 4
#define ICMP4_REDIRECT 5
#define ICMP4_ECHO 8
#define ICMP4_ROUTER_ADVERTISEMENT 9
#define ICMP4_ROUTER_SOLICITATION 10
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER 12
#define ICMP6_UNREACHABLE 1
#define ICMP6_PROHIBITED 1 /* code of the above */
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_LINK_FIRST 130 /* multicast listener and neighbour discovery */
#define ICMP6_LINK_LAST 137
#define ICMP6_MLD2 143
#define ICMP6_ROUTER_FIRST 151 /* multicast router discovery */
#define ICMP6_ROUTER_LAST 153

#ifndef IPPROTO_ICMPV6
#define IPPROTO_ICMPV6 58
#endif
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60

union address {
	__be32 word[4];
	__u64 half[2];
};

/* What was decided, and by which rules of the sender's egress and the receiver's ingress. */
struct decision {
	__u32 verdict; /* enum porin_verdict */
	__u32 egress_cookie;
	__u32 ingress_cookie;
};

/* Peers and decisions of a judgement, as far as there was one; in packet order. */
struct reasons {
	__u32 source_peer;
	__u32 destination_peer;
	struct decision enforced;
	struct decision shadow;
};

struct packet {
	union address source; /* IPv4 as IPv4-mapped */
	union address destination;
	__u64 now;
	__be16 source_port; /* both: ICMP echo identifier */
	__be16 destination_port;
	__u16 l3; /* offsets from the start of the frame */
	__u16 l4;
	__u32 length; /* L3 and above */
	__be32 fragment_id;
	__u32 generation;
	__u32 slot; /* of the hook */
	__u16 hook;
	__u8 version; /* 4 or 6; 0: not parsed */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 kind;
	__u8 hop_limit;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 pad[3];
	struct reasons why;
};

#define PACKET_ICMP_OTHER 0xff /* type and code of the other family's ICMP, to policy */

/* Ports of ICMP that has no identifier: type and code, in such a way that it is
 * never taken for an echo's identifier (both ports alike) or for a reply. Errors
 * are judged by what they quote; their later fragments have but these. */
static __always_inline void packet_icmp_ports(struct packet *p, __u8 type, __u8 code)
{
	__u16 port = (__u16)type << 8 | code;

	p->destination_port = bpf_htons(port);
	p->source_port = ~p->destination_port;
}

static __always_inline int packet_icmp4(struct packet *p, const __u8 *h)
{
	p->icmp_type = h[0];
	p->icmp_code = h[1];
	switch (h[0]) {
	case ICMP4_ECHO:
	case ICMP4_ECHO_REPLY:
		p->kind |= h[0] == ICMP4_ECHO ? PACKET_ECHO_REQUEST : PACKET_ECHO_REPLY;
		p->source_port = *(__be16 *)(h + 4);
		p->destination_port = p->source_port;
		return 0;
	case ICMP4_UNREACHABLE:
	case ICMP4_QUENCH:
	case ICMP4_TIME_EXCEEDED:
	case ICMP4_PARAMETER:
		p->kind |= PACKET_ICMP_ERROR;
		break;
	case ICMP4_REDIRECT:
	case ICMP4_ROUTER_ADVERTISEMENT:
	case ICMP4_ROUTER_SOLICITATION:
		return PORIN_DROP_LINK_LOCAL;
	}
	packet_icmp_ports(p, h[0], h[1]);
	return 0;
}

static __always_inline int packet_icmp6(struct packet *p, const __u8 *h)
{
	p->icmp_type = h[0];
	p->icmp_code = h[1];
	if (h[0] < 128) {
		p->kind |= PACKET_ICMP_ERROR;
		packet_icmp_ports(p, h[0], h[1]);
		return 0;
	}
	if (h[0] == ICMP6_ECHO || h[0] == ICMP6_ECHO_REPLY) {
		p->kind |= h[0] == ICMP6_ECHO ? PACKET_ECHO_REQUEST : PACKET_ECHO_REPLY;
		p->source_port = *(__be16 *)(h + 4);
		p->destination_port = p->source_port;
		return 0;
	}
	if ((h[0] >= ICMP6_LINK_FIRST && h[0] <= ICMP6_LINK_LAST) || h[0] == ICMP6_MLD2 ||
	    (h[0] >= ICMP6_ROUTER_FIRST && h[0] <= ICMP6_ROUTER_LAST))
		return PORIN_DROP_LINK_LOCAL;
	packet_icmp_ports(p, h[0], h[1]);
	return 0;
}

/*
 * The fourth layer. `h` is where it begins, `left` how many bytes of it the IP
 * header promises. A quoted header (in an ICMP error) need only have its ports.
 */
static __always_inline int packet_l4(struct packet *p, const __u8 *h, const void *end, __u32 left,
				     bool quoted)
{
	switch (p->protocol) {
	case IPPROTO_TCP:
		if (quoted)
			break;
		if (left < 20)
			return PORIN_DROP_MALFORMED;
		if ((void *)(h + 20) > end)
			return PACKET_SHORT;
		if ((h[12] >> 4) < 5 || (__u32)(h[12] >> 4) * 4 > left)
			return PORIN_DROP_MALFORMED;
		p->tcp_flags = h[13];
		break;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		if (quoted)
			break;
		if (left < 8)
			return PORIN_DROP_MALFORMED;
		if ((void *)(h + 8) > end)
			return PACKET_SHORT;
		break;
	case IPPROTO_SCTP:
		if (!quoted && left < 12)
			return PORIN_DROP_MALFORMED;
		break;
	case IPPROTO_DCCP:
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((p->protocol == IPPROTO_ICMP) != (p->version == 4)) {
			/* The other family's: a protocol without ports, and no echo. */
			packet_icmp_ports(p, PACKET_ICMP_OTHER, PACKET_ICMP_OTHER);
			return 0;
		}
		if (left < 8)
			return PORIN_DROP_MALFORMED;
		if ((void *)(h + 8) > end)
			return PACKET_SHORT;
		return p->version == 4 ? packet_icmp4(p, h) : packet_icmp6(p, h);
	default:
		return 0;
	}
	if (left < 4)
		return PORIN_DROP_MALFORMED;
	if ((void *)(h + 4) > end)
		return PACKET_SHORT;
	p->source_port = *(__be16 *)h;
	p->destination_port = *(__be16 *)(h + 2);
	return 0;
}

static __always_inline int packet_ip4(struct __sk_buff *skb, struct packet *p, __u32 offset,
				      bool quoted)
{
	const void *end = (void *)(long)skb->data_end;
	const struct iphdr *ip = (void *)(long)skb->data + offset;
	__u32 header, total, fragment;

	if ((void *)(ip + 1) > end)
		return PACKET_SHORT;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip))
		return PORIN_DROP_MALFORMED;
	if (!quoted && skb->gso_size)
		total = skb->len - offset;
	if (total < header || (!quoted && total > skb->len - offset))
		return PORIN_DROP_MALFORMED;

	p->version = 4;
	p->source.word[2] = bpf_htonl(0xffff);
	p->source.word[3] = ip->saddr;
	p->destination.word[2] = bpf_htonl(0xffff);
	p->destination.word[3] = ip->daddr;
	p->l3 = offset;
	p->l4 = offset + header;
	p->length = total;
	p->protocol = ip->protocol;
	p->hop_limit = ip->ttl;

	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & 0x3fff) {
		p->fragment_id = ip->id;
		p->kind |= fragment & 0x1fff ? PACKET_LATER_FRAGMENT : PACKET_FIRST_FRAGMENT;
		/* RFC 1858: a fragment that would overwrite TCP's flags. */
		if (p->protocol == IPPROTO_TCP && (fragment & 0x1fff) == 1)
			return PORIN_DROP_MALFORMED;
		if (p->kind & PACKET_LATER_FRAGMENT)
			return 0;
	}
	return packet_l4(p, (void *)ip + header, end, total - header, quoted);
}

static __always_inline int packet_ip6(struct __sk_buff *skb, struct packet *p, __u32 offset,
				      bool quoted)
{
	const void *end = (void *)(long)skb->data_end;
	const void *data = (void *)(long)skb->data;
	const struct ipv6hdr *ip = data + offset;
	__u32 total, at = offset + sizeof(*ip);
	__u8 next;
	int i;

	if ((void *)(ip + 1) > end)
		return PACKET_SHORT;
	total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->version != 6)
		return PORIN_DROP_MALFORMED;
	if (!quoted && skb->gso_size)
		total = skb->len - offset;
	if (!quoted && total > skb->len - offset)
		return PORIN_DROP_MALFORMED;

	p->version = 6;
	__builtin_memcpy(&p->source, &ip->saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &ip->daddr, sizeof(p->destination));
	p->l3 = offset;
	p->length = total;
	p->hop_limit = ip->hop_limit;
	next = ip->nexthdr;

	for (i = 0; i < PACKET_EXTENSIONS; i++) {
		const __u8 *h = data + at;

		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
		    next != NEXT_DESTINATION)
			break;
		if (next == NEXT_HOP_BY_HOP && i)
			return PORIN_DROP_EXTENSION_HEADER;
		if (at > PACKET_PULL - 8)
			return PORIN_DROP_EXTENSION_HEADER;
		if (at + 8 > offset + total)
			return PORIN_DROP_MALFORMED;
		if ((void *)(h + 8) > end)
			return PACKET_SHORT;
		if (next == NEXT_FRAGMENT) {
			__u32 fragment = bpf_ntohs(*(__be16 *)(h + 2));

			/* A whole packet in one fragment (RFC 6946) is no fragment. */
			if (fragment & 0xfff9) {
				if (p->kind)
					return PORIN_DROP_EXTENSION_HEADER;
				p->fragment_id = *(__be32 *)(h + 4);
				p->kind |= fragment & 0xfff8 ? PACKET_LATER_FRAGMENT
							     : PACKET_FIRST_FRAGMENT;
			}
			next = h[0];
			at += 8;
			if (p->kind & PACKET_LATER_FRAGMENT)
				break;
			continue;
		}
		/* RFC 5095, and no header may send a judged packet elsewhere. */
		if (next == NEXT_ROUTING && (h[2] == 0 || h[3]))
			return PORIN_DROP_EXTENSION_HEADER;
		next = h[0];
		at += (h[1] + 1) * 8;
	}
	p->protocol = next;
	p->l4 = at;
	if (p->kind & PACKET_LATER_FRAGMENT)
		return 0;
	if (next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	    next == NEXT_DESTINATION || at > PACKET_PULL - 20)
		return PORIN_DROP_EXTENSION_HEADER;
	if (at > offset + total)
		return PORIN_DROP_MALFORMED;
	return packet_l4(p, data + at, end, offset + total - at, quoted);
}

/* Makes up to `want` bytes linear. False: they are already, or cannot be. */
static __always_inline bool packet_pull(struct __sk_buff *skb, __u32 want)
{
	if (want > skb->len)
		want = skb->len;
	if (skb->data_end - skb->data >= want)
		return false;
	return bpf_skb_pull_data(skb, want) == 0;
}

/* Loopback, unspecified, link-local, multicast, reserved; over IPv6 also whatever
 * embeds an IPv4 address in ::/64. Nothing that crosses a gate may bear one. */
static __always_inline bool packet_special(const struct packet *p, const union address *a)
{
	if (p->version == 4) {
		__u32 address = bpf_ntohl(a->word[3]);

		return address >> 24 == 0 || address >> 24 == 127 || address >> 16 == 0xa9fe ||
		       address >> 28 >= 0xe;
	}
	return a->half[0] == 0 || (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
	       (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* The port that policy sees of a flow: what its first packet was sent to, or
 * ICMP's type and code. An echo is told by its two equal "ports". */
static __always_inline __be16 policy_port(__u8 protocol, __be16 source_port,
					  __be16 destination_port)
{
	if (source_port == destination_port) {
		if (protocol == IPPROTO_ICMP)
			return bpf_htons(ICMP4_ECHO << 8);
		if (protocol == IPPROTO_ICMPV6)
			return bpf_htons(ICMP6_ECHO << 8);
	}
	return destination_port;
}

static __always_inline bool packet_is_syn(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

#endif
