//! All connections: who is known, who is forgotten, and who must go when there are too many.

use super::held::Spare;
use super::seq::Seq;
use super::stream::{Context, Flow};
use super::table::{Class, Table};
use super::{Conversation, FlowCounters, FlowLimits};
use crate::capture::{Event, Frame, Grant, SocketId, Time};

/// Most connections evicted for one frame to make room for bytes, so that one frame's cost stays bounded.
const MAX_EVICTED_AT_ONCE: usize = 16;

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
            flow.origin = frame.origin;
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
            let Some(slot) = self.victim(None) else { break };
            self.end(slot, frame.at, out);
            self.counters.evicted_flows += 1;
        }
        self.counters.opened += 1;
        self.table.insert(frame.socket, frame.at, Flow::new(frame.endpoints, frame.origin))
    }

    /// Evicts the oldest, those that never produced anything first; the connection at hand stays.
    fn make_room_for_bytes(&mut self, frame: &Frame<'_>, out: &mut C::Out) {
        for _ in 0..MAX_EVICTED_AT_ONCE {
            if self.held <= self.limits.max_buffered_total {
                return;
            }
            let Some(slot) = self.victim(Some(frame.socket)) else { return };
            self.end(slot, frame.at, out);
            self.counters.evicted_bytes += 1;
        }
    }

    fn victim(&self, spared: Option<SocketId>) -> Option<u32> {
        let oldest = |class| self.table.oldest(class).map(|(slot, _)| slot);
        Class::ALL
            .into_iter()
            .filter_map(oldest)
            .find(|slot| spared.is_none() || self.table.id(*slot) != spared)
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
        let Self { limits, counters, spare, .. } = self;
        flow.tick(&mut Context { id, now, limits, counters, spare, out });
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
