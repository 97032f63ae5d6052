//! What the kernel tells live and a file does not: which connection a segment belongs to, who is the server, and when
//! the connection begins and ends.
//!
//! The handshake decides who is the server; in connections joined midway, how the payload begins; and failing that,
//! the lower port, until payload says otherwise. A SYN on a connection that lives counts only once it is answered
//! (RFC 5961 section 4), so a forged one changes nothing.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hashbrown::HashMap;

use super::checksum::{self, Trust};
use super::packet::{End, FIN, Packet, RST, SYN};
use crate::capture::{Endpoints, Event, Frame, Input, Origin, Segment, Side, SocketId, Time};

/// Connections in one generation, of which there are two: some 85 MB each when full, half for the map, which has twice as many
/// buckets, and half for what is known of them. Beyond it the ones that were quiet for the longest are forgotten, and joined
/// midway if they speak again.
const MAX_CONNECTIONS: usize = 1 << 18;

const _: () = assert!(size_of::<(Key, u32)>() <= 80 && size_of::<Connection>() <= 160);

/// A connection that was quiet for one to two of these is forgotten; reassembly forgets it after one.
const GENERATION: Duration = Duration::from_mins(5);

/// Both ends, the lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    low: End,
    high: End,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.low.address);
        state.write_u128(self.high.address);
        state.write_u32(u32::from(self.low.port) << 16 | u32::from(self.high.port));
    }
}

/// How sure it is who is the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Unknown,
    Guessed,
    Sure,
}

/// What is known of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// The highest sequence number that was reached.
    next: Option<u32>,
    /// Where the FIN is.
    fin: Option<u32>,
    /// The other end has acknowledged the FIN.
    fin_acked: bool,
    trust: Trust,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    id: SocketId,
    role: Role,
    /// Whether the lower end is the client; means something once the role is not unknown.
    low_is_client: bool,
    endpoints: Endpoints,
    /// The client's initial sequence number, until the handshake is told.
    unopened: Option<u32>,
    /// The initial sequence number of the last SYN, and whether the lower end sent it.
    syn: Option<(u32, bool)>,
    /// A SYN that may yet begin another connection between the same ends.
    candidate: Option<(u32, bool)>,
    closed: bool,
    low: Half,
    high: Half,
}

/// All connections of a capture.
pub(super) struct Connections {
    /// Where those of this generation are, and those of the one before.
    young: HashMap<Key, u32, foldhash::fast::RandomState>,
    old: HashMap<Key, u32, foldhash::fast::RandomState>,
    /// Invariant: every place is in one of the two maps, or free.
    places: Vec<Connection>,
    free: Vec<u32>,
    /// The one that spoke last, which is of this generation: packets of one connection come in runs.
    latest: Option<(Key, u32)>,
    born: Time,
    last_id: u64,
    /// Segments left out because their checksum is wrong among right ones.
    pub(super) decoys: u64,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            places: Vec::new(),
            free: Vec::new(),
            latest: None,
            born: Time(0),
            last_id: 0,
            decoys: 0,
        }
    }

    /// Takes a segment, and tells what it means for its connection.
    pub(super) fn push(&mut self, packet: &Packet<'_>, at: Time, sink: &mut dyn FnMut(Input<'_>)) {
        let from_low = packet.from <= packet.to;
        let key = if from_low {
            Key { low: packet.from, high: packet.to }
        } else {
            Key { low: packet.to, high: packet.from }
        };
        if self.young.len() >= MAX_CONNECTIONS || at.since(self.born) >= GENERATION {
            // Keeps the larger allocation for the next generation.
            std::mem::swap(&mut self.young, &mut self.old);
            self.free.extend(self.young.drain().map(|(_, place)| place));
            self.latest = None;
            self.born = at;
        }
        let place = match self.latest {
            Some((latest, place)) if latest == key => Some(place),
            _ => self.find(key, packet.wire_len > 0 || packet.flags & SYN != 0),
        };
        let Some(connection) = place.and_then(|place| self.places.get_mut(place as usize)) else { return };
        if connection.is_decoy(packet, from_low) {
            self.decoys += 1;
            return;
        }
        connection.take(&key, packet, from_low, &mut Telling { at, last_id: &mut self.last_id, sink });
    }

    /// The place of a connection, that of a new one if it begins with this.
    fn find(&mut self, key: Key, begins: bool) -> Option<u32> {
        let place = if let Some(known) = self.young.get(&key) {
            *known
        } else {
            let known = self.old.remove(&key);
            let place = known.or_else(|| if begins { self.begin() } else { None })?;
            self.young.insert(key, place);
            place
        };
        self.latest = Some((key, place));
        Some(place)
    }

    /// A place with a new connection in it.
    fn begin(&mut self) -> Option<u32> {
        let fresh = Connection::new(&mut self.last_id);
        if let Some(free) = self.free.pop() {
            *self.places.get_mut(free as usize)? = fresh;
            return Some(free);
        }
        self.places.push(fresh);
        u32::try_from(self.places.len() - 1).ok()
    }
}

/// Where a connection tells what happened.
struct Telling<'a> {
    at: Time,
    last_id: &'a mut u64,
    sink: &'a mut dyn FnMut(Input<'_>),
}

#[allow(clippy::inline_always, reason = "measured: a packet's way in one piece (decision 15)")]
impl Connection {
    fn new(last_id: &mut u64) -> Self {
        *last_id += 1;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            id: SocketId(*last_id),
            role: Role::Unknown,
            low_is_client: false,
            endpoints: Endpoints { client: nowhere, server: nowhere },
            unopened: None,
            syn: None,
            candidate: None,
            closed: false,
            low: Half::default(),
            high: Half::default(),
        }
    }

    fn half(&mut self, low: bool) -> &mut Half {
        if low { &mut self.low } else { &mut self.high }
    }

    /// Decoys are meant for servers; what is known to come from one is not checked.
    fn is_decoy(&mut self, packet: &Packet<'_>, from_low: bool) -> bool {
        let trust = &mut self.half(from_low).trust;
        if *trust == Trust::Meaningless {
            return false;
        }
        if self.role != Role::Unknown && self.low_is_client != from_low {
            return false;
        }
        self.half(from_low).trust.is_decoy(checksum::check(packet))
    }

    #[inline(always)]
    fn take(&mut self, key: &Key, packet: &Packet<'_>, from_low: bool, telling: &mut Telling<'_>) {
        if packet.flags & SYN != 0 {
            self.handshake(key, packet, from_low, telling);
            if packet.wire_len == 0 || packet.ack.is_some() || self.candidate.is_some() {
                return;
            }
            // Data with the SYN (RFC 7413): it begins after the number that the SYN takes.
            let packet = Packet { seq: packet.seq.wrapping_add(1), ..*packet };
            self.pass(&packet, from_low, telling);
            return;
        }
        if let Some((isn, low)) = self.candidate
            && low == from_low
            && packet.seq == isn.wrapping_add(1)
            && self.half(!from_low).next.is_none()
        {
            self.renew(key, isn, low, telling);
        }
        if self.closed && !self.revive(packet, from_low, telling) {
            return;
        }
        self.decide_role(key, packet, from_low, telling);
        if self.role != Role::Unknown {
            self.pass(packet, from_low, telling);
        }
    }

    /// A SYN, or the answer to one.
    fn handshake(&mut self, key: &Key, packet: &Packet<'_>, from_low: bool, telling: &mut Telling<'_>) {
        let answered = packet.ack.map(|ack| ack.wrapping_sub(1));
        let (isn, low) = answered.map_or((packet.seq, from_low), |isn| (isn, !from_low));
        if self.syn != Some((isn, low)) {
            let unused = self.role == Role::Unknown || self.closed;
            let confirmed = answered.is_some() && self.candidate == Some((isn, low));
            // A SYN sent again with another number, as long as nothing came of the first.
            let replaced = self.unopened.is_some() && answered.is_none() && self.half(!low).next.is_none();
            if !(unused || confirmed || replaced) {
                if answered.is_none() {
                    self.candidate = Some((isn, low));
                }
                return;
            }
            if self.role == Role::Unknown {
                self.begin(key, isn, low);
            } else {
                self.renew(key, isn, low, telling);
            }
        }
        self.half(from_low).next = Some(packet.seq.wrapping_add(1));
    }

    fn begin(&mut self, key: &Key, isn: u32, low_is_client: bool) {
        self.set_role(key, low_is_client, Role::Sure);
        self.unopened = Some(isn);
        self.syn = Some((isn, low_is_client));
    }

    /// Another connection between the same ends.
    fn renew(&mut self, key: &Key, isn: u32, low_is_client: bool, telling: &mut Telling<'_>) {
        if !self.closed && self.unopened.is_none() {
            self.tell(Event::Close { rcv_nxt: None }, telling);
        }
        let (low, high) = (self.low.trust, self.high.trust);
        *self = Self::new(telling.last_id);
        (self.low.trust, self.high.trust) = (low, high);
        self.begin(key, isn, low_is_client);
    }

    /// A closed connection that goes on was not closed: a forged reset. Anything else on it is an echo.
    fn revive(&mut self, packet: &Packet<'_>, from_low: bool, telling: &mut Telling<'_>) -> bool {
        if packet.wire_len == 0
            || self.half(from_low).next != Some(packet.seq)
            || self.half(from_low).fin.is_some()
        {
            return false;
        }
        *telling.last_id += 1;
        self.id = SocketId(*telling.last_id);
        self.closed = false;
        true
    }

    fn decide_role(&mut self, key: &Key, packet: &Packet<'_>, from_low: bool, telling: &mut Telling<'_>) {
        if self.role == Role::Sure || packet.wire_len == 0 {
            return;
        }
        let sender_is_client = match speaker(packet.payload) {
            Some(sender_is_client) => sender_is_client,
            None if self.role == Role::Guessed => return,
            None => packet.from.port >= packet.to.port,
        };
        let sure = if speaker(packet.payload).is_some() { Role::Sure } else { Role::Guessed };
        let low_is_client = sender_is_client == from_low;
        if self.role == Role::Guessed && self.low_is_client != low_is_client {
            self.tell(Event::Close { rcv_nxt: None }, telling);
            *telling.last_id += 1;
            self.id = SocketId(*telling.last_id);
        }
        self.set_role(key, low_is_client, sure);
    }

    fn set_role(&mut self, key: &Key, low_is_client: bool, role: Role) {
        self.role = role;
        self.low_is_client = low_is_client;
        let (client, server) = if low_is_client { (key.low, key.high) } else { (key.high, key.low) };
        self.endpoints = Endpoints { client: address(client), server: address(server) };
    }

    /// Passes a segment on, with what it begins and ends.
    #[inline(always)]
    fn pass(&mut self, packet: &Packet<'_>, from_low: bool, telling: &mut Telling<'_>) {
        let rst = packet.flags & RST != 0;
        if let Some(isn) = self.unopened {
            if rst {
                // Nobody listens there.
                self.closed = true;
                return;
            }
            self.unopened = None;
            self.tell(Event::Open { first_seq: isn.wrapping_add(1) }, telling);
        }
        let segment = Segment {
            side: if from_low == self.low_is_client { Side::Request } else { Side::Response },
            seq: packet.seq,
            ack: packet.ack,
            rcv_nxt: None,
            wire_len: packet.wire_len,
            payload: packet.payload,
            whole: false,
            in_order: false,
            fin: packet.flags & FIN != 0,
            rst,
        };
        self.tell(Event::Segment(segment), telling);
        self.follow(&segment, from_low, telling);
    }

    /// Keeps up with both directions, and notices the end.
    fn follow(&mut self, segment: &Segment<'_>, from_low: bool, telling: &mut Telling<'_>) {
        let end = segment.seq.wrapping_add(segment.wire_len);
        let half = self.half(from_low);
        let reset = segment.rst && half.next.is_none_or(|next| next == segment.seq);
        if half.next.is_none_or(|next| end.wrapping_sub(next) < 1 << 31) {
            half.next = Some(end);
        }
        if segment.fin {
            half.fin = Some(end);
        }
        let other = self.half(!from_low);
        if let (Some(ack), Some(fin)) = (segment.ack, other.fin) {
            other.fin_acked |= ack == fin.wrapping_add(1);
        }
        if reset || (self.low.fin_acked && self.high.fin_acked) {
            let rcv_nxt = self.half(self.low_is_client).fin.filter(|_| !reset);
            self.tell(Event::Close { rcv_nxt }, telling);
            self.closed = true;
        }
    }

    #[inline(always)]
    fn tell(&self, event: Event<'_>, telling: &mut Telling<'_>) {
        let (at, socket, endpoints) = (telling.at, self.id, self.endpoints);
        (telling.sink)(Input::Frame(Frame { at, socket, endpoints, origin: Origin::default(), event }));
    }
}

/// Whether a payload tells that its sender is the client, or that it is the server.
fn speaker(payload: &[u8]) -> Option<bool> {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"CONNECT ", b"TRACE "];
    if payload.starts_with(b"HTTP/1.") {
        return Some(false);
    }
    METHODS.iter().any(|method| payload.starts_with(method)).then_some(true)
}

fn address(end: End) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(end.address)).to_canonical(), end.port)
}
