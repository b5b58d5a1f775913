/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections whose requests are judged. Each is two flows: the client's, which the L7
 * worker accepts in the server's name (PORIN_FLOW_PROXIED), and the worker's own to the
 * server, in the name of the client's address (PORIN_FLOW_WORKERS). What a flow is, it
 * stays: the worker has sockets for it, or has not. Policy decides of both as of any
 * other; which requests pass, the worker reads from the former's entry.
 *
 * What the worker sends bears the mark of its sockets.
 */
#ifndef PORIN_PROXIED_H
#define PORIN_PROXIED_H

static __always_inline bool by_worker(const struct packet *p)
{
	return features.judges_requests && (p->kind & PACKET_WORKERS);
}

/* What the host's own stack sends: does the worker? */
static __always_inline void worker_tell(const struct __sk_buff *skb, struct packet *p)
{
	if (features.judges_requests && skb->mark == PORIN_MARK_WORKER)
		p->kind |= PACKET_WORKERS;
}

/* Of a flow with the worker in it, the worker alone sends one direction, and never the other. */
static __always_inline bool worker_fits(const struct porin_flow *flow, const struct packet *p,
					__u32 direction)
{
	const __u32 flags = flow->flags;

	if (!features.judges_requests)
		return true;
	if (flags & PORIN_FLOW_PROXIED)
		return by_worker(p) == (direction == PORIN_FLOW_REPLY);
	if (flags & PORIN_FLOW_WORKERS)
		return by_worker(p) == (direction == PORIN_FLOW_ORIGINAL);
	return !by_worker(p);
}

/*
 * Is what goes this way for a socket of the worker's? `originator`: the flow's. To reach a
 * server for a client on the host itself the worker has an ordinary socket.
 */
static __always_inline bool to_worker(__u32 flags, __u32 direction,
				      const struct porin_delivery *originator)
{
	if (!features.judges_requests)
		return false;
	if (flags & PORIN_FLOW_PROXIED)
		return direction == PORIN_FLOW_ORIGINAL;
	return (flags & PORIN_FLOW_WORKERS) && direction == PORIN_FLOW_REPLY &&
	       originator->kind != PORIN_DELIVER_HOST;
}

#endif
