//! Bytes that were seen but not yet known to be accepted by the receiver.
//!
//! Pieces are kept sorted and without overlap. The first copy of a byte wins, as in Linux' receive queue; a copy
//! that differs is reported, because whoever sends two versions of one range wants two parties to read two
//! requests. The first copy loses only where the server has shown that it refused it (see [`NewBytes::refused`]).

use std::collections::VecDeque;

use super::seq::Seq;
use crate::capture::Time;

/// Most pieces held for one direction: a receiver acknowledges at least every second segment (RFC 9293 section
/// 3.8.6.3), so even a window of 1-byte segments stays far below. Insertion cost is linear in this.
pub(super) const MAX_PIECES: usize = 1024;

/// Buffers that grew beyond this are not kept for reuse: one long head must not weigh for ever.
const KEEP_BYTES: usize = 16 * 1024;

/// A contiguous run of held bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Position of the first byte.
    pub(super) seq: Seq,
    /// How many bytes; never 0.
    pub(super) len: u32,
    /// Where they lie in the arena. Invariant: `data_at + len <= data.len()`.
    data_at: u32,
    /// What the segment acknowledged of the other direction.
    pub(super) ack: Option<Seq>,
    /// When the segment was seen.
    pub(super) at: Time,
    /// Whether these bytes began a segment.
    pub(super) starts_segment: bool,
    /// Whether the server could have accepted the segment at once, so that not accepting it means refusing it.
    in_order: bool,
}

/// A segment's bytes on their way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewBytes<'a> {
    /// Position of the first byte; not before the base.
    pub(super) seq: Seq,
    /// The bytes; not empty.
    pub(super) bytes: &'a [u8],
    /// When they were seen.
    pub(super) at: Time,
    /// What the segment acknowledged.
    pub(super) ack: Option<Seq>,
    /// What the server had accepted when the segment was seen, if the source knows.
    pub(super) rcv_nxt: Option<Seq>,
    /// Whether `bytes` is where the segment starts, and not what was left after trimming.
    pub(super) starts_segment: bool,
}

impl NewBytes<'_> {
    /// Whether the server refused `held`: it was next in order when it came, and when this copy came it still was.
    fn refused(&self, held: &Piece) -> bool {
        held.in_order && self.rcv_nxt.is_some_and(|accepted| !held.seq.before(accepted))
    }
}

/// What became of new bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inserted {
    /// Some byte differs from a copy that was held.
    pub(super) conflict: bool,
    /// Some bytes found no room.
    pub(super) refused: bool,
}

/// The bytes held for one direction.
#[derive(Debug, Default)]
pub(super) struct Held {
    data: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// Sum of the pieces' lengths.
    live: usize,
}

impl Held {
    /// Bytes held, and what it costs to know of them.
    pub(super) fn weight(&self) -> usize {
        self.live + self.pieces.len() * size_of::<Piece>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn front(&self) -> Option<Piece> {
        self.pieces.front().copied()
    }

    /// The end of the last piece.
    pub(super) fn end(&self) -> Option<Seq> {
        self.pieces.back().map(|p| p.seq.plus(p.len))
    }

    /// The end of what is contiguous from `base`.
    pub(super) fn contiguous_end(&self, base: Seq) -> Seq {
        let mut end = base;
        for piece in &self.pieces {
            if piece.seq != end {
                break;
            }
            end = end.plus(piece.len);
        }
        end
    }

    /// The first `len` bytes of a piece.
    pub(super) fn bytes(&self, piece: &Piece, len: u32) -> &[u8] {
        let from = piece.data_at as usize;
        self.data.get(from..from + len.min(piece.len) as usize).unwrap_or_default()
    }

    /// Forgets the first `len` bytes of the front piece.
    pub(super) fn consume(&mut self, len: u32) {
        let Some(front) = self.pieces.front_mut() else { return };
        let len = len.min(front.len);
        front.seq = front.seq.plus(len);
        front.data_at += len;
        front.len -= len;
        front.starts_segment = false;
        self.live -= len as usize;
        if front.len == 0 {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.data.clear();
        }
    }

    /// Takes in what is new of a segment. `base` is the first position that is still wanted; weight stays at most
    /// `max_weight`.
    pub(super) fn insert(&mut self, base: Seq, new: &NewBytes<'_>, max_weight: usize) -> Inserted {
        let offset = |seq: Seq| seq.since(base).unwrap_or(0);
        let start = offset(new.seq);
        let end = start.saturating_add(u32::try_from(new.bytes.len()).unwrap_or(u32::MAX));
        let mut result = Inserted::default();
        let mut at = start;
        let mut index = match self.pieces.back() {
            Some(last) if offset(last.seq) + last.len > start => {
                self.pieces.partition_point(|p| offset(p.seq) + p.len <= start)
            }
            _ => self.pieces.len(),
        };
        while at < end {
            let part = new.bytes.get((at - start) as usize..).unwrap_or_default();
            match self.pieces.get(index).map(|p| (offset(p.seq), p.len)) {
                Some((piece_at, len)) if piece_at <= at => {
                    let overlap = (piece_at + len).min(end) - at;
                    result.conflict |= self.compare(index, at - piece_at, part, overlap, new);
                    at += overlap;
                }
                next => {
                    let stop = next.map_or(end, |(piece_at, _)| piece_at.min(end));
                    let part = part.get(..(stop - at) as usize).unwrap_or_default();
                    if !self.place(index, base.plus(at), part, at == start, new, max_weight) {
                        result.refused = true;
                        break;
                    }
                    at = stop;
                }
            }
            index += 1;
        }
        result
    }

    /// Compares a copy with what is held, and replaces what the server refused. Says whether they differ.
    fn compare(&mut self, index: usize, skip: u32, copy: &[u8], len: u32, new: &NewBytes<'_>) -> bool {
        let Some(piece) = self.pieces.get_mut(index) else { return false };
        // A forged acknowledgement makes the server refuse the copy that carries it; an honest retransmission never
        // acknowledges less. So the lower one is the one to believe.
        piece.ack = match (piece.ack, new.ack) {
            (Some(a), Some(b)) => Some(a.earlier(b)),
            (a, b) => a.and(b),
        };
        let from = (piece.data_at + skip) as usize;
        let held = self.data.get_mut(from..from + len as usize).unwrap_or_default();
        let copy = copy.get(..len as usize).unwrap_or_default();
        if held == copy {
            return false;
        }
        if held.len() == copy.len() && new.refused(piece) {
            held.copy_from_slice(copy);
        }
        true
    }

    fn place(
        &mut self,
        index: usize,
        seq: Seq,
        bytes: &[u8],
        first: bool,
        new: &NewBytes<'_>,
        max_weight: usize,
    ) -> bool {
        if self.pieces.len() >= MAX_PIECES || self.weight() + bytes.len() > max_weight {
            return false;
        }
        self.compact();
        let (Ok(len), Ok(data_at)) = (u32::try_from(bytes.len()), u32::try_from(self.data.len())) else {
            return false;
        };
        self.data.extend_from_slice(bytes);
        self.live += bytes.len();
        let piece = Piece {
            seq,
            len,
            data_at,
            ack: new.ack,
            at: new.at,
            starts_segment: first && new.starts_segment,
            in_order: new.rcv_nxt.is_some_and(|accepted| !accepted.before(new.seq)),
        };
        self.pieces.insert(index, piece);
        true
    }

    /// Moves live bytes together when more than half of a large arena is dead: amortised, each byte moves once per
    /// byte that died.
    fn compact(&mut self) {
        if self.data.len() < KEEP_BYTES || self.data.len() < 2 * self.live {
            return;
        }
        let mut packed = Vec::with_capacity(self.live + self.live / 2);
        for piece in &mut self.pieces {
            let from = piece.data_at as usize;
            let bytes = self.data.get(from..from + piece.len as usize).unwrap_or_default();
            piece.data_at = u32::try_from(packed.len()).unwrap_or(u32::MAX);
            packed.extend_from_slice(bytes);
        }
        self.data = packed;
    }

    /// Empties it for another flow.
    fn reset(&mut self) {
        self.pieces.clear();
        self.data.clear();
        self.live = 0;
        self.data.shrink_to(KEEP_BYTES);
        self.pieces.shrink_to(MAX_PIECES / 8);
    }
}

/// Empty buffers waiting for the next flow that must hold something.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "flows own what they hold by box; the box is what is reused")]
pub(super) struct Spare(Vec<Box<Held>>);

impl Spare {
    /// Enough for every flow that holds bytes at one moment on a busy host; 4 MiB when each is full.
    const MAX: usize = 256;

    #[expect(clippy::unnecessary_box_returns, reason = "the box is what is reused")]
    pub(super) fn take(&mut self) -> Box<Held> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut held: Box<Held>) {
        if self.0.len() < Self::MAX {
            held.reset();
            self.0.push(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(seq: u32, bytes: &[u8]) -> NewBytes<'_> {
        NewBytes { seq: Seq(seq), bytes, at: Time(0), ack: None, rcv_nxt: None, starts_segment: true }
    }

    fn contents(held: &Held) -> Vec<(u32, Vec<u8>)> {
        held.pieces.iter().map(|p| (p.seq.0, held.bytes(p, p.len).to_vec())).collect()
    }

    #[test]
    fn fills_holes_between_pieces() {
        let mut held = Held::default();
        held.insert(Seq(0), &new(2, b"cd"), 1 << 20);
        held.insert(Seq(0), &new(6, b"gh"), 1 << 20);
        let inserted = held.insert(Seq(0), &new(0, b"abcdefghij"), 1 << 20);
        assert_eq!(inserted, Inserted::default());
        let all: Vec<u8> = contents(&held).into_iter().flat_map(|(_, b)| b).collect();
        assert_eq!(all, b"abcdefghij");
        assert_eq!(held.contiguous_end(Seq(0)), Seq(10));
    }

    #[test]
    fn keeps_the_first_copy_and_reports_the_second() {
        let mut held = Held::default();
        held.insert(Seq(0), &new(0, b"real"), 1 << 20);
        assert!(held.insert(Seq(0), &new(2, b"XX!"), 1 << 20).conflict);
        assert_eq!(contents(&held), [(0, b"real".to_vec()), (4, b"!".to_vec())]);
    }

    #[test]
    fn replaces_a_copy_that_the_server_refused() {
        let mut held = Held::default();
        let accepted = Some(Seq(0));
        held.insert(Seq(0), &NewBytes { rcv_nxt: accepted, ..new(0, b"fake") }, 1 << 20);
        assert!(held.insert(Seq(0), &NewBytes { rcv_nxt: accepted, ..new(0, b"real") }, 1 << 20).conflict);
        assert_eq!(contents(&held), [(0, b"real".to_vec())]);
    }

    #[test]
    fn a_full_buffer_refuses_and_says_so() {
        let mut held = Held::default();
        assert!(held.insert(Seq(0), &new(0, &[0; 100]), 64).refused);
        assert!(held.is_empty());
    }

    #[test]
    fn crosses_the_wrap() {
        let mut held = Held::default();
        let base = u32::MAX - 1;
        held.insert(Seq(base), &new(base.wrapping_add(4), b"ef"), 1 << 20);
        held.insert(Seq(base), &new(base, b"abcd"), 1 << 20);
        assert_eq!(held.contiguous_end(Seq(base)), Seq(base).plus(6));
    }

    #[test]
    fn dead_bytes_are_given_back() {
        let mut held = Held::default();
        for round in 0..10_000_u32 {
            held.insert(Seq(0), &new(round * 64 + 64, &[1; 64]), 1 << 20);
            if round > 0 {
                held.consume(64);
            }
        }
        assert!(held.data.len() <= 2 * KEEP_BYTES, "{}", held.data.len());
    }
}
