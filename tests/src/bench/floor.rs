//! The offline floor: the least that anybody does who reads tokens off a capture of HTTP.
//!
//! It walks a pcap file, takes the bytes of each direction of each IPv4 connection as they come, lets httparse find the
//! heads, skips bodies by their `Content-Length` and looks every bearer token up in a hash map. What a real sensor does
//! beyond it is absent on purpose: segments out of order, repeated or lost, IPv6, VLANs, connections without their
//! handshake, chunked bodies, pairing of requests with answers, verification, rules. It reads our own generated
//! captures, and counts what it could not read so that nobody takes a count for whole that is not.
//!
//! The careful floor does what no sensor of tokens can leave out, and still no more: a segment whose checksum is wrong is
//! nobody's, a token is known by a hash that its bearer cannot aim at and not by its text, and what was answered is told of the
//! token that was sent. It has no rules and no history but three numbers a token.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::fast::RandomState;
use httparse::{Header, ParserConfig, Request, Response, Status};
use serde_json::{Value, json};

/// Bytes read at a time, as many as the sensor's `replay` reads.
const CHUNK: usize = 128 * 1024;
/// Fields of a head that are looked at; generated ones have five.
const FIELDS: usize = 32;
/// Longest head that is waited for: above what servers accept.
const MAX_HEAD: usize = 64 * 1024;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floor {
    /// Tokens are looked up by their texts.
    #[default]
    Trivial,
    /// Every token's claims are read as well, not only looked up.
    Decoding,
    /// Checksums are checked, tokens are looked up by a keyed hash, answers are told of their requests' tokens.
    Careful,
}

impl Floor {
    /// How `lab floor` is asked for it.
    #[must_use]
    pub const fn option(self) -> Option<&'static str> {
        match self {
            Self::Trivial => None,
            Self::Decoding => Some("--decode"),
            Self::Careful => Some("--careful"),
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Heads of requests.
    pub requests: u64,
    /// Heads of answers.
    pub responses: u64,
    /// Requests with a bearer token.
    pub bearers: u64,
    /// Distinct tokens.
    pub tokens: u64,
    /// Tokens, repeated ones included, whose claims were read.
    pub decoded: u64,
    /// Answers that were told of a token.
    pub paired: u64,
    /// Frames and heads that could not be read.
    pub unread: u64,
}

impl Counts {
    /// As `lab floor` prints them.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests, "responses": self.responses, "bearers": self.bearers,
            "tokens": self.tokens, "decoded": self.decoded, "paired": self.paired, "unread": self.unread,
        })
    }
}

/// Reads a capture file.
///
/// # Errors
/// When it cannot be read, or is no pcap file of Ethernet frames.
pub fn read(file: &Path, floor: Floor) -> Result<Counts> {
    read_from(File::open(file)?, floor)
}

fn read_from(mut file: impl Read, floor: Floor) -> Result<Counts> {
    let mut header = [0; 24];
    file.read_exact(&mut header)?;
    // Little-endian, of either resolution, link type Ethernet.
    let [a, b, c, d, .., 1, 0, 0, 0] = header else { anyhow::bail!("not a capture of Ethernet frames") };
    let magic = u32::from_le_bytes([a, b, c, d]);
    ensure!(matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d), "not a little-endian pcap file");
    let mut reader = Reader::default();
    reader.found.floor = floor;
    if floor == Floor::Careful {
        reader.found.known = Some(Known::new());
    }
    let mut buf = vec![0; CHUNK];
    let mut end = 0;
    loop {
        let got = file.read(buf.get_mut(end..).unwrap_or_default())?;
        if got == 0 {
            break;
        }
        end += got;
        let mut rest = buf.get(..end).unwrap_or_default();
        while let Some((frame, after)) = record(rest) {
            reader.frame(frame);
            rest = after;
        }
        let left = rest.len();
        ensure!(left < CHUNK, "a record of more than {CHUNK} bytes");
        buf.copy_within(end - left..end, 0);
        end = left;
    }
    ensure!(end == 0, "the last record is cut off");
    let found = reader.found;
    let tokens = found.known.map_or(found.tokens.len(), |known| known.records.len());
    Ok(Counts { tokens: u64::try_from(tokens)?, ..found.counts })
}

/// The first record's frame, and what comes after it; none if it is not all there.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<16>()?;
    let [.., a, b, c, d, _, _, _, _] = *header;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?)
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    addresses: [u8; 8],
    ports: [u8; 4],
}

impl Way {
    /// The other direction.
    fn back(mut self) -> Self {
        self.addresses.rotate_left(4);
        self.ports.rotate_left(2);
        self
    }
}

/// A TCP segment.
struct Segment<'a> {
    way: Way,
    /// From its header on.
    whole: &'a [u8],
    seq: u32,
    flags: u8,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads an Ethernet frame that carries TCP over IPv4, unfragmented.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_first_chunk::<14>()?;
        let ([.., 8, 0], (ip, _)) = (*ethernet, packet.split_first_chunk::<20>()?) else { return None };
        let [first, _, high, low, _, _, fragment, offset, _, 6, _, _, addresses @ ..] = *ip else {
            return None;
        };
        if first >> 4 != 4 || (fragment & 0x3f, offset) != (0, 0) {
            return None;
        }
        let packet = packet.get(..usize::from(u16::from_be_bytes([high, low])))?;
        let tcp = packet.get(usize::from(first & 15) * 4..)?;
        let (ports, head) = tcp.split_first_chunk::<4>()?;
        let (seq, head) = head.split_first_chunk::<4>()?;
        let [_, _, _, _, length, flags, ..] = *head else { return None };
        Some(Self {
            way: Way { addresses, ports: *ports },
            whole: tcp,
            seq: u32::from_be_bytes(*seq),
            flags,
            payload: tcp.get(usize::from(length >> 4) * 4..)?,
        })
    }

    /// Whether its checksum is right (RFC 9293 section 3.1).
    fn is_sound(&self) -> bool {
        let pseudo = sum(&self.way.addresses) + sum(&[0, 6]) + u64::try_from(self.whole.len()).unwrap_or(0);
        (pseudo + sum(self.whole)).is_multiple_of(0xffff)
    }
}

/// The sum of big-endian 16-bit words, but for multiples of ffff, which mean nothing here. Many are added at a time in the
/// processor's own order, and the sum turned over (RFC 1071 section 2): the plain loop that captures are generated with
/// would be most of what is measured here.
fn sum(bytes: &[u8]) -> u64 {
    const BLOCK: usize = 32;
    let word = |word: &[u8; 4]| u64::from(u32::from_ne_bytes(*word));
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut lanes = [0_u64; BLOCK / 4];
    for block in blocks {
        for (lane, at) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += word(at);
        }
    }
    let mut last = [0; BLOCK];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let sum = lanes.into_iter().chain(last.as_chunks::<4>().0.iter().map(word)).sum::<u64>() % 0xffff;
    u64::from(u16::from_be(u16::try_from(sum).unwrap_or_default()))
}

/// What is known of a direction.
#[derive(Debug, Default)]
struct Stream {
    /// The next byte's sequence number.
    next: u32,
    /// Whether it is the client's.
    asks: bool,
    /// Bytes of a body that are still to come.
    body: u64,
    /// A head that is not complete: at most `MAX_HEAD` bytes.
    held: Vec<u8>,
    /// Tokens of requests that nobody has answered yet, where they are told apart.
    asked: VecDeque<Option<u128>>,
}

/// A head: its length, and that of the body behind it.
struct Head {
    bytes: usize,
    body: u64,
    says: Says,
}

/// What a head is about, where that is asked.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    Asked(Option<u128>),
    Answered(u16),
}

#[derive(Debug, Default)]
struct Reader {
    streams: HashMap<Way, Stream, RandomState>,
    found: Found,
}

impl Reader {
    fn frame(&mut self, frame: &[u8]) {
        let Some(segment) = Segment::of(frame) else {
            self.found.counts.unread += 1;
            return;
        };
        if self.found.known.is_some() && !segment.is_sound() {
            self.found.counts.unread += 1;
            return;
        }
        if segment.flags & SYN != 0 {
            let (next, asks) = (segment.seq.wrapping_add(1), segment.flags & ACK == 0);
            self.streams.insert(segment.way, Stream { next, asks, ..Stream::default() });
        } else if !segment.payload.is_empty() && self.payload(&segment).is_none() {
            // What follows cannot be read either.
            self.found.counts.unread += 1;
            self.streams.remove(&segment.way);
        }
        if segment.flags & (FIN | RST) != 0 {
            self.streams.remove(&segment.way);
        }
    }

    fn payload(&mut self, segment: &Segment<'_>) -> Option<()> {
        let stream = self.streams.get_mut(&segment.way)?;
        if stream.next != segment.seq {
            return None;
        }
        stream.next = stream.next.wrapping_add(u32::try_from(segment.payload.len()).ok()?);
        self.found.bytes(stream, segment.payload)?;
        for status in self.found.answered.drain(..) {
            let asked = self.streams.get_mut(&segment.way.back()).and_then(|asks| asks.asked.pop_front());
            if let (Some(Some(token)), Some(known)) = (asked, &mut self.found.known) {
                self.found.counts.paired += u64::from(known.answered(token, status));
            }
        }
        Some(())
    }
}

/// Tokens by a keyed hash.
#[derive(Debug)]
struct Known {
    key: Vec<[u64; 2]>,
    records: HashMap<u128, Record, RandomState>,
}

/// What is kept of a token.
#[derive(Debug, Default)]
struct Record {
    uses: u64,
    answers: u64,
    failures: u64,
}

impl Known {
    /// Under a fixed key, for nobody attacks a benchmark.
    fn new() -> Self {
        let mut word = 7_u64;
        let mut next = || {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word ^ word >> 32
        };
        let key = (0..MAX_HEAD / 16 + 2).map(|_| [next(), next()]).collect();
        Self { key, records: HashMap::default() }
    }

    /// Counts a use of a token; its hash: NH, as the sensor has it, without the end that takes its two sums to one.
    fn used(&mut self, token: &[u8]) -> u128 {
        let (blocks, rest) = token.as_chunks::<16>();
        let mut last = [0; 16];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let mut sums = [0_u128; 2];
        for (block, keys) in blocks.iter().chain([&last]).zip(self.key.array_windows::<2>()) {
            let text = u128::from_le_bytes(*block);
            #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
            let (low, high) = (text as u64, (text >> 64) as u64);
            for (sum, [k, l]) in sums.iter_mut().zip(keys) {
                *sum = sum.wrapping_add(u128::from(low.wrapping_add(*k)) * u128::from(high.wrapping_add(*l)));
            }
        }
        let hash = sums[0] ^ sums[1].rotate_left(64) ^ token.len() as u128;
        self.records.entry(hash).or_default().uses += 1;
        hash
    }

    fn answered(&mut self, hash: u128, status: u16) -> bool {
        let Some(record) = self.records.get_mut(&hash) else { return false };
        record.answers += 1;
        record.failures += u64::from(status >= 400);
        true
    }
}

/// What the heads said.
#[derive(Debug, Default)]
struct Found {
    floor: Floor,
    /// How often each token was used.
    tokens: HashMap<Box<[u8]>, u64, RandomState>,
    /// The same of the careful floor.
    known: Option<Known>,
    /// Statuses of the last segment, for the careful floor.
    answered: Vec<u16>,
    counts: Counts,
}

impl Found {
    /// Takes the next bytes of a stream. None if they are not HTTP.
    fn bytes(&mut self, stream: &mut Stream, mut rest: &[u8]) -> Option<()> {
        while !rest.is_empty() {
            if stream.body > 0 {
                let length = usize::try_from(stream.body).unwrap_or(usize::MAX).min(rest.len());
                stream.body -= u64::try_from(length).ok()?;
                rest = rest.get(length..)?;
            } else if stream.held.is_empty() {
                let Status::Complete(head) = self.head(stream.asks, rest).ok()? else {
                    stream.held.extend_from_slice(rest);
                    return Some(());
                };
                (stream.body, rest) = (head.body, rest.get(head.bytes..)?);
                self.tell(stream, head.says);
            } else {
                let before = stream.held.len();
                stream.held.extend_from_slice(rest);
                let Status::Complete(head) = self.head(stream.asks, &stream.held).ok()? else {
                    return (stream.held.len() <= MAX_HEAD).then_some(());
                };
                (stream.body, rest) = (head.body, rest.get(head.bytes.checked_sub(before)?..)?);
                stream.held.clear();
                self.tell(stream, head.says);
            }
        }
        Some(())
    }

    fn tell(&mut self, stream: &mut Stream, says: Says) {
        match says {
            Says::Nothing => {}
            Says::Asked(token) => stream.asked.push_back(token),
            Says::Answered(status) => self.answered.push(status),
        }
    }

    /// The head at the start of these bytes.
    fn head(&mut self, asks: bool, bytes: &[u8]) -> httparse::Result<Head> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        if asks {
            let mut request = Request::new(&mut []);
            let Status::Complete(length) = request.parse_with_uninit_headers(bytes, &mut fields)? else {
                return Ok(Status::Partial);
            };
            self.counts.requests += 1;
            let (body, token) = wanted(request.headers);
            let hash = token.and_then(|token| self.bearer(token));
            let says = if self.known.is_some() { Says::Asked(hash) } else { Says::Nothing };
            return Ok(Status::Complete(Head { bytes: length, body, says }));
        }
        let mut response = Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        let Status::Complete(length) = parsed? else { return Ok(Status::Partial) };
        self.counts.responses += 1;
        // RFC 9112 section 6.3: these have no body whatever their fields say.
        let bare = matches!(response.code, Some(100..=199 | 204 | 304));
        let body = if bare { 0 } else { wanted(response.headers).0 };
        let said = response.code.filter(|_| self.known.is_some());
        let says = said.map_or(Says::Nothing, Says::Answered);
        Ok(Status::Complete(Head { bytes: length, body, says }))
    }

    /// Counts a token; its keyed hash, if it has one.
    fn bearer(&mut self, token: &[u8]) -> Option<u128> {
        self.counts.bearers += 1;
        if let Some(known) = &mut self.known {
            return Some(known.used(token));
        }
        if let Some(uses) = self.tokens.get_mut(token) {
            *uses += 1;
        } else {
            self.tokens.insert(token.into(), 1);
        }
        if self.floor == Floor::Decoding {
            self.counts.decoded += u64::from(claims(token).is_some());
        }
        None
    }
}

/// The length of the body and the bearer token that a head's fields name.
fn wanted<'b>(fields: &[Header<'b>]) -> (u64, Option<&'b [u8]>) {
    let (mut body, mut token) = (0, None);
    for field in fields {
        match field.name.len() {
            13 if field.name.eq_ignore_ascii_case("authorization") => {
                let (scheme, rest) = field.value.split_at_checked(7).unwrap_or_default();
                token = scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest);
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                body = std::str::from_utf8(field.value).ok().and_then(|n| n.parse().ok()).unwrap_or_default();
            }
            _ => {}
        }
    }
    (body, token)
}

/// A JWT's claims, its header read as well; the signature is not looked at.
fn claims(token: &[u8]) -> Option<Value> {
    let mut parts = token.split(|byte| *byte == b'.');
    let mut part =
        || -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok() };
    part()?;
    part()
}

/// Runs `lab floor`, which is this same program, on the first core; returns its CPU seconds. The capture has this many
/// requests, all of them with a token.
pub(super) fn cpu_s(capture: &Path, requests: u64, floor: Floor) -> Result<f64> {
    let before = super::process::children_cpu_s()?;
    let done = std::process::Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe()?)
        .arg("floor")
        .args(floor.option())
        .arg(capture)
        .output()?;
    let cost = super::process::children_cpu_s()? - before;
    ensure!(done.status.success(), "lab floor: {}", String::from_utf8_lossy(&done.stderr));
    let counts: Value = serde_json::from_slice(&done.stdout).context("what lab floor prints")?;
    let of = |name: &str| counts.get(name).and_then(Value::as_u64);
    let if_it_is = |one| if floor == one { requests } else { 0 };
    let expected = [("requests", requests), ("responses", requests), ("bearers", requests)];
    for (name, count) in expected.into_iter().chain([
        ("decoded", if_it_is(Floor::Decoding)),
        ("paired", if_it_is(Floor::Careful)),
        ("unread", 0),
    ]) {
        ensure!(of(name) == Some(count), "the floor saw {counts}, and there are {count} {name}");
    }
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::capture::{Conversation, Pcap};

    const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln";

    fn ask(token: &str) -> Vec<u8> {
        format!("GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
    }

    fn ends() -> (SocketAddr, SocketAddr) {
        ("10.0.3.7:40000".parse().unwrap(), "10.0.0.1:8080".parse().unwrap())
    }

    fn counts(talk: &Conversation, floor: Floor) -> Counts {
        let mut file = Pcap::default();
        file.add(0, talk);
        read_from(file.bytes().as_slice(), floor).unwrap()
    }

    fn talk(mss: usize) -> Conversation {
        let (client, server) = ends();
        let mut talk = Conversation::open(client, server).cut_at(mss);
        for token in [TOKEN, "other", TOKEN] {
            talk.request(&ask(token)).response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 ");
        }
        talk.request(b"POST /b HTTP/1.1\r\ncontent-length: 5\r\n\r\nGET /");
        talk.response(b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n").close();
        talk
    }

    #[test]
    fn where_segments_are_cut_does_not_matter() {
        let expected = Counts { requests: 4, responses: 4, bearers: 3, tokens: 2, ..Counts::default() };
        for mss in [1, 7, 40, 1448] {
            assert_eq!(counts(&talk(mss), Floor::Trivial), expected, "{mss}");
            assert_eq!(counts(&talk(mss), Floor::Careful), Counts { paired: 3, ..expected }, "{mss}");
        }
    }

    #[test]
    fn every_use_of_a_token_is_decoded_if_asked_for() {
        assert_eq!(counts(&talk(1448), Floor::Decoding).decoded, 2);
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut swapped = talk(1448);
        // The first two requests change places.
        swapped.segments.swap(3, 7);
        assert!(counts(&swapped, Floor::Trivial).unread > 0);
        let (client, server) = ends();
        let mut odd = Conversation::open(client, server);
        odd.request(b"\x00\x01 no HTTP");
        assert_eq!(counts(&odd, Floor::Trivial).unread, 1);
    }

    #[test]
    fn a_careful_reader_believes_no_wrong_checksum() {
        let mut file = Pcap::default();
        file.add(0, &talk(1448));
        let mut bytes = file.bytes();
        let at = bytes.windows(6).position(|six| six == b"GET /a").unwrap();
        bytes[at + 5] = b'b';
        let of = |floor| read_from(bytes.as_slice(), floor).unwrap();
        assert_eq!((of(Floor::Trivial).unread, of(Floor::Trivial).requests), (0, 4));
        assert!(of(Floor::Careful).unread > 0 && of(Floor::Careful).requests < 4);
    }

    #[test]
    fn records_that_a_chunk_cuts_are_whole() {
        let (client, server) = ends();
        let mut talk = Conversation::open(client, server);
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", [b'x'; 1000].as_slice()].concat();
        for _ in 0..600 {
            talk.request(&ask(TOKEN)).response(&answer);
        }
        let mut file = Pcap::default();
        file.add(0, &talk);
        assert!(file.bytes().len() > 2 * CHUNK);
        let counts = read_from(file.bytes().as_slice(), Floor::Trivial).unwrap();
        assert_eq!((counts.requests, counts.responses, counts.tokens, counts.unread), (600, 600, 1, 0));
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let mut file = Pcap::default();
        file.add(0, &talk(1448));
        let bytes = file.bytes();
        assert!(read_from(bytes.get(..bytes.len() - 1).unwrap(), Floor::Trivial).is_err());
        assert!(read_from(b"no capture at all, but longer".as_slice(), Floor::Trivial).is_err());
    }
}
