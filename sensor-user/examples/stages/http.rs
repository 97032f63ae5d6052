//! Heads, bodies, and whole exchanges through reassembly.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sensor_user::capture::{Endpoints, Event, Frame, Origin, Segment, Side, SocketId};
use sensor_user::http::parse::{
    Chunks, EndOfHead, Step, read_plain_request, read_plain_response, read_request, read_response,
};
use sensor_user::http::{Connection, Exchanges, HttpLimits, RequestHead, ResponseHead, Suspicions};
use sensor_user::reassembly::{FlowLimits, Flows};

use crate::QUICK;
use crate::forge::{RS256, USUAL};
use crate::traffic::{ANSWER, browser, curl, time};

/// Above every head here.
const MOST: usize = 64 * 1024;

/// Who sends a request.
const SENDERS: [&str; 2] = ["curl", "browser"];

fn head_of(sender: &str) -> String {
    let token = RS256.token("alice", USUAL);
    let path = "/api/v1/orders/73191?expand=items";
    if sender == "curl" { curl(path, &token) } else { browser(path, &token) }
}

/// The usual way: in one pass.
#[divan::bench(args = SENDERS, sample_size = QUICK)]
fn request_plain(bencher: Bencher<'_, '_>, sender: &str) {
    let (text, mut head) = (head_of(sender), RequestHead::default());
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        head.bytes.clear();
        let used = read_plain_request(black_box(text.as_bytes()), MOST, &mut head);
        assert!(used.is_some());
    });
}

/// The longer way: the end is looked for, then httparse reads.
#[divan::bench(args = SENDERS, sample_size = QUICK)]
fn request_general(bencher: Bencher<'_, '_>, sender: &str) {
    let (text, mut head) = (head_of(sender), RequestHead::default());
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        head.bytes.clear();
        let end = EndOfHead::default().feed(black_box(text.as_bytes())).unwrap();
        head.bytes.extend_from_slice(&text.as_bytes()[..end]);
        assert!(read_request(&mut head, &mut Suspicions::default()));
    });
}

#[divan::bench(sample_size = QUICK)]
fn response_plain(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    bencher.counter(BytesCount::of_str(ANSWER)).bench_local(|| {
        head.bytes.clear();
        assert!(read_plain_response(black_box(ANSWER.as_bytes()), MOST, &mut head).is_some());
    });
}

#[divan::bench(sample_size = QUICK)]
fn response_general(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    bencher.counter(BytesCount::of_str(ANSWER)).bench_local(|| {
        head.bytes.clear();
        let end = EndOfHead::default().feed(black_box(ANSWER.as_bytes())).unwrap();
        head.bytes.extend_from_slice(&ANSWER.as_bytes()[..end]);
        assert!(read_response(&mut head));
    });
}

/// Sixteen chunks of a kilobyte, to the end.
#[divan::bench(sample_size = QUICK)]
fn chunked_body(bencher: Bencher<'_, '_>) {
    let mut body = format!("400\r\n{}\r\n", "x".repeat(1_024)).repeat(16);
    body.push_str("0\r\n\r\n");
    bencher.counter(BytesCount::of_str(&body)).bench_local(|| {
        let step = Chunks::default().feed(black_box(body.as_bytes()));
        assert!(matches!(step, Step::Done(_)));
    });
}

/// A connection that goes on and on, as segments.
pub(crate) struct Wire {
    next: [u32; 2],
    socket: SocketId,
    endpoints: Endpoints,
    n: u64,
}

impl Wire {
    pub(crate) fn new(n: u64) -> Self {
        let client = (crate::traffic::address(n), 50_000).into();
        let server = ([10, 0, 0, 1], 8080).into();
        Self { next: [1, 1], socket: SocketId(n + 1), endpoints: Endpoints { client, server }, n: 0 }
    }

    fn frame<'a>(&self, event: Event<'a>) -> Frame<'a> {
        let origin = Origin { cgroup: 4_711, netns: 1, pid: 100 };
        Frame { at: time(self.n), socket: self.socket, endpoints: self.endpoints, origin, event }
    }

    pub(crate) fn open(&self) -> Frame<'static> {
        self.frame(Event::Open { first_seq: 1 })
    }

    /// So many exchanges of others have passed.
    pub(crate) fn pass(&mut self, others: u64) {
        self.n += others;
    }

    /// The next segment of a side; what it acknowledges is all that the other side has sent.
    pub(crate) fn segment<'a>(&mut self, side: Side, payload: &'a [u8]) -> Frame<'a> {
        let [client, server] = self.next;
        let (seq, ack) = if side == Side::Request { (client, server) } else { (server, client) };
        let wire_len = payload.len() as u32;
        let at = usize::from(side == Side::Response);
        self.next[at] = seq.wrapping_add(wire_len);
        self.n += 1;
        self.frame(Event::Segment(Segment {
            side,
            seq,
            ack: Some(ack),
            rcv_nxt: None,
            wire_len,
            payload,
            whole: false,
            in_order: false,
            fin: false,
            rst: false,
        }))
    }
}

/// A request and its answer, a segment each, until the exchange comes out.
#[divan::bench(args = SENDERS, sample_size = QUICK)]
fn exchange(bencher: Bencher<'_, '_>, sender: &str) {
    let request = head_of(sender);
    let answer = format!("{ANSWER}{}", "x".repeat(2_048));
    let mut flows = Flows::<Connection>::new(FlowLimits::default());
    let mut exchanges = Exchanges::new(HttpLimits::default());
    let (mut wire, mut grants) = (Wire::new(0), Vec::new());
    flows.push(&wire.open(), &mut exchanges, &mut grants);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        for (side, text) in [(Side::Request, &request), (Side::Response, &answer)] {
            flows.push(&wire.segment(side, text.as_bytes()), &mut exchanges, &mut grants);
        }
        grants.clear();
        let done = exchanges.take().unwrap();
        assert_eq!(done.status(), Some(200));
        exchanges.recycle(done);
    });
}
