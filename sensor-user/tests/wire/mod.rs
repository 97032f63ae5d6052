//! One connection as a test plays it: both ends speak, and the sensor sees the segments.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

pub mod file;

use std::time::Duration;

use sensor_user::capture::{Endpoints, Event, Frame, Grant, Origin, Segment, Side, SocketId, Time};
use sensor_user::http::{Connection, Exchange, Exchanges, HttpLimits};
use sensor_user::reassembly::{FlowLimits, Flows};

/// Both ends of one connection, and the sensor beside the server.
pub struct Wire {
    pub flows: Flows<Connection>,
    pub exchanges: Exchanges,
    pub grants: Vec<Grant>,
    pub socket: SocketId,
    pub now: Time,
    pub client_seq: u32,
    pub server_seq: u32,
    pub in_order: bool,
}

impl Wire {
    pub fn new() -> Self {
        Self::with(FlowLimits::default(), HttpLimits::default())
    }

    pub fn with(flows: FlowLimits, http: HttpLimits) -> Self {
        Self {
            flows: Flows::new(flows),
            exchanges: Exchanges::new(http),
            grants: Vec::new(),
            socket: SocketId(1),
            now: Time::from_secs(1_700_000_000),
            client_seq: u32::MAX - 10,
            server_seq: u32::MAX - 20,
            in_order: false,
        }
    }

    pub fn frame(&mut self, event: Event<'_>) {
        self.now = self.now.plus(Duration::from_millis(1));
        let endpoints =
            Endpoints { client: "192.0.2.1:40000".parse().unwrap(), server: "192.0.2.2:80".parse().unwrap() };
        let (at, socket) = (self.now, self.socket);
        let frame = Frame { at, socket, endpoints, origin: Origin::default(), event };
        self.flows.push(&frame, &mut self.exchanges, &mut self.grants);
        self.flows.expire(at, &mut self.exchanges);
    }

    pub fn segment(&self, side: Side, seq: u32, payload: &'static [u8]) -> Segment<'static> {
        Segment { payload, wire_len: u32::try_from(payload.len()).unwrap(), ..self.bare(side, seq) }
    }

    pub fn bare(&self, side: Side, seq: u32) -> Segment<'static> {
        let ack = match side {
            Side::Request => self.server_seq,
            Side::Response => self.client_seq,
        };
        Segment {
            side,
            seq,
            ack: Some(ack),
            rcv_nxt: None,
            wire_len: 0,
            payload: &[],
            whole: false,
            in_order: self.in_order && side == Side::Response,
            fin: false,
            rst: false,
        }
    }

    /// A segment of the client, not yet acknowledged.
    pub fn client(&mut self, payload: &[u8]) {
        let wire_len = u32::try_from(payload.len()).unwrap();
        let bare = self.bare(Side::Request, self.client_seq);
        self.frame(Event::Segment(Segment { payload, wire_len, ..bare }));
        self.client_seq = self.client_seq.wrapping_add(wire_len);
    }

    /// A segment of the server: it acknowledges all that the client sent.
    pub fn server(&mut self, payload: &[u8]) {
        self.server_cut(payload, payload.len());
    }

    /// A segment of the server of which only the first `captured` bytes are captured.
    pub fn server_cut(&mut self, payload: &[u8], captured: usize) {
        let wire_len = u32::try_from(payload.len()).unwrap();
        let bare = self.bare(Side::Response, self.server_seq);
        let payload = &payload[..captured.min(payload.len())];
        self.frame(Event::Segment(Segment { payload, wire_len, ..bare }));
        self.server_seq = self.server_seq.wrapping_add(wire_len);
    }

    /// Bytes that one end sends and the sensor does not see.
    pub fn lose(&mut self, side: Side, len: usize) {
        let len = u32::try_from(len).unwrap();
        match side {
            Side::Request => self.client_seq = self.client_seq.wrapping_add(len),
            Side::Response => self.server_seq = self.server_seq.wrapping_add(len),
        }
    }

    pub fn ack(&mut self) {
        self.frame(Event::Segment(self.bare(Side::Response, self.server_seq)));
    }

    pub fn open(&mut self) {
        self.frame(Event::Open { first_seq: self.client_seq });
    }

    pub fn close(&mut self) {
        self.frame(Event::Close { rcv_nxt: Some(self.client_seq) });
    }

    pub fn wait(&mut self, secs: u64) {
        self.now = self.now.plus(Duration::from_secs(secs));
        self.flows.expire(self.now, &mut self.exchanges);
    }

    pub fn taken(&mut self) -> Vec<Exchange> {
        std::iter::from_fn(|| self.exchanges.take().map(|exchange| *exchange)).collect()
    }

    /// What came out, a line an exchange: `GET /a 200`, status 0 for none.
    pub fn lines(&mut self) -> Vec<String> {
        self.taken().iter().map(line).collect()
    }
}

/// Target and status of an exchange.
pub fn line(exchange: &Exchange) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let request = &exchange.request;
    format!("{} {} {}", text(request.method()), text(request.target()), exchange.status().unwrap_or(0))
}
