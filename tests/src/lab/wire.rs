//! From calls to packets: connections that are kept alive, reused and closed, frames in the order of time, a pcap
//! stream without end. Nothing is kept but what is still under way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::script::{Shot, Trick};
use super::{MS, S};
use crate::capture::{Conversation, Segment, file_header, record_header};

/// Clients close connections that were idle for so long; below what servers commonly allow (60 to 75 s).
const IDLE: u64 = 50 * S;
/// How often idle connections are looked for.
const SWEEP: u64 = 30 * S;
/// Connections that one peer opens to one service at most; a proxy's pool.
const MAX_TALKS: usize = 256;

struct Talk {
    conversation: Conversation,
    lane: u32,
    free_at: u64,
}

/// When a frame is due, its number, its bytes.
type Due = (u64, u64, Box<[u8]>);

/// The stream.
pub struct Wire<W> {
    out: W,
    frames: BinaryHeap<Reverse<Due>>,
    talks: BTreeMap<(IpAddr, SocketAddr), Vec<Talk>>,
    serial: u64,
    opened: u64,
    swept: u64,
}

impl<W: Write> Wire<W> {
    /// A stream that begins with the file's header.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn new(mut out: W) -> Result<Self> {
        out.write_all(&file_header())?;
        Ok(Self { out, frames: BinaryHeap::new(), talks: BTreeMap::new(), serial: 0, opened: 0, swept: 0 })
    }

    /// Plays one exchange. Shots come in the order of time.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn play(&mut self, shot: &Shot) -> Result<()> {
        self.advance(shot.at)?;
        let key = (shot.peer, shot.server);
        let mut talks = self.talks.remove(&key).unwrap_or_default();
        let free = |t: &Talk| t.lane == shot.lane && t.free_at <= shot.at;
        let at = talks.iter().position(free).filter(|_| !shot.alone);
        let mut talk = match at {
            Some(at) => talks.swap_remove(at),
            None => self.open(shot),
        };
        let done = self.converse(&mut talk, shot);
        talk.free_at = done + MS;
        if shot.alone || shot.trick == Trick::NoAnswer || talks.len() >= MAX_TALKS {
            self.close(&mut talk.conversation, done + MS);
        } else {
            talks.push(talk);
        }
        if !talks.is_empty() {
            self.talks.insert(key, talks);
        }
        Ok(())
    }

    /// Closes everything and writes what is left.
    ///
    /// # Errors
    /// When nobody takes the bytes.
    pub fn finish(mut self) -> Result<()> {
        for mut talk in std::mem::take(&mut self.talks).into_values().flatten() {
            let at = talk.free_at + S;
            self.close(&mut talk.conversation, at);
        }
        self.write_until(u64::MAX)?;
        Ok(self.out.flush()?)
    }

    fn open(&mut self, shot: &Shot) -> Talk {
        self.opened += 1;
        let port = 20_000 + (self.opened % 40_000) as u16;
        let isn = (self.opened as u32).wrapping_mul(0x9e37_79b9);
        let client = SocketAddr::new(shot.peer, port);
        let mut conversation = Conversation::open_at(client, shot.server, isn, !isn);
        self.send(&mut conversation, shot.at);
        Talk { conversation, lane: shot.lane, free_at: shot.at }
    }

    /// Request, response and the client's acknowledgement; when the last byte was on the wire.
    fn converse(&mut self, talk: &mut Talk, shot: &Shot) -> u64 {
        let conversation = &mut talk.conversation;
        let begin = shot.at + MS / 5;
        conversation.request(&shot.request);
        // The answer acknowledges the request: a server that answers quickly sends no ACK of its own.
        conversation.segments.pop();
        match shot.trick {
            Trick::Lost => cut_and_lose(&mut conversation.segments),
            Trick::Conflict => contradict(&mut conversation.segments),
            Trick::None | Trick::NoAnswer => {}
        }
        self.send(conversation, begin);
        let answered = begin + shot.latency;
        if shot.trick != Trick::NoAnswer {
            conversation.response(&shot.response);
            self.send(conversation, answered);
        }
        answered
    }

    fn close(&mut self, conversation: &mut Conversation, at: u64) {
        conversation.close();
        self.send(conversation, at);
    }

    /// Takes what a conversation has said since the last time.
    fn send(&mut self, conversation: &mut Conversation, at: u64) {
        let mut at = at;
        for segment in std::mem::take(&mut conversation.segments) {
            at += 20_000;
            let mut frame = Vec::with_capacity(54 + segment.payload.len());
            conversation.frame(&segment, &mut frame);
            self.serial += 1;
            self.frames.push(Reverse((at, self.serial, frame.into_boxed_slice())));
        }
    }

    fn advance(&mut self, now: u64) -> Result<()> {
        if now >= self.swept + SWEEP {
            self.swept = now;
            let mut idle = Vec::new();
            for talks in self.talks.values_mut() {
                idle.extend(talks.extract_if(.., |t| t.free_at + IDLE < now));
            }
            self.talks.retain(|_, talks| !talks.is_empty());
            for mut talk in idle {
                self.close(&mut talk.conversation, now - MS);
            }
        }
        self.write_until(now)
    }

    fn write_until(&mut self, now: u64) -> Result<()> {
        while self.frames.peek().is_some_and(|Reverse((at, ..))| *at < now) {
            let Some(Reverse((at, _, frame))) = self.frames.pop() else { break };
            self.out.write_all(&record_header(at, frame.len()))?;
            self.out.write_all(&frame)?;
        }
        Ok(())
    }
}

/// The second half of the first segment never reaches the capture.
fn cut_and_lose(segments: &mut [Segment]) {
    if let Some(segment) = segments.first_mut() {
        segment.payload.truncate(segment.payload.len() / 2);
    }
}

/// A second copy of the first segment that says something else.
fn contradict(segments: &mut Vec<Segment>) {
    let Some(first) = segments.first() else { return };
    let mut copy = first.clone();
    for byte in copy.payload.iter_mut().skip(5).take(12).filter(|b| b.is_ascii_lowercase()) {
        *byte = b'z';
    }
    segments.insert(1, copy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Service;
    use crate::lab::machines::internal;
    use crate::lab::script::{Answer, Call, Script};

    /// Times and frames of a file.
    fn frames(mut file: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        file = &file[24..];
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let (at, length) = (u64::from(word(0)) * S + u64::from(word(4)), word(8) as usize);
            all.push((at, file[16..16 + length].to_vec()));
            file = &file[16 + length..];
        }
        all
    }

    fn play(script: &Script) -> Vec<(u64, Vec<u8>)> {
        let mut file = Vec::new();
        let mut wire = Wire::new(&mut file).unwrap();
        for shot in &script.shots {
            wire.play(shot).unwrap();
        }
        wire.finish().unwrap();
        frames(&file)
    }

    fn calls(gaps_s: &[u64], latency_ms: u64) -> Script {
        let mut script = Script::benign();
        let mut at = 1_000 * S;
        for gap in gaps_s {
            at += gap * S;
            let caller = internal([10, 0, 7, 1], "t/1");
            script.call(at, &caller, Service::Orders, Call::get("/"), &Answer::of(200, latency_ms));
        }
        script
    }

    fn count(frames: &[(u64, Vec<u8>)], flags: u8) -> usize {
        frames.iter().filter(|(_, frame)| frame[47] == flags).count()
    }

    #[test]
    fn frames_come_in_the_order_of_time() {
        let frames = play(&calls(&[0, 1, 1, 1, 200], 2_500));
        assert!(frames.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn a_connection_is_kept_while_it_is_free_and_closed_when_it_was_idle() {
        use crate::capture::{ACK, FIN, SYN};
        let frames = play(&calls(&[0, 10, 10, 200], 20));
        assert_eq!(count(&frames, SYN), 2, "the fourth call comes too late for the first connection");
        assert_eq!(count(&frames, FIN | ACK), 4);
        assert_eq!(
            count(&play(&calls(&[0, 1, 1], 5_000)), SYN),
            3,
            "none is free while it waits for an answer"
        );
    }

    #[test]
    fn what_is_lost_is_acknowledged_all_the_same() {
        let mut script = calls(&[0], 20);
        let whole = play(&script).len();
        script.trick(Trick::Lost);
        assert_eq!(play(&script).len(), whole);
        let halved = play(&script).iter().map(|(_, f)| f.len()).sum::<usize>();
        script.trick(Trick::None);
        assert!(halved < play(&script).iter().map(|(_, f)| f.len()).sum());
    }
}
