//! The floor of the kernel half, for the benchmark alone: programs at the same place that copy the same bytes into a ring
//! and know nothing of them. No connections, no order, no retransmissions, no limits, no losses told.
//! Of packets with options of IP, or of IPv6, it sees nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "the macros of the entry points drop their documentation")]
#![allow(
    unsafe_code,
    reason = "helpers and contexts of the kernel are raw pointers; each use says why it is sound"
)]

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::{cgroup_skb, map};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::SkBuffContext;

/// What `cgroup_skb` answers for "let it pass".
const PASS: i32 = 1;

/// Most bytes of a request that are copied, a power of two: the heads of the benchmark are smaller.
const REQUEST: usize = 2048;

/// The same of a response: what the sensor takes of those of the benchmark.
const RESPONSE: usize = 512;

/// What precedes the payload of a record: how many bytes it has; and whose they are, which the reader counts.
const HEADER: usize = 8;

/// As large as the sensor's.
#[map]
static BYTES: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// The server's port.
#[unsafe(no_mangle)]
static PORT: Global<u16> = Global::new(0);

#[cgroup_skb(ingress)]
fn floor_ingress(ctx: SkBuffContext) -> i32 {
    copy::<REQUEST>(ctx.skb.skb, 22, 0);
    PASS
}

#[cgroup_skb(egress)]
fn floor_egress(ctx: SkBuffContext) -> i32 {
    copy::<RESPONSE>(ctx.skb.skb, 20, 1 << 32);
    PASS
}

/// Copies up to `N` bytes of payload if the port at `place` is the server's.
#[inline(always)]
fn copy<const N: usize>(skb: *mut __sk_buff, place: usize, side: u64) {
    // SAFETY: fields of the context, which the verifier types as pointers.
    let (data, end) = unsafe { ((*skb).data as usize as *const u8, (*skb).data_end as usize as *const u8) };
    if data.wrapping_add(40) > end {
        return;
    }
    // SAFETY: 40 bytes are there, of an IPv4 header of 20 and a TCP header of as many.
    let (version, port, offset) =
        unsafe { (data.read(), [data.add(place).read(), data.add(place + 1).read()], data.add(32).read()) };
    if version != 0x45 || u16::from_be_bytes(port) != PORT.load() {
        return;
    }
    let payload = 20 + u32::from(offset >> 4) * 4;
    // SAFETY: a field of the context.
    let len = unsafe { (*skb).len }.wrapping_sub(payload);
    if len == 0 || len > 0xffff {
        return;
    }
    let len = if len as usize > N { N } else { len as usize };
    let Some(mut slot) = BYTES.reserve_bytes(HEADER + N, 0) else { return };
    let start = slot.as_mut_ptr();
    let mut last = len as u64 - 1;
    // SAFETY: changes a register: the verifier sees that the last byte lies below N.
    unsafe {
        core::arch::asm!("{last} &= {mask}", last = inout(reg) last, mask = const N - 1, options(nomem, nostack))
    };
    // SAFETY: the slot holds the header, aligned to 8, and N bytes after it.
    unsafe {
        start.cast::<u64>().write(side | (last + 1));
        bpf_skb_load_bytes(skb.cast(), payload, start.add(HEADER).cast(), last as u32 + 1);
    }
    slot.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// The verifier rejects programs that could reach it, so it never runs.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
