//! Every map and every setting of the kernel half: its size, and why.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use sensor_ebpf::counter::{COUNTERS, Counter};
use sensor_ebpf::wire::{Header, SkipUntil};

use crate::flow::Flow;

/// Records for the agent. 16 MiB lost nothing under load where 1 MiB lost heavily; the loader may change it.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// Bytes of [`RECORDS`], as the loader made it.
#[unsafe(no_mangle)]
pub(crate) static RING_BYTES: Global<u64> = Global::new(16 << 20);

/// State a socket; freed with the socket, so it needs no bound of its own.
#[btf_map]
pub(crate) static FLOWS: aya_ebpf::btf_maps::SkStorage<Flow> = aya_ebpf::btf_maps::SkStorage::new();

/// Grants of the agent by socket cookie. A connection needs one only while a long body arrives, so 64 Ki of
/// them are plenty; the least recently used one goes first, and costs a body's bytes and nothing else.
#[map]
pub(crate) static GRANTS: LruHashMap<u64, SkipUntil> = LruHashMap::with_max_entries(1 << 16, 0);

/// Grants about responses that are forwarded whole, which few connections ask for.
#[map]
pub(crate) static RESPONSE_GRANTS: LruHashMap<u64, SkipUntil> = LruHashMap::with_max_entries(1 << 13, 0);

/// The header of the request record that is being written on this CPU.
#[map]
pub(crate) static REQUEST_HEADER: PerCpuArray<Header> = PerCpuArray::with_max_entries(1, 0);

/// Ports to watch when [`PORTS_ON`]. The agent's configuration holds at most as many.
#[map]
pub(crate) static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(1024, 0);

/// 1 once so much waits for the agent that it should leave out what it can; the agent takes it back.
#[map]
pub(crate) static PRESSED: Array<u32> = Array::with_max_entries(1, 0);

/// 1 while the agent sleeps and wants to be woken.
#[map]
pub(crate) static SLEEPING: Array<u32> = Array::with_max_entries(1, 0);

/// One slot a [`Counter`], a CPU.
#[map]
pub(crate) static COUNTS: PerCpuArray<[u64; COUNTERS]> = PerCpuArray::with_max_entries(1, 0);

/// Whether [`PORTS`] restricts anything.
#[unsafe(no_mangle)]
pub(crate) static PORTS_ON: Global<u8> = Global::new(0);

/// Whether the agent wants the start of the bodies that answer POST: tokens are issued in them.
#[unsafe(no_mangle)]
pub(crate) static ANSWERS_ON: Global<u8> = Global::new(0);

/// Whether `bpf_get_current_pid_tgid` exists here and tells the truth at egress (>= 6.12).
#[unsafe(no_mangle)]
pub(crate) static PID_TRUE: Global<u8> = Global::new(0);

/// Whether `bpf_get_netns_cookie` exists for `sock_ops` (>= 5.15).
#[unsafe(no_mangle)]
pub(crate) static NETNS_SOCKETS: Global<u8> = Global::new(0);

/// Whether `bpf_get_netns_cookie` exists for `cgroup_skb` (>= 6.14): names the namespace of older sockets too.
#[unsafe(no_mangle)]
pub(crate) static NETNS_PACKETS: Global<u8> = Global::new(0);

/// Adds `by` to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter, by: u64) {
    if let Some(slots) = COUNTS.get_ptr_mut(0) {
        add(slots, counter, by);
    }
}

/// Whether a counter of this CPU stands at a power of two: what is logged then is logged ever more rarely.
#[inline(always)]
pub(crate) fn is_round(counter: Counter) -> bool {
    let Some(slots) = COUNTS.get_ptr_mut(0) else { return false };
    // SAFETY: as in `add`.
    let value = unsafe { slots.cast::<u64>().add(counter as usize).read_volatile() };
    value & value.wrapping_sub(1) == 0
}

/// Counts one more of `items` and `by` more of `bytes`, with one look-up.
#[inline(always)]
pub(crate) fn count_bytes(items: Counter, bytes: Counter, by: u32) {
    if let Some(slots) = COUNTS.get_ptr_mut(0) {
        add(slots, items, 1);
        add(slots, bytes, u64::from(by));
    }
}

#[inline(always)]
fn add(slots: *mut [u64; COUNTERS], counter: Counter, by: u64) {
    // SAFETY: the map's value holds COUNTERS aligned words and lives as long as the map; the slot is one of
    // them. Locked, because a softirq may interrupt a program of process context on the same CPU; by hand,
    // because the target offers no other way.
    unsafe {
        let slot = slots.cast::<u64>().add(counter as usize);
        core::arch::asm!("lock *(u64 *)({slot} + 0) += {by}", slot = in(reg) slot, by = in(reg) by);
    }
}

/// Whether connections to the local port `port` are to be captured.
#[inline(always)]
pub(crate) fn watched(port: u16) -> bool {
    PORTS_ON.load() == 0 || PORTS.get_ptr(port).is_some()
}

/// What goes when the ring fills up, in this order: how many eighths of it must wait for the agent. The head of a request
/// is lost only when nothing fits any more.
pub(crate) mod shed {
    /// What is forwarded beyond what a turn is due: later bytes of uploads, responses as a whole.
    pub(crate) const EXTRAS: u64 = 2;
    /// Data on handshakes, for anyone can send it; and responses but for failures and what answers POST: of these only
    /// the acknowledgement is told.
    pub(crate) const RESPONSES: u64 = 4;
    /// Bodies of requests.
    pub(crate) const BODIES: u64 = 5;
    /// The agent is told to judge samples of what is known to be good.
    pub(crate) const PRESSED: u64 = 6;
}

/// Whether more than so many eighths of the ring wait for the agent.
#[inline(always)]
pub(crate) fn fuller_than(eighths: u64) -> bool {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) > RING_BYTES.load() / 8 * eighths
}

/// Tells the agent that it falls behind.
#[inline(always)]
pub(crate) fn press() {
    if let Some(pressed) = PRESSED.get_ptr_mut(0) {
        // SAFETY: a valid, aligned word of the map; volatile because the agent writes it too.
        unsafe { pressed.write_volatile(1) };
    }
}

/// How to submit a record: silently, unless the agent sleeps.
///
/// To be called after the reservation. The agent raises the flag and *then* looks whether anything is
/// reserved, so either it sees this record or this sees its flag.
#[inline(always)]
pub(crate) fn wakeup() -> u64 {
    let Some(sleeping) = SLEEPING.get_ptr_mut(0) else { return u64::from(BPF_RB_NO_WAKEUP) };
    // SAFETY: a valid, aligned word of the map; volatile because the agent writes it too.
    if unsafe { sleeping.read_volatile() } == 0 {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    // SAFETY: as above. Two CPUs may both find it set: one wakeup too many does no harm.
    unsafe { sleeping.write_volatile(0) };
    count(Counter::Wakeups, 1);
    u64::from(BPF_RB_FORCE_WAKEUP)
}
