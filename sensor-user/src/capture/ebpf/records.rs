//! From records of the kernel half to frames.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sensor_ebpf::wire::{
    FLAG_FIN, FLAG_LISTENER, FLAG_RCV_NXT, FLAG_RST, FLAG_WHOLE, Header, KIND_CLOSE, KIND_OPEN, KIND_SEGMENT,
    SIDE_REQUEST, VERSION,
};
use zerocopy::FromBytes;

use super::clock::BootClock;
use super::counts::Taken;
use super::pending::{Held, Pending};
use crate::capture::{Endpoints, Event, Frame, Input, Loss, LossKind, Origin, Segment, Side, SocketId, Time};

/// Decodes records, and joins those that came before their socket.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pending: Pending,
    /// Records of another version, or that contradict themselves, since the last report.
    malformed: u64,
    /// Records whose connection never showed, since the last report.
    unjoined: u64,
    /// When the newest record was made, in nanoseconds since boot.
    pub(super) newest: u64,
    /// Records handed on, and their payload.
    pub(super) taken: Taken,
}

impl Reader {
    /// Hands one record on.
    pub(super) fn deliver(&mut self, record: &[u8], clock: &BootClock, sink: &mut dyn FnMut(Input<'_>)) {
        let Some((header, payload)) = split(record) else {
            self.malformed += 1;
            return;
        };
        self.taken.records += 1;
        self.taken.bytes += u64::from(header.captured);
        let Some(event) = event(header, payload) else {
            self.malformed += 1;
            return;
        };
        self.newest = self.newest.max(header.boot_ns);
        let frame = Frame {
            at: clock.time(header.boot_ns),
            socket: SocketId(header.cookie),
            endpoints: endpoints(header),
            origin: Origin { cgroup: header.cgroup, netns: header.netns, pid: header.pid },
            event,
        };
        if has(header, FLAG_LISTENER) {
            self.hold(&frame);
        } else if self.pending.is_empty() {
            sink(Input::Frame(frame));
        } else {
            self.join(frame, sink);
        }
    }

    /// Drops what waited too long, and reports what was lost since the last call.
    pub(super) fn expire(&mut self, now: Time, sink: &mut dyn FnMut(Input<'_>)) {
        self.unjoined += self.pending.expire(now);
        for (reason, lost) in
            [("record_malformed", &mut self.malformed), ("listener_unjoined", &mut self.unjoined)]
        {
            let records = std::mem::take(lost);
            if records > 0 {
                sink(Input::Loss(Loss { at: now, reason, records, kind: LossKind::Request }));
            }
        }
    }

    fn hold(&mut self, frame: &Frame<'_>) {
        let Event::Segment(segment) = frame.event else { return };
        let held = Held {
            at: frame.at,
            origin: frame.origin,
            seq: segment.seq,
            wire_len: segment.wire_len,
            payload: segment.payload.into(),
            fin: segment.fin,
        };
        self.unjoined += self.pending.hold(frame.endpoints, held);
    }

    /// Hands on what waited for this connection: after its opening, before anything else of it.
    fn join(&mut self, mut frame: Frame<'_>, sink: &mut dyn FnMut(Input<'_>)) {
        let waiting = self.pending.take(&frame.endpoints);
        let opens = matches!(frame.event, Event::Open { .. });
        if let Some(first) = waiting.first() {
            // The event of a socket does not know its cgroup; its listener's is the same.
            frame.origin.cgroup =
                if frame.origin.cgroup == 0 { first.origin.cgroup } else { frame.origin.cgroup };
        }
        if opens {
            sink(Input::Frame(frame));
        }
        for held in &waiting {
            sink(Input::Frame(Frame { at: held.at, event: Event::Segment(held.segment()), ..frame }));
        }
        if !opens {
            sink(Input::Frame(frame));
        }
    }
}

impl Held {
    fn segment(&self) -> Segment<'_> {
        Segment {
            side: Side::Request,
            seq: self.seq,
            ack: None,
            rcv_nxt: None,
            wire_len: self.wire_len,
            payload: &self.payload,
            whole: false,
            in_order: false,
            fin: self.fin,
            rst: false,
        }
    }
}

/// When a record was made, in nanoseconds since boot.
pub(super) fn boot_ns(record: &[u8]) -> Option<u64> {
    Header::ref_from_prefix(record).ok().map(|(header, _)| header.boot_ns)
}

/// A record as its header and its payload, if they agree with each other.
fn split(record: &[u8]) -> Option<(&Header, &[u8])> {
    let (header, rest) = Header::ref_from_prefix(record).ok()?;
    let captured = usize::try_from(header.captured).ok()?;
    let payload = rest.get(..captured)?;
    (header.version == VERSION && header.captured <= header.wire_len).then_some((header, payload))
}

fn event<'a>(header: &Header, payload: &'a [u8]) -> Option<Event<'a>> {
    let rcv_nxt = has(header, FLAG_RCV_NXT).then_some(header.rcv_nxt);
    match header.kind {
        KIND_OPEN => Some(Event::Open { first_seq: header.seq }),
        KIND_CLOSE => Some(Event::Close { rcv_nxt }),
        KIND_SEGMENT => Some(Event::Segment(segment(header, payload, rcv_nxt))),
        _ => None,
    }
}

fn segment<'a>(header: &Header, payload: &'a [u8], rcv_nxt: Option<u32>) -> Segment<'a> {
    let side = if header.side == SIDE_REQUEST { Side::Request } else { Side::Response };
    let rst = has(header, FLAG_RST);
    Segment {
        side,
        seq: header.seq,
        // A reset may come without ACK, and the number is then noise.
        ack: (!rst).then_some(header.ack),
        rcv_nxt,
        wire_len: header.wire_len,
        payload,
        whole: has(header, FLAG_WHOLE),
        in_order: side == Side::Response,
        fin: has(header, FLAG_FIN),
        rst,
    }
}

fn endpoints(header: &Header) -> Endpoints {
    Endpoints {
        client: SocketAddr::new(address(header.client), header.client_port),
        server: SocketAddr::new(address(header.server), header.server_port),
    }
}

fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

const fn has(header: &Header, flag: u8) -> bool {
    header.flags & flag != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sensor_ebpf::wire::HEADER_LEN;
    use zerocopy::IntoBytes;

    use super::*;

    fn header() -> Header {
        let mut header = Header::read_from_bytes(&[0; HEADER_LEN]).unwrap();
        header.version = VERSION;
        header.kind = KIND_SEGMENT;
        header.client = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]).octets();
        header.client_port = 4000;
        header.server = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        header
    }

    /// A record in memory aligned as the ring's records are.
    fn record(header: &Header, payload: &[u8]) -> Vec<u64> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.chunks(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap())).collect()
    }

    fn deliver(reader: &mut Reader, header: &Header, payload: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        reader.deliver(record(header, payload).as_bytes(), &BootClock::new(), &mut |input| {
            if let Input::Frame(frame) = input {
                seen.push(match frame.event {
                    Event::Open { first_seq } => format!("{} open {first_seq}", frame.socket.0),
                    Event::Close { .. } => format!("{} close", frame.socket.0),
                    Event::Segment(segment) => {
                        format!("{} {}", frame.socket.0, String::from_utf8_lossy(segment.payload))
                    }
                });
            }
        });
        seen
    }

    #[test]
    fn decodes_a_segment_and_unmaps_addresses() {
        let header = Header { captured: 3, wire_len: 9, ..header() };
        let mut reader = Reader::default();
        assert_eq!(deliver(&mut reader, &header, b"GET"), ["0 GET"]);
        assert_eq!(reader.taken, Taken { records: 1, bytes: 3 });
        assert_eq!(endpoints(&header).client, "10.0.0.1:4000".parse().unwrap());
        assert_eq!(endpoints(&header).server, "[2001:db8::1]:0".parse().unwrap());
    }

    #[test]
    fn counts_records_that_contradict_themselves() {
        let mut reader = Reader::default();
        for broken in [
            Header { version: VERSION + 1, ..header() },
            Header { captured: 100, wire_len: 100, ..header() },
            Header { captured: 3, wire_len: 2, ..header() },
            Header { kind: 9, ..header() },
        ] {
            assert!(deliver(&mut reader, &broken, b"GET").is_empty());
        }
        let mut lost = Vec::new();
        reader.expire(Time(0), &mut |input| {
            if let Input::Loss(loss) = input {
                lost.push((loss.reason, loss.records));
            }
        });
        assert_eq!(lost, [("record_malformed", 4)]);
    }

    #[test]
    fn joins_handshake_data_to_its_connection() {
        let mut reader = Reader::default();
        let early = Header { cookie: 1, flags: FLAG_LISTENER, captured: 3, wire_len: 3, seq: 7, ..header() };
        assert!(deliver(&mut reader, &early, b"GET").is_empty());
        let other = Header { cookie: 3, client_port: 4001, ..header() };
        assert_eq!(deliver(&mut reader, &other, b""), ["3 "]);
        let open = Header { cookie: 2, kind: KIND_OPEN, seq: 7, ..header() };
        assert_eq!(deliver(&mut reader, &open, b""), ["2 open 7", "2 GET"]);
        assert!(reader.pending.is_empty());
    }

    #[test]
    fn joins_handshake_data_without_an_opening() {
        let mut reader = Reader::default();
        let early = Header { cookie: 1, flags: FLAG_LISTENER, captured: 3, wire_len: 3, ..header() };
        deliver(&mut reader, &early, b"GET");
        let later = Header { cookie: 2, captured: 2, wire_len: 2, ..header() };
        assert_eq!(deliver(&mut reader, &later, b"/x"), ["2 GET", "2 /x"]);
    }

    proptest! {
        #[test]
        fn survives_any_bytes(words in prop::collection::vec(any::<u64>(), 0..64)) {
            let mut reader = Reader::default();
            reader.deliver(words.as_bytes(), &BootClock::new(), &mut |_| {});
        }
    }
}
