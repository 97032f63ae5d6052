//! Where addresses are: databases in the MaxMind format (`maxmind-db` specification 2.0), held in memory.
//!
//! A database is verified as a whole when it is read: every node of its tree and every record that it points to. So a
//! file that was cut off or altered is refused before anything is asked of it. It does not see whether a database tells
//! the truth.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use maxminddb::Reader;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::detect::Place;
use crate::detect::knowledge::Geo;

/// Largest database that is read: the largest city databases have some 150 MiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// What a database is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Countries, and positions where it has them.
    City,
    /// Autonomous systems.
    Asn,
}

/// Why a database is not used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// It is no database, or a broken one.
    #[error("is no sound MaxMind database: {0}")]
    Broken(#[from] maxminddb::MaxMindDbError),
    /// It holds something else.
    #[error("is a database of type {found}; {wanted} is wanted here")]
    Kind {
        /// What it says that it is.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// One verified database.
pub struct Database(Reader<Vec<u8>>);

impl Database {
    /// Reads and verifies one.
    ///
    /// # Errors
    /// When it is broken or of another kind.
    pub fn read(bytes: Vec<u8>, kind: Kind) -> Result<Self, GeoError> {
        let reader = Reader::from_source(bytes)?;
        reader.verify()?;
        let found = &reader.metadata().database_type;
        let numbers = ["ASN", "ISP"].iter().any(|name| found.contains(name));
        match kind {
            Kind::City if numbers => Err(GeoError::Kind { found: shown(found), wanted: "one of cities" }),
            Kind::Asn if !numbers => Err(GeoError::Kind { found: shown(found), wanted: "one of ASNs" }),
            Kind::City | Kind::Asn => Ok(Self(reader)),
        }
    }

    /// What it is, for logs: its type and the day on which it was built, as seconds since the epoch.
    #[must_use]
    pub fn about(&self) -> (String, u64) {
        (shown(&self.0.metadata().database_type), self.0.metadata().build_epoch)
    }

    fn record<'a, T: Deserialize<'a>>(&'a self, address: IpAddr) -> Option<T> {
        self.0.lookup(address).ok()?.decode().ok()?
    }
}

fn shown(text: &str) -> String {
    let text: String = text.chars().take(60).collect();
    crate::telemetry::printable(&text)
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.0.metadata().database_type).finish()
    }
}

/// The databases that there are, asked together.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    /// Countries and positions.
    pub city: Option<Arc<Database>>,
    /// Autonomous systems.
    pub asn: Option<Arc<Database>>,
}

/// The parts of a city or country record that are used (`GeoIP2` schema).
#[derive(Deserialize)]
struct CityRecord<'a> {
    #[serde(borrow, default)]
    country: Country<'a>,
    #[serde(borrow, default)]
    continent: Continent<'a>,
    #[serde(default)]
    location: Location,
}

#[derive(Default, Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Default, Deserialize)]
struct Continent<'a> {
    code: Option<&'a str>,
}

#[derive(Default, Deserialize)]
struct Location {
    latitude: Option<Figure>,
    longitude: Option<Figure>,
    accuracy_radius: Option<Figure>,
}

#[derive(Deserialize)]
struct AsnRecord {
    autonomous_system_number: Option<Figure>,
}

/// A number of any type: providers differ in which they write.
struct Figure(f64);

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyNumber).map(Self)
    }
}

struct AnyNumber;

impl Visitor<'_> for AnyNumber {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    #[allow(clippy::cast_precision_loss, reason = "what is read fits 32 bits, or is nonsense")]
    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    #[allow(clippy::cast_precision_loss, reason = "what is read fits 32 bits, or is nonsense")]
    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }
}

impl Figure {
    /// As a count; out of range is the nearest that is not.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float-to-integer `as` saturates"
    )]
    const fn count(&self) -> u32 {
        self.0 as u32
    }
}

impl Geo for Databases {
    fn place(&self, address: IpAddr) -> Place {
        let asn = self.asn.as_ref().and_then(|db| db.record::<AsnRecord>(address));
        let asn = asn.and_then(|record| record.autonomous_system_number).map(|number| number.count());
        let Some(city) = self.city.as_ref().and_then(|db| db.record::<CityRecord<'_>>(address)) else {
            return Place { asn, ..Place::default() };
        };
        let position = position(&city.location);
        let radius = city.location.accuracy_radius.as_ref();
        let radius = radius.map(|km| u16::try_from(km.count()).unwrap_or(u16::MAX));
        Place {
            country: code(city.country.iso_code),
            continent: code(city.continent.code),
            position,
            radius_km: position.and(radius),
            asn,
        }
    }
}

fn code(text: Option<&str>) -> Option<[u8; 2]> {
    let code: [u8; 2] = text?.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_uppercase).then_some(code)
}

#[allow(clippy::cast_possible_truncation, reason = "a position of an address is never exact to a metre")]
fn position(location: &Location) -> Option<(f32, f32)> {
    let (north, east) = (location.latitude.as_ref()?.0, location.longitude.as_ref()?.0);
    let on_earth = (-90.0..=90.0).contains(&north) && (-180.0..=180.0).contains(&east);
    on_earth.then_some((north as f32, east as f32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::enrich::mmdb::{Record, Writer, asn, city};

    fn cities() -> Vec<u8> {
        Writer::new("Test-City")
            .network("203.0.113.0/24", &city("DE", "EU", 52.52, 13.405, 20))
            .network("198.51.100.128/25", &city("US", "NA", 40.7, -74.0, 100))
            .network("2001:db8:1::/48", &city("JP", "AS", 35.68, 139.69, 5))
            .network("192.0.2.0/24", &city("d", "Europe", 123.0, 13.0, 5))
            .network("192.0.3.0/24", &Record::Text("no map at all".into()))
            .bytes()
    }

    fn databases() -> Databases {
        let numbers = Writer::new("Test-ASN").network("203.0.113.0/24", &asn(64_500)).bytes();
        Databases {
            city: Some(Arc::new(Database::read(cities(), Kind::City).unwrap())),
            asn: Some(Arc::new(Database::read(numbers, Kind::Asn).unwrap())),
        }
    }

    fn place(address: &str) -> Place {
        databases().place(address.parse().unwrap())
    }

    #[test]
    fn tells_places_and_systems() {
        let berlin = place("203.0.113.77");
        assert_eq!((berlin.country, berlin.continent), (Some(*b"DE"), Some(*b"EU")));
        assert_eq!(
            (berlin.position, berlin.radius_km, berlin.asn),
            (Some((52.52, 13.405)), Some(20), Some(64_500))
        );
        assert_eq!(place("198.51.100.200").country, Some(*b"US"));
        assert_eq!(place("198.51.100.200").asn, None);
        assert_eq!(place("2001:db8:1:2::3").country, Some(*b"JP"));
        for nowhere in ["198.51.100.1", "10.0.0.1", "2001:db8:2::1"] {
            assert_eq!(place(nowhere), Place::default(), "{nowhere}");
        }
    }

    #[test]
    fn records_that_make_no_sense_are_no_place() {
        assert_eq!(place("192.0.2.1"), Place::default());
        assert_eq!(place("192.0.3.1"), Place::default());
    }

    #[test]
    fn a_database_of_another_kind_is_refused() {
        let wrong = Database::read(cities(), Kind::Asn).unwrap_err().to_string();
        assert_eq!(wrong, "is a database of type Test-City; one of ASNs is wanted here");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = cities();
        for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
            assert!(Database::read(whole[..length].to_vec(), Kind::City).is_err(), "{length}");
        }
        assert!(Database::read(b"country,de\n".repeat(50), Kind::City).is_err());
    }

    proptest! {
        /// Whatever passes the check answers without harm.
        #[test]
        fn altered_bytes_do_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            address in any::<u32>(),
        ) {
            let mut bytes = cities();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(database) = Database::read(bytes, Kind::City) {
                let databases = Databases { city: Some(Arc::new(database)), asn: None };
                databases.place(std::net::Ipv4Addr::from_bits(address).into());
                databases.place("203.0.113.1".parse().unwrap());
            }
        }
    }
}
