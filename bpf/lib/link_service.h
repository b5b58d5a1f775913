/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gate's look at what passes an adopted interface. On such a link there is more
 * than addresses that policy can speak of: what finds neighbours and routers and hands
 * out addresses has to go on working (ARP, RFC 826; neighbour discovery, RFC 4861;
 * IGMP and MLD, RFC 3376 and 3810; DHCP, RFC 2131 and 8415). It passes, but nobody
 * may thereby take another's address, or play the router or the DHCP server. What is
 * neither that nor from and to an endpoint's address cannot be judged, and is dropped.
 */
#ifndef PORIN_LINK_SERVICE_H
#define PORIN_LINK_SERVICE_H

#define LINK_SERVICE (-1) /* not a drop reason: lets the packet pass without being judged */
#define LINK_PULL (ETH_HLEN + sizeof(struct ipv6hdr) + 8 + 24) /* up to a neighbour's target */

#define ICMP6_ROUTER_SOLICITATION 133
#define ICMP6_NEIGHBOUR_SOLICITATION 135
#define ICMP6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD_QUERY 130
#define ICMP6_MLD_REPORT 131
#define ICMP6_MLD_DONE 132
#define ND_HOP_LIMIT 255 /* proves that nobody forwarded it */

#define DHCP4_SERVER 67
#define DHCP4_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

struct arp4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

static __always_inline bool is_own4(__be32 address)
{
	return gate.has4 && address == *(const volatile __be32 *)gate.address4;
}

static __always_inline bool is_own6(const struct in6_addr *address)
{
	const volatile __u64 *own = (const volatile __u64 *)gate.address6;
	const __u64 *half = (const __u64 *)address;

	return gate.has6 && half[0] == own[0] && half[1] == own[1];
}

static __always_inline bool is_multicast4(__be32 address) /* or broadcast */
{
	return (address & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000);
}

static __always_inline bool is_link_local6(const struct in6_addr *address)
{
	return (address->s6_addr32[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool is_unspecified6(const struct in6_addr *address)
{
	const __u64 *half = (const __u64 *)address;

	return half[0] == 0 && half[1] == 0;
}

/* A whole UDP datagram between these two ports? */
static __always_inline bool is_udp(const void *l4, const void *end, __u16 from, __u16 to)
{
	const __be16 *port = l4;

	return (void *)(port + 2) <= end && port[0] == bpf_htons(from) && port[1] == bpf_htons(to);
}

static __always_inline bool is_dhcp4(const struct iphdr *ip, const void *end, __u16 from, __u16 to)
{
	return ip->protocol == IPPROTO_UDP && ip->ihl == sizeof(*ip) / 4 &&
	       !(ip->frag_off & bpf_htons(0x3fff)) && is_udp(ip + 1, end, from, to);
}

/* The fourth layer of an IPv6 packet, past the one extension header that MLD has. */
static __always_inline const __u8 *link_l4(const struct ipv6hdr *ip, const void *end, __u8 *next)
{
	const __u8 *h = (void *)(ip + 1);

	*next = ip->nexthdr;
	if (*next != NEXT_HOP_BY_HOP)
		return h;
	if ((void *)(h + 8) > end || h[1]) {
		*next = 59; /* none that is of any concern here */
		return h;
	}
	*next = h[0];
	return h + 8;
}

/* An endpoint may ask for any address, and answer for its own. */
static __always_inline int sent_arp(const struct arp4 *arp, const void *end)
{
	if ((void *)(arp + 1) > end)
		return PORIN_DROP_MALFORMED;
	if (arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_length != ETH_ALEN ||
	    arp->protocol_length != 4)
		return PORIN_DROP_NOT_IP;
	return !arp->sender || is_own4(arp->sender) ? LINK_SERVICE : PORIN_DROP_SPOOFED_ADDRESS;
}

static __always_inline int sent4(const struct iphdr *ip, const void *end)
{
	if ((void *)(ip + 1) > end)
		return PORIN_DROP_MALFORMED;
	if (!ip->saddr || is_own4(ip->saddr)) {
		if (ip->daddr == bpf_htonl(0xffffffff) &&
		    is_dhcp4(ip, end, DHCP4_CLIENT, DHCP4_SERVER))
			return LINK_SERVICE;
		if (ip->protocol == IPPROTO_IGMP && is_multicast4(ip->daddr))
			return LINK_SERVICE;
	}
	return check4(ip);
}

static __always_inline int sent_icmp6(const struct ipv6hdr *ip, const __u8 *h, const void *end)
{
	const struct in6_addr *target = (void *)(h + 8);

	if ((void *)(h + 4) > end)
		return PORIN_DROP_MALFORMED;
	switch (h[0]) {
	case ICMP6_ROUTER_SOLICITATION:
	case ICMP6_NEIGHBOUR_SOLICITATION:
		return ip->hop_limit == ND_HOP_LIMIT ? LINK_SERVICE : PORIN_DROP_LINK_LOCAL;
	case ICMP6_NEIGHBOUR_ADVERTISEMENT:
		if ((void *)(target + 1) > end)
			return PORIN_DROP_MALFORMED;
		if (!is_own6(target) && !is_link_local6(target))
			return PORIN_DROP_SPOOFED_ADDRESS;
		return ip->hop_limit == ND_HOP_LIMIT ? LINK_SERVICE : PORIN_DROP_LINK_LOCAL;
	case ICMP6_MLD_REPORT:
	case ICMP6_MLD_DONE:
	case ICMP6_MLD2:
		return LINK_SERVICE;
	}
	return 0; /* among them what only routers say: the variant drops it */
}

static __always_inline int sent6(const struct ipv6hdr *ip, const void *end)
{
	const __u8 *l4;
	__u8 next;
	int service = 0;

	if ((void *)(ip + 1) > end)
		return PORIN_DROP_MALFORMED;
	l4 = link_l4(ip, end, &next);
	if (is_own6(&ip->saddr) || is_link_local6(&ip->saddr) || is_unspecified6(&ip->saddr)) {
		if (next == IPPROTO_ICMPV6)
			service = sent_icmp6(ip, l4, end);
		else if (next == IPPROTO_UDP && is_link_local6(&ip->saddr) &&
			 ip->daddr.s6_addr[0] == 0xff &&
			 is_udp(l4, end, DHCP6_CLIENT, DHCP6_SERVER))
			service = LINK_SERVICE;
	}
	return service ? service : check6(ip);
}

/* Where the frame's content begins, and where what can be looked at ends. A drop reason, or 0. */
static __always_inline int link_content(struct __sk_buff *skb, const void **content,
					const void **end)
{
	packet_pull(skb, LINK_PULL);
	*content = (void *)(long)skb->data + ETH_HLEN;
	*end = (void *)(long)skb->data_end;
	if (*content > *end)
		return PORIN_DROP_MALFORMED;
	return skb->vlan_present ? PORIN_DROP_NOT_IP : 0;
}

/* What the endpoint sends: LINK_SERVICE, a drop reason, or 0 if it is for the variant. */
static __always_inline int link_sent(struct __sk_buff *skb)
{
	const void *content, *end;
	int reason = link_content(skb, &content, &end);

	if (reason)
		return reason;
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_ARP:
		return sent_arp(content, end);
	case ETH_P_IP:
		return sent4(content, end);
	case ETH_P_IPV6:
		return sent6(content, end);
	}
	return PORIN_DROP_NOT_IP;
}

static __always_inline int received4(const struct iphdr *ip, const void *end)
{
	bool broadcast;

	if ((void *)(ip + 1) > end)
		return PORIN_DROP_MALFORMED;
	broadcast = is_multicast4(ip->daddr);
	if ((broadcast || is_own4(ip->daddr)) && is_dhcp4(ip, end, DHCP4_SERVER, DHCP4_CLIENT))
		return LINK_SERVICE;
	if (broadcast)
		return ip->protocol == IPPROTO_IGMP ? LINK_SERVICE : PORIN_DROP_LINK_LOCAL;
	return is_own4(ip->daddr) ? 0 : PORIN_DROP_ELSEWHERE;
}

static __always_inline int received6(const struct ipv6hdr *ip, const void *end)
{
	const __u8 *l4;
	__u8 next;

	if ((void *)(ip + 1) > end)
		return PORIN_DROP_MALFORMED;
	l4 = link_l4(ip, end, &next);
	if (next == IPPROTO_ICMPV6 && (void *)(l4 + 4) <= end) {
		if (l4[0] >= ICMP6_ROUTER_SOLICITATION && l4[0] <= ICMP6_REDIRECT &&
		    ip->hop_limit == ND_HOP_LIMIT)
			return LINK_SERVICE;
		if ((l4[0] >= ICMP6_MLD_QUERY && l4[0] <= ICMP6_MLD_DONE) || l4[0] == ICMP6_MLD2)
			return LINK_SERVICE;
	}
	if (next == IPPROTO_UDP && is_link_local6(&ip->daddr) &&
	    is_udp(l4, end, DHCP6_SERVER, DHCP6_CLIENT))
		return LINK_SERVICE;
	if (is_own6(&ip->daddr))
		return 0;
	return ip->daddr.s6_addr[0] == 0xff || is_link_local6(&ip->daddr) ? PORIN_DROP_LINK_LOCAL
									  : PORIN_DROP_ELSEWHERE;
}

/* Likewise what it is sent. */
static __always_inline int link_received(struct __sk_buff *skb)
{
	const void *content, *end;
	int reason = link_content(skb, &content, &end);

	if (reason)
		return reason;
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_ARP:
		return LINK_SERVICE;
	case ETH_P_IP:
		return received4(content, end);
	case ETH_P_IPV6:
		return received6(content, end);
	}
	return PORIN_DROP_NOT_IP;
}

#endif
