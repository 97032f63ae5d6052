//! What is remembered of a socket between two packets.
//!
//! Ingress runs in softirq before TCP takes its lock and egress under it, possibly on another CPU, so both may
//! touch a flow at once. Every field is an aligned word of its own: a race can make a turn start a segment
//! early or late, never tear a value.

use core::cell::UnsafeCell;

use aya_ebpf::bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_cgroup_id,
};
use sensor_ebpf::counter::Counter;

use crate::maps::{FLOWS, NETNS_PACKETS, count};

/// `IPPROTO_TCP`.
const TCP: u32 = 6;

/// [`Flow::role`]: a socket older than the sensor that has not shown who it is.
pub(crate) const ROLE_UNKNOWN: u8 = 0;
/// [`Flow::role`]: this end accepted the connection.
pub(crate) const ROLE_SERVER: u8 = 1;
/// [`Flow::role`]: this end opened it; the other end, if local, is recorded instead.
pub(crate) const ROLE_CLIENT: u8 = 2;

/// [`Flow::mode`]: no payload seen yet.
pub(crate) const MODE_PROBE: u8 = 0;
/// [`Flow::mode`]: may be HTTP/1.
pub(crate) const MODE_HTTP1: u8 = 1;
/// [`Flow::mode`]: the first bytes are no HTTP/1, but TCP has not accepted them yet: a forgery could look so.
pub(crate) const MODE_DOUBT: u8 = 2;
/// [`Flow::mode`]: nothing of this connection is forwarded.
pub(crate) const MODE_MUTED: u8 = 3;

/// [`Flow::marks`]: the first sequence number of the client is known.
pub(crate) const MARK_FIRST: u8 = 1;
/// [`Flow::marks`]: the opening was reported.
pub(crate) const MARK_OPENED: u8 = 1 << 1;
/// [`Flow::marks`]: something was forwarded.
pub(crate) const MARK_EMITTED: u8 = 1 << 2;
/// [`Flow::marks`]: [`Flow::skip_until`] applies.
pub(crate) const MARK_SKIP: u8 = 1 << 3;

/// [`Flow::marks`]: the client has sent a request before an earlier one was answered, so several responses may stand in
/// one segment. For good: nobody here knows when the last of them has passed.
pub(crate) const MARK_BURST: u8 = 1 << 4;

/// [`Flow::turn`]: nobody has spoken.
pub(crate) const TURN_NONE: u8 = 0;
/// [`Flow::turn`]: the client spoke last.
pub(crate) const TURN_REQUEST: u8 = 1;
/// [`Flow::turn`]: the server spoke last.
pub(crate) const TURN_RESPONSE: u8 = 2;

/// A field that several CPUs may read and write at once. The BPF target has no atomics narrower than 64 bits;
/// volatile accesses of aligned words are what its C programs use (`READ_ONCE`, `WRITE_ONCE`).
#[repr(transparent)]
pub(crate) struct Word<T>(UnsafeCell<T>);

impl<T: Copy> Word<T> {
    /// Reads the field.
    #[inline(always)]
    pub(crate) fn get(&self) -> T {
        // SAFETY: valid and aligned, as `self` is a reference; never torn, as `T` is a machine word or smaller.
        unsafe { self.0.get().read_volatile() }
    }

    /// Writes the field.
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// State of one socket. Zeroed by the kernel when it is made.
#[repr(C)]
pub(crate) struct Flow {
    /// Socket cookie; 0 until first needed.
    pub(crate) cookie: Word<u64>,
    /// Inode of the cgroup's directory; 0 until first needed.
    pub(crate) cgroup: Word<u64>,
    /// Cookie of the network namespace, 0 where no helper tells it.
    pub(crate) netns: Word<u64>,
    /// First sequence number of the client's bytes, if [`MARK_FIRST`].
    pub(crate) first_seq: Word<u32>,
    /// Where the credit of the running request turn began.
    pub(crate) credit_from: Word<u32>,
    /// The grant last seen: the first request byte that is wanted.
    pub(crate) skip_until: Word<u32>,
    /// End of the request bytes that were forwarded.
    pub(crate) forwarded: Word<u32>,
    /// Where the snapshot of the running response began.
    pub(crate) reply_from: Word<u32>,
    /// End of the response bytes that were sent at least once, if [`Self::sent_known`].
    pub(crate) sent: Word<u32>,
    /// Thread group id that sent the head of the last response.
    pub(crate) pid: Word<u32>,
    /// One of `ROLE_`.
    pub(crate) role: Word<u8>,
    /// One of `MODE_`.
    pub(crate) mode: Word<u8>,
    /// Bits of `MARK_`.
    pub(crate) marks: Word<u8>,
    /// One of `TURN_`.
    pub(crate) turn: Word<u8>,
    /// 1 while forwarded request bytes lack a record that acknowledges them.
    pub(crate) ack_owed: Word<u8>,
    /// 1 once [`Self::sent`] holds a value.
    pub(crate) sent_known: Word<u8>,
    /// What [`MODE_DOUBT`] suspects: a `sensor_ebpf::probe::Protocol`.
    pub(crate) suspect: Word<u8>,
    /// What `sensor_ebpf::ends` has found in the running request turn.
    pub(crate) ends: Word<u8>,
    /// 1 if the last turn that began with a known method began with POST.
    pub(crate) posts: Word<u8>,
}

const _: () = assert!(size_of::<Flow>() <= 64, "a flow must fit a cache line");

impl Flow {
    /// Whether all `bits` are set.
    #[inline(always)]
    pub(crate) fn marked(&self, bits: u8) -> bool {
        self.marks.get() & bits == bits
    }

    /// Sets `bits`.
    #[inline(always)]
    pub(crate) fn mark(&self, bits: u8) {
        self.marks.set(self.marks.get() | bits);
    }

    /// Clears `bits`.
    #[inline(always)]
    pub(crate) fn unmark(&self, bits: u8) {
        self.marks.set(self.marks.get() & !bits);
    }

    /// Stops forwarding for good.
    #[inline(always)]
    pub(crate) fn mute(&self, reason: Counter) {
        self.mode.set(MODE_MUTED);
        count(reason, 1);
    }

    /// Decides the role, once.
    #[inline(always)]
    pub(crate) fn assume(&self, role: u8) {
        self.role.set(role);
        count(if role == ROLE_SERVER { Counter::ServerSockets } else { Counter::ClientSockets }, 1);
    }

    /// Looks up, once a socket, what identifies it on the host.
    #[inline(always)]
    pub(crate) fn identify(&self, skb: *mut __sk_buff) {
        // What is set last tells whether all is.
        if self.cgroup.get() != 0 {
            return;
        }
        // SAFETY: helpers on the program's own context; the second is behind the flag that says it exists.
        unsafe {
            if self.cookie.get() == 0 {
                self.cookie.set(bpf_get_socket_cookie(skb.cast()));
            }
            if NETNS_PACKETS.load() != 0 && self.netns.get() == 0 {
                self.netns.set(bpf_get_netns_cookie(skb.cast()));
            }
            self.cgroup.set(bpf_skb_cgroup_id(skb));
        }
    }
}

/// The full socket that a packet belongs to.
#[inline(always)]
pub(crate) fn socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: a field of the context; the verifier types it as socket or null.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is not null. Request and time-wait sockets give null here.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    (!sk.is_null()).then_some(sk)
}

/// Whether a full socket is one of TCP. Nothing else that happens to a packet needs this field, so that it is in no cache.
#[inline(always)]
pub(crate) fn is_tcp(sk: *mut bpf_sock) -> bool {
    // SAFETY: a full socket has the field.
    unsafe { (*sk).protocol == TCP }
}

/// The state of a TCP socket, made if need be; none of others.
#[inline(always)]
pub(crate) fn of<'a>(sk: *mut bpf_sock) -> Option<&'a Flow> {
    if let Some(flow) = existing(sk) {
        return Some(flow);
    }
    if !is_tcp(sk) {
        return None;
    }
    let flow = lookup(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
    if flow.is_none() {
        count(Counter::NoStorage, 1);
    }
    flow
}

/// The state of a socket, if it has any, as only those of TCP do.
#[inline(always)]
pub(crate) fn existing<'a>(sk: *mut bpf_sock) -> Option<&'a Flow> {
    lookup(sk, 0)
}

#[inline(always)]
fn lookup<'a>(sk: *mut bpf_sock, flags: u64) -> Option<&'a Flow> {
    let map = core::ptr::addr_of!(FLOWS).cast_mut().cast();
    // SAFETY: the map is a socket storage, `sk` a full socket. The value lives as long as the socket, which
    // outlives the program's run; all its fields are words that may be shared.
    unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags).cast::<Flow>().as_ref() }
}
