//! What is known from outside: lists and places, as they were read last. Pure data; the runtime reads the files.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::detect::spelling::{Directory, Spelling};

/// Where an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// ISO 3166-1 alpha-2.
    pub country: Option<[u8; 2]>,
    /// Two letters: AF, AN, AS, EU, NA, OC, SA.
    pub continent: Option<[u8; 2]>,
    /// Degrees north and east.
    pub position: Option<(f32, f32)>,
    /// How wrong the position may be, in kilometres.
    pub radius_km: Option<u16>,
    /// The autonomous system.
    pub asn: Option<u32>,
}

/// Mean radius of the Earth, in kilometres (IUGG R1).
const EARTH_KM: f64 = 6_371.009;

impl Place {
    /// Kilometres between two places along the surface, where both have a position. Takes off how wrong both may be, so
    /// that it is the least that somebody must have travelled.
    #[must_use]
    pub fn distance_km(&self, other: &Self) -> Option<f64> {
        let (here, there) = (self.position?, other.position?);
        let radii = f64::from(self.radius_km.unwrap_or(0)) + f64::from(other.radius_km.unwrap_or(0));
        Some((great_circle_km(here, there) - radii).max(0.0))
    }
}

/// The haversine formula: exact to half a per cent, as the Earth is no sphere.
fn great_circle_km(here: (f32, f32), there: (f32, f32)) -> f64 {
    let radians = |degrees: f32| f64::from(degrees).to_radians();
    let half = |a: f32, b: f32| ((radians(b) - radians(a)) / 2.0).sin().powi(2);
    let across = radians(here.0).cos() * radians(there.0).cos() * half(here.1, there.1);
    let chord = (half(here.0, there.0) + across).clamp(0.0, 1.0);
    2.0 * EARTH_KM * chord.sqrt().asin()
}

/// Two letters as text.
#[must_use]
pub fn letters(code: [u8; 2]) -> String {
    code.iter().map(|b| char::from(*b)).collect()
}

/// Tells where addresses are. Implementations hold their data in memory: a lookup does no I/O.
pub trait Geo: Send + Sync {
    /// The place of an address, as far as it is known.
    fn place(&self, address: IpAddr) -> Place;
}

/// A set of networks, found by binary search: 20 steps for a million of them, 8 bytes each (IPv6: 32).
///
/// Invariant: ranges are sorted, and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Separate ranges of addresses: neighbours have been joined.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether one of them holds the address. IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut all = Self::default();
        for network in networks {
            match network {
                IpNet::V4(net) => all.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => all.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        all.v4 = joined(all.v4, |end| end.checked_add(1));
        all.v6 = joined(all.v6, |end| end.checked_add(1));
        all
    }
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// Sorts ranges and joins those that overlap or touch.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|later, kept| {
        let touches = next(kept.1).is_none_or(|end| later.0 <= end);
        if touches {
            kept.1 = kept.1.max(later.1);
        }
        touches
    });
    ranges.shrink_to_fit();
    ranges
}

/// Lists and places. Replaced as a whole when any of them changes.
#[derive(Clone, Default)]
pub struct Knowledge {
    /// Which reading it is: whatever was derived from another one is void.
    pub revision: u32,
    /// Places of addresses; none without a database.
    pub geo: Option<Arc<dyn Geo>>,
    /// Which spellings name one account.
    pub spelling: Spelling,
    /// Every account that there is; none if nobody has said.
    pub directory: Option<Directory>,
    /// Accounts that must not be used, as [`Spelling::of`] writes them.
    pub denied_accounts: BTreeSet<Box<str>>,
    /// Accounts of people who have left, likewise.
    pub departed_accounts: BTreeSet<Box<str>>,
    /// `jti` of tokens that were revoked.
    pub revoked_ids: BTreeSet<Box<str>>,
    /// Roles and scopes that give power over others, upper case.
    pub privileged_roles: BTreeSet<Box<str>>,
    /// Countries that may be used, ISO 3166-1 alpha-2; empty means all.
    pub allowed_countries: BTreeSet<[u8; 2]>,
    /// Networks of known attackers.
    pub bad_addresses: Networks,
}

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge")
            .field("revision", &self.revision)
            .field("geo", &self.geo.is_some())
            .field("directory", &self.directory.as_ref().map(Directory::len))
            .field("denied_accounts", &self.denied_accounts.len())
            .field("departed_accounts", &self.departed_accounts.len())
            .field("revoked_ids", &self.revoked_ids.len())
            .field("bad_addresses", &self.bad_addresses.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(north: f32, east: f32, radius_km: u16) -> Place {
        Place { position: Some((north, east)), radius_km: Some(radius_km), ..Place::default() }
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        let berlin = at(52.52, 13.405, 0);
        for (there, km) in [
            (at(48.137, 11.575, 0), 504.0),
            (at(40.713, -74.006, 0), 6_385.0),
            (at(-33.87, 151.21, 0), 16_090.0),
        ] {
            let measured = berlin.distance_km(&there).unwrap();
            assert!((measured - km).abs() < km * 0.006, "{measured} {km}");
        }
        assert_eq!(berlin.distance_km(&Place::default()), None);
        assert!(at(0.0, 179.9, 0).distance_km(&at(0.0, -179.9, 0)).unwrap() < 25.0, "over the date line");
    }

    #[test]
    fn a_vague_position_is_no_distance() {
        assert_eq!(at(52.52, 13.4, 500).distance_km(&at(48.1, 11.6, 500)), Some(0.0));
    }

    #[test]
    fn networks_join_and_end_at_the_last_address() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse::<IpNet>().unwrap()).collect::<Networks>();
        let all = nets(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "255.255.255.255/32",
            "10.1.0.0/16",
            "2001:db8::/32",
            "::1/128",
        ]);
        assert_eq!(all.len(), 4);
        for inside in ["10.0.0.0", "10.255.255.255", "255.255.255.255", "2001:db8::9", "::ffff:10.2.3.4"] {
            assert!(all.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "255.255.255.254", "2001:db9::", "::2"] {
            assert!(!all.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(nets(&["0.0.0.0/0", "1.1.1.1/32"]).contains("255.255.255.255".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_set_of_networks_holds_what_any_of_them_holds(
            nets in prop::collection::vec((any::<u16>(), 16_u8..=32), 0..30),
            probes in prop::collection::vec(any::<u16>(), 0..50),
        ) {
            let net = |(bits, prefix): (u16, u8)| {
                IpNet::new(std::net::Ipv4Addr::from_bits(u32::from(bits)).into(), prefix).unwrap()
            };
            let nets: Vec<IpNet> = nets.into_iter().map(net).collect();
            let all: Networks = nets.iter().copied().collect();
            for probe in probes {
                let address = IpAddr::from(std::net::Ipv4Addr::from_bits(u32::from(probe)));
                prop_assert_eq!(all.contains(address), nets.iter().any(|n| n.contains(&address)));
            }
        }

        #[test]
        fn a_distance_is_the_same_both_ways_and_at_most_half_around(
            a in (-90_f32..=90.0, -180_f32..=180.0), b in (-90_f32..=90.0, -180_f32..=180.0),
        ) {
            let (there, back) = (great_circle_km(a, b), great_circle_km(b, a));
            prop_assert!((there - back).abs() < 1e-6 && (0.0..=20_016.0).contains(&there));
        }
    }
}
