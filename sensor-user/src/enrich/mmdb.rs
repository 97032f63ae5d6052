//! A writer of small databases in the MaxMind format, for tests: a tree of 24-bit records over IPv6, records inline.

use std::net::IpAddr;

/// A value of the data section.
pub(crate) enum Record {
    Map(Vec<(&'static str, Record)>),
    Text(String),
    Double(f64),
    Short(u16),
    Number(u32),
    Long(u64),
}

/// A record as city databases hold it.
pub(crate) fn city(country: &str, continent: &str, north: f64, east: f64, radius: u16) -> Record {
    let text = |text: &str| Record::Text(text.to_owned());
    Record::Map(vec![
        ("continent", Record::Map(vec![("code", text(continent))])),
        ("country", Record::Map(vec![("iso_code", text(country))])),
        (
            "location",
            Record::Map(vec![
                ("accuracy_radius", Record::Short(radius)),
                ("latitude", Record::Double(north)),
                ("longitude", Record::Double(east)),
            ]),
        ),
    ])
}

/// A record as ASN databases hold it.
pub(crate) fn asn(number: u32) -> Record {
    Record::Map(vec![("autonomous_system_number", Record::Number(number))])
}

/// What a side of a node leads to.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database in the making.
pub(crate) struct Writer {
    kind: &'static str,
    nodes: Vec<[Side; 2]>,
    data: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, nodes: vec![[Side::Nothing; 2]], data: Vec::new() }
    }

    /// Adds a network that lies in no other. IPv4 lies in `::/96`, as in every database of both.
    pub(crate) fn network(mut self, network: &str, record: &Record) -> Self {
        let network: ipnet::IpNet = network.parse().unwrap();
        let (bits, length) = match network.addr() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + network.prefix_len()),
            IpAddr::V6(v6) => (v6.to_bits(), network.prefix_len()),
        };
        let offset = self.data.len();
        write(&mut self.data, record);
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                self.nodes[node][side] = Side::Data(offset);
                break;
            }
            node = if let Side::Node(next) = self.nodes[node][side] {
                next
            } else {
                self.nodes.push([Side::Nothing; 2]);
                let next = self.nodes.len() - 1;
                self.nodes[node][side] = Side::Node(next);
                next
            };
        }
        self
    }

    /// The file.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let count = self.nodes.len();
        let mut out = Vec::new();
        for side in self.nodes.iter().flatten() {
            let value = match side {
                Side::Nothing => count,
                Side::Node(node) => *node,
                Side::Data(offset) => count + 16 + offset,
            };
            out.extend(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
        }
        out.extend([0; 16]);
        out.extend(&self.data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        let text = |text: &str| Record::Text(text.to_owned());
        write(
            &mut out,
            &Record::Map(vec![
                ("binary_format_major_version", Record::Short(2)),
                ("binary_format_minor_version", Record::Short(0)),
                ("build_epoch", Record::Long(1_795_000_000)),
                ("database_type", text(self.kind)),
                ("description", Record::Map(vec![("en", text("made by a test"))])),
                ("ip_version", Record::Short(6)),
                ("languages", Record::Map(Vec::new())),
                ("node_count", Record::Number(u32::try_from(count).unwrap())),
                ("record_size", Record::Short(24)),
            ]),
        );
        out
    }
}

/// Writes a value: the type in the first three bits, the size in the others.
fn write(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Map(entries) if entries.is_empty() => out.extend([0, 4]), // An empty array: extended type 11.
        Record::Map(entries) => {
            out.push(0xe0 | u8::try_from(entries.len()).unwrap());
            for (key, value) in entries {
                write(out, &Record::Text((*key).to_owned()));
                write(out, value);
            }
        }
        Record::Text(text) if text.len() < 29 => {
            out.push(0x40 | u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        }
        Record::Text(text) => {
            out.extend([0x5d, u8::try_from(text.len() - 29).unwrap()]);
            out.extend(text.as_bytes());
        }
        Record::Double(value) => {
            out.push(0x68);
            out.extend(value.to_be_bytes());
        }
        Record::Short(value) => {
            out.push(0xa2);
            out.extend(value.to_be_bytes());
        }
        // An extended type: 9, less 7.
        Record::Long(value) => {
            out.extend([0x08, 2]);
            out.extend(value.to_be_bytes());
        }
        Record::Number(value) => {
            out.push(0xc4);
            out.extend(value.to_be_bytes());
        }
    }
}
