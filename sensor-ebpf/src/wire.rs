//! The records that cross the border between the kernel and the agent.
//!
//! Every record starts with a [`Header`], followed by `captured` bytes of TCP payload. Layout is
//! fixed by `repr(C)` with explicit padding and asserted below, so that either half refuses to build
//! when they drift apart. Integers are in the host's byte order: both halves run on one machine.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bumped whenever a layout or a meaning changes; the agent drops records of another version and counts them.
pub const VERSION: u8 = 2;

/// [`Header::kind`]: a TCP segment with payload, or a pure ACK that commits forwarded bytes.
pub const KIND_SEGMENT: u8 = 1;
/// [`Header::kind`]: a connection was accepted; `rcv_nxt` is the first sequence number of its client.
pub const KIND_OPEN: u8 = 2;
/// [`Header::kind`]: a server connection is gone; `rcv_nxt` is final.
pub const KIND_CLOSE: u8 = 3;

/// [`Header::side`]: towards the server (its ingress).
pub const SIDE_REQUEST: u8 = 0;
/// [`Header::side`]: from the server (its egress).
pub const SIDE_RESPONSE: u8 = 1;

/// [`Header::flags`]: the cookie is the listening socket's; join on the 4-tuple.
pub const FLAG_LISTENER: u8 = 1;
/// [`Header::flags`]: the first payload after the other side spoke.
pub const FLAG_TURN: u8 = 1 << 1;
/// [`Header::flags`]: `rcv_nxt` holds a value.
pub const FLAG_RCV_NXT: u8 = 1 << 2;
/// [`Header::flags`]: the segment carries FIN.
pub const FLAG_FIN: u8 = 1 << 3;
/// [`Header::flags`]: the segment carries RST.
pub const FLAG_RST: u8 = 1 << 4;
/// [`Header::flags`]: responses of this connection are forwarded whole, for several may stand in one segment; the agent
/// may say what it does not want of them.
pub const FLAG_WHOLE: u8 = 1 << 6;
/// [`Header::flags`]: addresses are IPv4, mapped into IPv6 (RFC 4291 section 2.5.5.2).
pub const FLAG_IPV4: u8 = 1 << 5;

/// What precedes the payload of every record.
///
/// Addresses are the client's and the server's, whichever way the segment went, in network order.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Nanoseconds since boot (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
    /// Socket cookie; never reused while the machine is up.
    pub cookie: u64,
    /// Id of the cgroup that the socket was born in: the inode of its directory.
    pub cgroup: u64,
    /// Cookie of the network namespace, 0 where the kernel cannot tell.
    pub netns: u64,
    /// The client's address.
    pub client: [u8; 16],
    /// The server's address.
    pub server: [u8; 16],
    /// The client's port, host order.
    pub client_port: u16,
    /// The server's port, host order.
    pub server_port: u16,
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// Acknowledgement number the segment carries.
    pub ack: u32,
    /// What the server's TCP had accepted so far: a lower bound (read unlocked).
    pub rcv_nxt: u32,
    /// Payload bytes on the wire.
    pub wire_len: u32,
    /// Payload bytes that follow this header; `captured <= wire_len`.
    pub captured: u32,
    /// Thread group id that sent the head of the last response, on kernels that tell it truly (>= 6.12), else 0.
    pub pid: u32,
    /// [`VERSION`].
    pub version: u8,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// One of the `SIDE_` constants.
    pub side: u8,
    /// `FLAG_` bits.
    pub flags: u8,
}

/// What the agent may answer: from which byte on it wants to read one side of a connection again. Value of the maps of
/// grants, whose key is the socket cookie.
pub type SkipUntil = u32;

/// Bytes of a [`Header`].
pub const HEADER_LEN: usize = core::mem::size_of::<Header>();

const _: () = assert!(HEADER_LEN == 96, "Header must have no hidden padding");
