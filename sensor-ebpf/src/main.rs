//! The kernel half: three programs at the cgroup v2 root.
//!
//! `cgroup_skb` runs at the socket, in both directions, and always lets the packet pass; `sock_ops` tells
//! connections apart by who opened them. A program decides what to forward and writes it to a ring; it parses
//! no HTTP beyond the first bytes of a connection. Loads on 5.10 and later: a helper that older kernels lack
//! sits behind a read-only flag, and the verifier prunes what the flag turns off.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "the macros of the entry points drop their documentation")]
#![allow(
    unsafe_code,
    reason = "helpers and contexts of the kernel are raw pointers; each use says why it is sound"
)]

mod emit;
mod flow;
mod lifecycle;
mod listener;
mod maps;
mod packet;
mod request;
mod response;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::{cgroup_skb, sock_ops};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};

/// What `cgroup_skb` answers for "let it pass"; this half never drops.
const PASS: i32 = 1;

/// Towards a socket: requests at the server's end.
#[cgroup_skb(ingress)]
fn tokenscope_ingress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.skb.skb;
    request::on_ingress(skb);
    PASS
}

/// From a socket: responses at the server's end, and the acknowledgements that commit requests.
#[cgroup_skb(egress)]
fn tokenscope_egress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.skb.skb;
    response::on_egress(skb);
    PASS
}

/// Birth and death of connections.
#[sock_ops]
fn tokenscope_sockets(ctx: SockOpsContext) -> u32 {
    lifecycle::on_event(&ctx);
    1
}

/// The verifier rejects programs that could reach it, so it never runs.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel offers most helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
