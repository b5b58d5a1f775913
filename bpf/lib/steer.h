/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * To a socket of the L7 worker's. The kernel is told which, and a mark makes a routing
 * rule deliver the packet to this host, whatever its address (as in the kernel's
 * Documentation/networking/tproxy.rst). Without the rule it would be forwarded, and then
 * dropped by the gate that it would leave by.
 */
#ifndef PORIN_STEER_H
#define PORIN_STEER_H

/* Whose connection the packet is of is known already; or is a new one to be accepted? */
static __always_inline bool socket_takes(const struct bpf_sock *sk, const struct packet *p)
{
	/* A port that a client has again while the last connection from it lingers. */
	if (sk->state == BPF_TCP_TIME_WAIT)
		return !packet_is_syn(p);
	return sk->state != BPF_TCP_LISTEN;
}

/* Returns 0 or a drop reason. */
static __always_inline int socket_assign(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = sizeof(tuple.ipv6), family = packet_family(p);
	struct bpf_sock *sk;
	long error;

	if (p->version == 4) {
		tuple.ipv4.saddr = p->source.word[3];
		tuple.ipv4.daddr = p->destination.word[3];
		tuple.ipv4.sport = p->source_port;
		tuple.ipv4.dport = p->destination_port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &p->source, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &p->destination, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = p->source_port;
		tuple.ipv6.dport = p->destination_port;
	}
	sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (sk) {
		const bool takes = socket_takes(sk, p);

		error = takes ? bpf_sk_assign(skb, sk, 0) : 0;
		bpf_sk_release(sk);
		if (takes)
			return error ? PORIN_DROP_FAULT : 0;
	}
	/* What is no connection of its, the kernel resets on behalf of who listens. */
	sk = hash_look_up(skb, &workers, &family);
	if (!sk)
		return PORIN_DROP_NO_WORKER;
	error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return error ? PORIN_DROP_FAULT : 0;
}

/* Not static: verified by itself, once. */
__noinline int steer(struct __sk_buff *skb)
{
	struct scratch *s = scratch_get();
	const struct packet *p;
	int reason = 0;

	if (!features.judges_requests || !s)
		return TC_ACT_SHOT;
	p = &s->packet;
	/*
	 * ICMP errors and fragments find their sockets by what they quote, or make up; a SYN
	 * would find whoever listens.
	 */
	if (p->kind & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
		reason = packet_is_syn(p) ? PORIN_DROP_NOT_PROXIED : 0;
	else if (p->protocol == IPPROTO_TCP)
		reason = socket_assign(skb, p);
	if (reason)
		return drop(p, reason);
	/* What was turned round was counted where it was to leave. */
	if (skb->mark != PORIN_MARK_STEER)
		count_traffic(p);
	skb->mark = PORIN_MARK_STEER;
	return TC_ACT_OK;
}

/*
 * What the host's own stack sends to the worker: sockets are assigned where a packet comes
 * in, so it comes in again by the interface that it was to leave by. The mark says so.
 */
static __always_inline int turn(struct __sk_buff *skb, const struct packet *p)
{
	count_traffic(p);
	skb->mark = PORIN_MARK_STEER;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

#endif
