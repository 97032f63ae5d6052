//! Places of addresses: a small made-up world, and the `MaxMind` DB files that tell the sensor of it.
//!
//! Format: `MaxMind` DB 2.0 (<https://maxmind.github.io/MaxMind-DB/>), 24-bit records, IPv4 only, networks of 16 bits.

use std::net::IpAddr;

/// A city: one /16 of homes, one of telephones, in two autonomous systems.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct City {
    /// Its name.
    pub name: &'static str,
    /// ISO 3166-1 alpha-2.
    pub country: &'static str,
    /// Two letters.
    pub continent: &'static str,
    /// Degrees north and east.
    pub position: (f64, f64),
    /// The /16 of homes and offices.
    pub homes: [u8; 2],
    /// The /16 of telephones.
    pub mobiles: [u8; 2],
}

const fn city(
    name: &'static str,
    country: &'static str,
    continent: &'static str,
    position: (f64, f64),
    homes: [u8; 2],
    mobiles: [u8; 2],
) -> City {
    City { name, country, continent, position, homes, mobiles }
}

/// Where customers live.
pub const HOMES: [City; 6] = [
    city("Amsterdam", "NL", "EU", (52.37, 4.90), [77, 160], [62, 140]),
    city("Rotterdam", "NL", "EU", (51.92, 4.48), [77, 161], [62, 141]),
    city("Berlin", "DE", "EU", (52.52, 13.40), [91, 10], [80, 187]),
    city("Munich", "DE", "EU", (48.14, 11.58), [91, 11], [80, 188]),
    city("Paris", "FR", "EU", (48.86, 2.35), [90, 20], [92, 184]),
    city("London", "GB", "EU", (51.51, -0.13), [86, 1], [82, 132]),
];

/// Where attackers are whose place is not the point: a hosting provider in a country that may be used.
pub const HOSTING: City = city("Frankfurt", "DE", "EU", (50.11, 8.68), [45, 131], [45, 132]);
/// Far away, but allowed.
pub const FAR: [City; 2] = [
    city("New York", "US", "NA", (40.71, -74.01), [66, 108], [66, 109]),
    city("Tokyo", "JP", "AS", (35.68, 139.69), [126, 72], [126, 73]),
];
/// Not allowed.
pub const DISALLOWED: City = city("Pyongyang", "KP", "AS", (39.03, 125.75), [175, 45], [175, 46]);
/// The offices of the shop.
pub const OFFICE: City = city("Utrecht", "NL", "EU", (52.09, 5.12), [198, 51], [198, 52]);

/// Every city.
pub fn cities() -> impl Iterator<Item = City> {
    HOMES.into_iter().chain(FAR).chain([HOSTING, DISALLOWED, OFFICE])
}

/// Countries that may be used.
pub const ALLOWED: [&str; 6] = ["NL", "DE", "FR", "GB", "US", "JP"];

/// An address in a /16.
#[must_use]
pub const fn address(net: [u8; 2], host: u16) -> IpAddr {
    let [a, b] = net;
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, (host >> 8) as u8, (host & 0xff) as u8))
}

/// The city database.
#[must_use]
pub fn city_database() -> Vec<u8> {
    let mut entries = Vec::new();
    for city in cities() {
        let (latitude, longitude) = city.position;
        let data = map(&[
            ("city", map(&[("names", map(&[("en", text(city.name))]))])),
            ("continent", map(&[("code", text(city.continent))])),
            ("country", map(&[("iso_code", text(city.country))])),
            (
                "location",
                map(&[
                    ("accuracy_radius", vec![0xa1, 20]),
                    ("latitude", double(latitude)),
                    ("longitude", double(longitude)),
                ]),
            ),
        ]);
        entries.extend([(city.homes, data.clone()), (city.mobiles, data)]);
    }
    database("GeoLite2-City", &entries)
}

/// The database of autonomous systems.
#[must_use]
pub fn asn_database() -> Vec<u8> {
    let mut entries = Vec::new();
    for (city, number) in cities().zip(0_u32..) {
        for (net, number) in [(city.homes, 64_500 + number * 2), (city.mobiles, 64_501 + number * 2)] {
            let data = map(&[
                ("autonomous_system_number", unsigned32(number)),
                ("autonomous_system_organization", text(city.name)),
            ]);
            entries.push((net, data));
        }
    }
    database("GeoLite2-ASN", &entries)
}

/// Writes a database of /16 networks.
fn database(kind: &str, entries: &[([u8; 2], Vec<u8>)]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut nodes: Vec<[Next; 2]> = vec![[Next::Nothing; 2]];
    for (net, bytes) in entries {
        insert(&mut nodes, u16::from_be_bytes(*net), data.len() as u32);
        data.extend_from_slice(bytes);
    }
    let count = nodes.len() as u32;
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match record {
            Next::Nothing => count,
            Next::Node(at) => *at,
            Next::Data(at) => count + 16 + at,
        };
        file.extend_from_slice(number.to_be_bytes().get(1..).unwrap_or_default());
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    file.extend_from_slice(&map(&[
        ("binary_format_major_version", vec![0xa1, 2]),
        ("binary_format_minor_version", vec![0xa0]),
        ("build_epoch", vec![0x04, 0x02, 0x6b, 0x00, 0x00, 0x00]),
        ("database_type", text(kind)),
        ("description", map(&[("en", text("made up for tests"))])),
        ("ip_version", vec![0xa1, 4]),
        ("languages", [vec![0x01, 0x04], text("en")].concat()),
        ("node_count", unsigned32(count)),
        ("record_size", vec![0xa1, 24]),
    ]));
    file
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Node(u32),
    Data(u32),
}

fn insert(nodes: &mut Vec<[Next; 2]>, net: u16, data: u32) {
    let mut at = 0;
    for depth in (0..16).rev() {
        let bit = usize::from(net >> depth & 1);
        let fresh = nodes.len() as u32;
        let Some(record) = nodes.get_mut(at).and_then(|node| node.get_mut(bit)) else { return };
        if depth == 0 {
            *record = Next::Data(data);
        } else if let Next::Node(next) = record {
            at = *next as usize;
        } else {
            *record = Next::Node(fresh);
            nodes.push([Next::Nothing; 2]);
            at = fresh as usize;
        }
    }
}

/// A string: type 2; up to 284 bytes.
fn text(text: &str) -> Vec<u8> {
    let mut out = match text.len() {
        short @ 0..29 => vec![0x40 | short as u8],
        long => vec![0x5d, (long - 29) as u8],
    };
    out.extend_from_slice(text.as_bytes());
    out
}

/// A double: type 3.
fn double(value: f64) -> Vec<u8> {
    [&[0x68][..], &value.to_be_bytes()].concat()
}

/// An unsigned 32-bit number: type 6.
fn unsigned32(value: u32) -> Vec<u8> {
    [&[0xc4][..], &value.to_be_bytes()].concat()
}

/// A map: type 7; up to 28 members.
fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0xe0 | members.len() as u8];
    for (name, value) in members {
        out.extend_from_slice(&text(name));
        out.extend_from_slice(value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tree as the format says; the offset in the data section.
    fn find(file: &[u8], nodes: usize, net: [u8; 2]) -> Option<usize> {
        let mut at = 0;
        for depth in (0..16).rev() {
            let bit = usize::from(u16::from_be_bytes(net) >> depth & 1);
            let record = &file[at * 6 + bit * 3..][..3];
            let target = usize::from(record[0]) << 16 | usize::from(record[1]) << 8 | usize::from(record[2]);
            match target {
                _ if target == nodes => return None,
                _ if target > nodes => return Some(target - nodes - 16),
                _ => at = target,
            }
        }
        None
    }

    #[test]
    fn every_network_leads_to_its_city_and_no_other_to_any() {
        let file = city_database();
        let marker = b"\xab\xcd\xefMaxMind.com";
        let end = file.windows(marker.len()).position(|w| w == marker).unwrap();
        let count = file.windows(10).position(|w| w == b"node_count").unwrap() + 11;
        let nodes = u32::from_be_bytes(file[count..count + 4].try_into().unwrap()) as usize;
        let data = &file[nodes * 6 + 16..end];
        for city in cities() {
            for net in [city.homes, city.mobiles] {
                let entry = &data[find(&file, nodes, net).unwrap()..];
                let name = entry.windows(city.name.len()).position(|w| w == city.name.as_bytes());
                assert!(name.is_some_and(|at| at < 40), "{}", city.name);
            }
        }
        assert_eq!(find(&file, nodes, [10, 0]), None);
        assert_eq!(find(&file, nodes, [255, 255]), None);
    }

    #[test]
    fn no_two_cities_share_a_network() {
        let mut nets: Vec<[u8; 2]> = cities().flat_map(|c| [c.homes, c.mobiles]).collect();
        let all = nets.len();
        nets.sort_unstable();
        nets.dedup();
        assert_eq!(nets.len(), all);
    }
}
