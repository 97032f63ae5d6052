//! All connections: who is known, who is forgotten, and who must go when there are too many.

use super::held::Spare;
use super::seq::Seq;
use super::stream::{Context, Flow};
use super::table::{Class, Table};
use super::{Conversation, FlowCounters, FlowLimits};
use crate::capture::{Event, Frame, Grant, Segment, SocketId, Time};

/// Most connections evicted for one frame to make room for bytes, so that one frame's cost stays bounded.
const MAX_EVICTED_AT_ONCE: usize = 16;

/// How many of the oldest connections of a class are looked at for bytes to free.
const MAX_LOOKED_AT: usize = 64;

/// Every connection that is known, each with its conversation.
#[derive(Debug)]
pub struct Flows<C: Conversation> {
    limits: FlowLimits,
    table: Table<Flow<C>>,
    spare: Spare,
    counters: FlowCounters,
    /// Sum of the flows' weights.
    held: usize,
}

impl<C: Conversation> Flows<C> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: FlowLimits) -> Self {
        let counters = FlowCounters::default();
        Self { limits, table: Table::new(), spare: Spare::default(), counters, held: 0 }
    }

    /// What was done since the beginning.
    #[must_use]
    pub fn counters(&self) -> &FlowCounters {
        &self.counters
    }

    /// Connections known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no connection is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held uncommitted now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Takes one frame in: conversations read what it commits, and grants say what need not be captured.
    pub fn push(&mut self, frame: &Frame<'_>, out: &mut C::Out, grants: &mut Vec<Grant>) {
        let slot = match self.table.find(frame.socket) {
            Some(slot) => slot,
            None if begins_flow(&frame.event) => self.begin(frame, out),
            None => return,
        };
        let Some(flow) = self.table.at(slot) else { return };
        let before = flow.weight();
        if frame.origin.pid != 0 || frame.origin.cgroup != 0 {
            flow.about.origin = frame.origin;
        }
        let mut cx = Context {
            id: frame.socket,
            now: frame.at,
            limits: &self.limits,
            counters: &mut self.counters,
            spare: &mut self.spare,
            out,
        };
        let over = match frame.event {
            Event::Open { first_seq } => {
                flow.open(Seq(first_seq));
                false
            }
            Event::Segment(segment) => flow.segment(&segment, &mut cx),
            Event::Close { rcv_nxt } => {
                flow.close(rcv_nxt, &mut cx);
                self.forget(slot, before);
                self.counters.closed += 1;
                return;
            }
        };
        grants.extend(flow.grant(frame.socket));
        if matches!(frame.event, Event::Segment(Segment { whole: true, .. })) {
            grants.extend(flow.grant_response(frame.socket));
        }
        let class = class_of(&flow.conversation);
        let after = flow.weight();
        self.held = self.held.saturating_sub(before) + after;
        if over {
            self.end(slot, frame.at, out);
            self.counters.closed += 1;
            return;
        }
        self.table.touch(slot, class, frame.at);
        if after > before && self.held > self.limits.max_buffered_total {
            self.make_room_for_bytes(frame, out);
        }
    }

    /// Lets time pass: ends connections that were idle too long and tells the impatient. Looks only at the oldest, so
    /// it may be called as often as one likes.
    pub fn expire(&mut self, now: Time, out: &mut C::Out) {
        for class in [Class::Fresh, Class::Proven] {
            while let Some((slot, touched)) = self.table.oldest(class) {
                if now.since(touched) < self.limits.idle_timeout {
                    break;
                }
                self.end(slot, now, out);
                self.counters.expired += 1;
            }
        }
        let patience = C::patience(out);
        while let Some((slot, touched)) = self.table.oldest(Class::Waiting) {
            if now.since(touched) < patience {
                break;
            }
            self.tick(slot, now, out);
        }
    }

    /// Ends every connection, oldest first.
    pub fn finish(&mut self, now: Time, out: &mut C::Out) {
        for class in [Class::Waiting, Class::Proven, Class::Fresh] {
            while let Some((slot, _)) = self.table.oldest(class) {
                self.end(slot, now, out);
                self.counters.closed += 1;
            }
        }
    }

    fn begin(&mut self, frame: &Frame<'_>, out: &mut C::Out) -> u32 {
        while self.table.len() >= (self.limits.max_flows as usize).max(1) {
            let oldest = |class| self.table.oldest(class).map(|(slot, _)| slot);
            let Some(slot) = Class::ALL.into_iter().find_map(oldest) else { break };
            self.end(slot, frame.at, out);
            self.counters.evicted_flows += 1;
        }
        self.counters.opened += 1;
        self.table.insert(frame.socket, frame.at, Flow::new(frame.endpoints, frame.origin))
    }

    /// Evicts the oldest that hold bytes, those that never produced anything first. If none is found among the oldest,
    /// the connection at hand must go: the bound is a bound.
    fn make_room_for_bytes(&mut self, frame: &Frame<'_>, out: &mut C::Out) {
        for _ in 0..MAX_EVICTED_AT_ONCE {
            if self.held <= self.limits.max_buffered_total {
                return;
            }
            let holds = |(id, flow): (SocketId, &Flow<C>)| id != frame.socket && flow.weight() > 0;
            let among = |class| self.table.find_oldest(class, MAX_LOOKED_AT, holds);
            let oldest = Class::ALL.into_iter().find_map(among);
            let Some(slot) = oldest.or_else(|| self.table.find(frame.socket)) else { return };
            self.end(slot, frame.at, out);
            self.counters.evicted_bytes += 1;
        }
    }

    fn end(&mut self, slot: u32, now: Time, out: &mut C::Out) {
        let Some(id) = self.table.id(slot) else { return };
        let Some(flow) = self.table.at(slot) else { return };
        let before = flow.weight();
        let Self { limits, counters, spare, .. } = self;
        flow.close(None, &mut Context { id, now, limits, counters, spare, out });
        self.forget(slot, before);
    }

    fn tick(&mut self, slot: u32, now: Time, out: &mut C::Out) {
        let Some(id) = self.table.id(slot) else { return };
        let Some(flow) = self.table.at(slot) else { return };
        let before = flow.weight();
        let Self { limits, counters, spare, .. } = self;
        flow.tick(&mut Context { id, now, limits, counters, spare, out });
        // What waited in vain was handed on, and weighs nothing here any more.
        self.held = self.held.saturating_sub(before) + flow.weight();
        // A conversation that goes on waiting is asked again after another round of patience.
        let class = class_of(&flow.conversation);
        self.table.touch(slot, class, now);
    }

    fn forget(&mut self, slot: u32, weight: usize) {
        self.table.remove(slot);
        self.held = self.held.saturating_sub(weight);
    }
}

/// Acknowledgements and ends of unknown connections are not worth an entry.
fn begins_flow(event: &Event<'_>) -> bool {
    match event {
        Event::Open { .. } => true,
        Event::Segment(segment) => segment.wire_len > 0 && !segment.rst,
        Event::Close { .. } => false,
    }
}

fn class_of<C: Conversation>(conversation: &C) -> Class {
    if conversation.waiting() {
        Class::Waiting
    } else if conversation.productive() {
        Class::Proven
    } else {
        Class::Fresh
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capture::{Endpoints, Origin, Segment, Side};
    use crate::reassembly::{Chunk, View};

    /// Remembers what it was told; productive once it has seen a `!`.
    #[derive(Debug, Default)]
    struct Notes {
        productive: bool,
    }

    impl Conversation for Notes {
        type Out = Vec<String>;

        fn bytes(&mut self, view: View<'_>, chunk: Chunk<'_>, out: &mut Vec<String>) {
            self.productive |= chunk.data.contains(&b'!');
            let start = if chunk.starts_segment { "^" } else { "" };
            out.push(format!(
                "{} {:?} {start}{}",
                view.socket.0,
                chunk.side,
                String::from_utf8_lossy(chunk.data)
            ));
        }

        fn gap(&mut self, view: View<'_>, side: Side, _at: Time, len: u64, out: &mut Vec<String>) {
            out.push(format!("{} {side:?} gap {len}", view.socket.0));
        }

        fn conflict(&mut self, view: View<'_>, _at: Time, out: &mut Vec<String>) {
            out.push(format!("{} conflict", view.socket.0));
        }

        fn tick(&mut self, _view: View<'_>, _now: Time, _out: &mut Vec<String>) {}

        fn close(&mut self, view: View<'_>, _at: Time, out: &mut Vec<String>) {
            out.push(format!("{} close", view.socket.0));
        }

        fn skippable_response(&self) -> u64 {
            0
        }

        fn skippable(&self) -> Option<u64> {
            Some(0)
        }

        fn waiting(&self) -> bool {
            false
        }

        fn productive(&self) -> bool {
            self.productive
        }

        fn weight(&self) -> usize {
            0
        }

        fn patience(_out: &Vec<String>) -> Duration {
            Duration::from_secs(30)
        }
    }

    struct Bench {
        flows: Flows<Notes>,
        out: Vec<String>,
        grants: Vec<Grant>,
        now: Time,
    }

    impl Bench {
        fn new(limits: FlowLimits) -> Self {
            Self {
                flows: Flows::new(limits),
                out: Vec::new(),
                grants: Vec::new(),
                now: Time::from_secs(1000),
            }
        }

        fn push(&mut self, socket: u64, event: Event<'_>) {
            let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
            let endpoints = Endpoints { client: nowhere, server: nowhere };
            let (at, socket) = (self.now, SocketId(socket));
            let frame = Frame { at, socket, endpoints, origin: Origin::default(), event };
            self.flows.push(&frame, &mut self.out, &mut self.grants);
        }

        fn told(&mut self) -> Vec<String> {
            std::mem::take(&mut self.out)
        }
    }

    fn segment(side: Side, seq: u32, payload: &[u8]) -> Segment<'_> {
        Segment {
            side,
            seq,
            ack: None,
            rcv_nxt: None,
            wire_len: u32::try_from(payload.len()).unwrap(),
            payload,
            whole: false,
            in_order: false,
            fin: false,
            rst: false,
        }
    }

    fn request(seq: u32, payload: &[u8]) -> Event<'_> {
        Event::Segment(segment(Side::Request, seq, payload))
    }

    fn ack(ack: u32) -> Event<'static> {
        Event::Segment(Segment { ack: Some(ack), ..segment(Side::Response, 500, b"") })
    }

    #[test]
    fn bytes_pass_once_they_are_acknowledged_and_holes_are_exact() {
        let mut bench = Bench::new(FlowLimits::default());
        bench.push(1, Event::Open { first_seq: 100 });
        bench.push(1, request(104, b"efgh"));
        bench.push(1, request(100, b"ab"));
        assert!(bench.told().is_empty());
        bench.push(1, ack(106));
        assert_eq!(bench.told(), ["1 Request ^ab", "1 Request gap 2", "1 Request ^ef"]);
        bench.push(1, ack(108));
        bench.push(1, request(102, b"cd"));
        bench.push(1, ack(108));
        assert_eq!(bench.told(), ["1 Request gh"], "what was given up comes no more");
    }

    #[test]
    fn an_accepted_position_of_the_kernel_is_proof() {
        let mut bench = Bench::new(FlowLimits::default());
        bench.push(1, Event::Segment(Segment { rcv_nxt: Some(100), ..segment(Side::Request, 100, b"ab") }));
        bench.push(1, Event::Segment(Segment { rcv_nxt: Some(102), ..segment(Side::Request, 102, b"cd") }));
        assert_eq!(bench.told(), ["1 Request ^ab"]);
        bench.push(1, Event::Close { rcv_nxt: Some(105) });
        assert_eq!(bench.told(), ["1 Request ^cd", "1 close"], "the FIN takes a number but is no byte");
    }

    #[test]
    fn what_was_captured_in_part_ends_in_a_gap() {
        let mut bench = Bench::new(FlowLimits::default());
        let cut = Segment { wire_len: 1000, ..segment(Side::Response, 500, b"HTTP") };
        bench.push(1, Event::Segment(cut));
        assert_eq!(bench.told(), ["1 Response ^HTTP", "1 Response gap 996"]);
        bench.push(1, request(100, b"ab"));
        bench.push(1, Event::Segment(Segment { wire_len: 10, ..segment(Side::Request, 102, b"cd") }));
        bench.push(1, ack(112));
        assert_eq!(bench.told(), ["1 Request ^ab", "1 Request ^cd", "1 Request gap 8"]);
    }

    #[test]
    fn responses_wait_for_holes_only_where_order_is_not_promised() {
        for in_order in [false, true] {
            let mut bench = Bench::new(FlowLimits::default());
            let response =
                |seq, payload| Event::Segment(Segment { in_order, ..segment(Side::Response, seq, payload) });
            bench.push(1, response(500, b"ab"));
            bench.push(1, response(504, b"ef"));
            bench.push(1, response(502, b"cd"));
            let told = bench.told();
            if in_order {
                assert_eq!(told, ["1 Response ^ab", "1 Response gap 2", "1 Response ^ef"]);
            } else {
                assert_eq!(told, ["1 Response ^ab", "1 Response ^cd", "1 Response ^ef"]);
            }
        }
    }

    #[test]
    fn a_long_turn_renews_the_credit_of_its_source() {
        let mut bench = Bench::new(FlowLimits::default());
        let mut grants = 0;
        for n in 0..200 {
            bench.push(1, request(n * 1000, &[b'x'; 1000]));
            bench.push(1, ack((n + 1) * 1000));
            grants += std::mem::take(&mut bench.grants).len();
        }
        assert_eq!(grants, 3, "one every 64 KiB of 200,000 bytes");
        for n in 200..400 {
            bench.push(1, request(n * 1000, &[b'x'; 1000]));
            let answer = Segment { ack: Some((n + 1) * 1000), ..segment(Side::Response, 500 + n, b"y") };
            bench.push(1, Event::Segment(answer));
        }
        assert!(bench.grants.is_empty(), "the server's turns renew it as well");
    }

    #[test]
    fn a_reset_counts_only_with_the_exact_number() {
        let mut bench = Bench::new(FlowLimits::default());
        bench.push(1, request(100, b"ab"));
        let reset = |seq| Event::Segment(Segment { rst: true, ..segment(Side::Request, seq, b"") });
        bench.push(1, reset(101));
        bench.push(1, reset(5000));
        assert_eq!((bench.flows.len(), bench.flows.counters().ignored_resets), (1, 2));
        bench.push(1, reset(102));
        assert_eq!(bench.flows.len(), 0);
        assert_eq!(bench.told(), ["1 Request ^ab", "1 close"]);
    }

    #[test]
    fn a_forged_acknowledgement_does_not_blind_the_other_direction() {
        let mut bench = Bench::new(FlowLimits::default());
        let in_order = |seq, payload| {
            Event::Segment(Segment { in_order: true, ..segment(Side::Response, seq, payload) })
        };
        bench.push(1, in_order(500, b"x"));
        let decoy = Segment { ack: Some(900_000), ..segment(Side::Request, 100, b"ab") };
        let real = Segment { ack: Some(501), ..segment(Side::Request, 100, b"ab") };
        bench.push(1, Event::Segment(decoy));
        bench.push(1, Event::Segment(real));
        bench.push(1, ack(102));
        bench.push(1, in_order(501, b"y"));
        assert_eq!(bench.told(), ["1 Response ^x", "1 Request ^ab", "1 Response ^y"]);
    }

    #[test]
    fn one_direction_alone_is_read_when_it_ends_or_grows_too_large() {
        let limits = FlowLimits { max_buffered_bytes_per_flow: 1000, ..FlowLimits::default() };
        let mut bench = Bench::new(limits);
        bench.push(1, request(100, &[b'a'; 800]));
        bench.push(1, request(900, &[b'b'; 800]));
        assert_eq!(bench.told().len(), 1);
        bench.flows.finish(bench.now, &mut bench.out);
        assert_eq!(bench.told().len(), 2);
        assert_eq!(bench.flows.counters().assumed_bytes, 1600);
    }

    #[test]
    fn the_idle_are_forgotten_and_the_busy_stay() {
        let mut bench = Bench::new(FlowLimits::default());
        bench.push(1, Event::Open { first_seq: 1 });
        bench.push(2, Event::Open { first_seq: 1 });
        bench.now = Time::from_secs(1200);
        bench.push(2, request(1, b"x"));
        bench.now = Time::from_secs(1301);
        bench.flows.expire(bench.now, &mut bench.out);
        assert_eq!(bench.flows.len(), 1);
        assert_eq!(bench.told(), ["1 close"]);
    }

    #[test]
    fn a_flood_of_handshakes_evicts_handshakes() {
        let mut bench = Bench::new(FlowLimits { max_flows: 100, ..FlowLimits::default() });
        bench.push(1, request(1, b"!"));
        bench.push(1, ack(2));
        for n in 2..10_000 {
            bench.now = Time(bench.now.0 + 1_000_000_000);
            bench.push(n, Event::Open { first_seq: 1 });
        }
        assert_eq!(bench.flows.len(), 100);
        assert_eq!(bench.flows.counters().evicted_flows, 9_899);
        assert!(bench.flows.table.find(SocketId(1)).is_some());
    }

    #[test]
    fn held_bytes_are_bounded_and_the_unproven_pay_for_it() {
        let limits = FlowLimits { max_buffered_total: 100_000, ..FlowLimits::default() };
        let mut bench = Bench::new(limits);
        bench.push(1, request(1, b"!"));
        bench.push(1, ack(2));
        bench.push(1, request(2, b"half a head"));
        for n in 2..1000 {
            bench.push(n, request(1, &[b'x'; 1000]));
        }
        assert!(bench.flows.held_bytes() <= 100_000);
        bench.told();
        bench.push(1, ack(13));
        assert_eq!(bench.told(), ["1 Request ^half a head"]);
    }

    #[test]
    fn unknown_connections_cost_nothing_without_bytes() {
        let mut bench = Bench::new(FlowLimits::default());
        for n in 0..100 {
            bench.push(n, ack(5));
            bench.push(n, Event::Close { rcv_nxt: None });
        }
        assert!(bench.flows.is_empty());
    }

    #[test]
    fn an_idle_connection_is_small() {
        // A million of them must fit into some 250 MB, and the conversation takes up to 80 of it.
        assert!(size_of::<Flow<[u8; 80]>>() <= 248, "{}", size_of::<Flow<[u8; 80]>>());
    }
}
