// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The host's own programs and published ports: a socket that is to connect, or to send, to
 * an address and port of the host that is published is led to the endpoint instead, before
 * there is a packet. What it sends is judged at the endpoint's gate as the host's, like all
 * else of the host's own; nothing is translated on the way.
 *
 * Loopback addresses are found like this and in no other way, for no packet of theirs comes
 * by a gate.
 *
 * A socket that asks where it is connected to, or where a datagram came from, is told the
 * address that it knows.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "porin/maps.h"
#include "lib/lookup.h"

/* The host's network namespace, as the kernel's cookies have it: containers' are others. */
const volatile __u64 host_netns;

#define PASS 1

/* One end: an address, IPv4 as IPv4-mapped, and a port, in network order. */
struct end {
	__be32 word[4];
	__be16 port;
};

/* And no connection of the L7 worker's, which knows the endpoint that it is to. */
static __always_inline bool is_hosts(struct bpf_sock_addr *ctx)
{
	return bpf_get_netns_cookie(ctx) == host_netns && ctx->sk->mark != PORIN_MARK_WORKER;
}

static __always_inline bool is_mapped(const struct end *e)
{
	return !e->word[0] && !e->word[1] && e->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_loopback(const struct end *e)
{
	if (is_mapped(e))
		return (e->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !e->word[0] && !e->word[1] && !e->word[2] && e->word[3] == bpf_htonl(1);
}

/* connect(2) to no address means the loopback (ip(7)). */
static __always_inline void name_loopback(struct end *e)
{
	if (e->word[0] || e->word[1] || e->word[3])
		return;
	if (e->word[2] == bpf_htonl(0xffff))
		e->word[3] = bpf_htonl(0x7f000001);
	else if (!e->word[2])
		e->word[3] = bpf_htonl(1);
}

static __always_inline struct end end4(const struct bpf_sock_addr *ctx)
{
	return (struct end){
		.word = { 0, 0, bpf_htonl(0xffff), ctx->user_ip4 },
		.port = ctx->user_port,
	};
}

static __always_inline struct end end6(const struct bpf_sock_addr *ctx)
{
	return (struct end){
		.word = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
		.port = ctx->user_port,
	};
}

static __always_inline void put4(struct bpf_sock_addr *ctx, const struct end *e)
{
	ctx->user_ip4 = e->word[3];
	ctx->user_port = e->port;
}

static __always_inline void put6(struct bpf_sock_addr *ctx, const struct end *e)
{
	ctx->user_ip6[0] = e->word[0];
	ctx->user_ip6[1] = e->word[1];
	ctx->user_ip6[2] = e->word[2];
	ctx->user_ip6[3] = e->word[3];
	ctx->user_port = e->port;
}

/* What `sent` leads to in the generation in force, which is read once. */
static __always_inline bool lead(struct bpf_sock_addr *ctx, const struct end *sent, struct end *to)
{
	struct porin_published_key key = {
		.port = sent->port,
		.protocol = ctx->protocol,
		.loopback = is_loopback(sent),
	};
	struct porin_published_side *side;
	struct porin_published *found;
	__u32 zero = 0, generation, slot;
	struct porin_endpoint *e;
	struct porin_state *s;

	s = array_look_up(&state, &zero);
	if (!s)
		return false;
	generation = *(volatile const __u32 *)&s->generation;
	if (!generation)
		return false;
	__builtin_memcpy(key.address, sent->word, sizeof(key.address));
	found = socket_look_up(&published, &key);
	if (!found)
		return false;
	side = generation & 1 ? &found->side[1] : &found->side[0];
	slot = side->slot;
	if (!slot)
		return false;
	e = array_look_up(&endpoints, &slot);
	if (!e)
		return false;
	to->port = side->port;
	if (is_mapped(sent)) {
		to->word[0] = 0;
		to->word[1] = 0;
		to->word[2] = bpf_htonl(0xffff);
		to->word[3] = *(__be32 *)e->address4;
		return to->word[3];
	}
	__builtin_memcpy(to->word, e->address6, sizeof(to->word));
	return to->word[0];
}

static __always_inline void origin_key(struct bpf_sock_addr *ctx, const struct end *e,
				       struct porin_origin_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = bpf_get_socket_cookie(ctx);
	key->port = e->port;
	__builtin_memcpy(key->address, e->word, sizeof(key->address));
}

static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct end *sent,
				     const struct end *to)
{
	struct porin_origin value = { .port = sent->port };
	struct porin_origin_key key;
	struct porin_origin *known;

	origin_key(ctx, to, &key);
	__builtin_memcpy(value.address, sent->word, sizeof(value.address));
	known = socket_look_up(&origins, &key);
	/* Datagram after datagram to one place writes nothing. */
	if (known && known->port == value.port &&
	    !__builtin_memcmp(known->address, value.address, sizeof(value.address)))
		return true;
	return !bpf_map_update_elem(&origins, &key, &value, BPF_ANY);
}

/*
 * `source`: what the socket is bound to, or the datagram is to be from. Who insists on a
 * loopback address as its own reaches nothing but the loopback, and who is bound to an
 * interface nothing but by that; it is left alone, as without porin.
 */
static __always_inline bool redirect(struct bpf_sock_addr *ctx, struct end *sent,
				     const struct end *source, struct end *to)
{
	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return false;
	name_loopback(sent);
	if (ctx->sk->bound_dev_if || is_loopback(source))
		return false;
	/* What could not be told from where it is answered is not sent there. */
	return lead(ctx, sent, to) && remember(ctx, sent, to);
}

static __always_inline int to4(struct bpf_sock_addr *ctx, __be32 from)
{
	const struct end source = { .word = { 0, 0, bpf_htonl(0xffff), from } };
	struct end sent = end4(ctx), to;

	if (redirect(ctx, &sent, &source, &to))
		put4(ctx, &to);
	return PASS;
}

static __always_inline int to6(struct bpf_sock_addr *ctx, const struct end *source)
{
	struct end sent = end6(ctx), to;

	if (redirect(ctx, &sent, source, &to))
		put6(ctx, &to);
	return PASS;
}

/* What the socket knows this end by. */
static __always_inline bool recall(struct bpf_sock_addr *ctx, struct end *e)
{
	struct porin_origin_key key;
	struct porin_origin *known;

	origin_key(ctx, e, &key);
	known = socket_look_up(&origins, &key);
	if (!known)
		return false;
	__builtin_memcpy(e->word, known->address, sizeof(e->word));
	e->port = known->port;
	return true;
}

static __always_inline int from4(struct bpf_sock_addr *ctx)
{
	struct end e = end4(ctx);

	if (is_hosts(ctx) && recall(ctx, &e))
		put4(ctx, &e);
	return PASS;
}

static __always_inline int from6(struct bpf_sock_addr *ctx)
{
	struct end e = end6(ctx);

	if (is_hosts(ctx) && recall(ctx, &e))
		put6(ctx, &e);
	return PASS;
}

SEC("cgroup/connect4")
int host_connect4(struct bpf_sock_addr *ctx)
{
	return is_hosts(ctx) ? to4(ctx, ctx->sk->src_ip4) : PASS;
}

SEC("cgroup/connect6")
int host_connect6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	const struct end source = {
		.word = { sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3] },
	};

	return is_hosts(ctx) ? to6(ctx, &source) : PASS;
}

SEC("cgroup/sendmsg4")
int host_sendmsg4(struct bpf_sock_addr *ctx)
{
	return is_hosts(ctx) ? to4(ctx, ctx->msg_src_ip4) : PASS;
}

SEC("cgroup/sendmsg6")
int host_sendmsg6(struct bpf_sock_addr *ctx)
{
	const struct end source = {
		.word = { ctx->msg_src_ip6[0], ctx->msg_src_ip6[1], ctx->msg_src_ip6[2],
			  ctx->msg_src_ip6[3] },
	};

	return is_hosts(ctx) ? to6(ctx, &source) : PASS;
}

SEC("cgroup/recvmsg4")
int host_recvmsg4(struct bpf_sock_addr *ctx)
{
	return from4(ctx);
}

SEC("cgroup/recvmsg6")
int host_recvmsg6(struct bpf_sock_addr *ctx)
{
	return from6(ctx);
}

SEC("cgroup/getpeername4")
int host_getpeername4(struct bpf_sock_addr *ctx)
{
	return from4(ctx);
}

SEC("cgroup/getpeername6")
int host_getpeername6(struct bpf_sock_addr *ctx)
{
	return from6(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
