//! `data-exfiltration`: much personal or financial data goes to a place that is new for its reader.

use std::sync::Arc;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::detect::object::mix;
use crate::detect::roster::stable_hash;
use crate::detect::sketch::Sliding;
use crate::detect::statement::Statement;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, RouteKind, Rule, Severity, Slot, Threshold,
    When,
};

/// The card.
pub static ABOUT: About = About {
    id: "data-exfiltration",
    title: "Personal or financial data is carried away",
    version: "1.1.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1567", "T1530"],
    behavioural: true,
    needs: Needs::Verdict,
    doc: "Looks at routes that the configuration tags `pii` or `financial`. Fires when one principal, or one token \
that nobody can check, got more than 1000 distinct objects with 2xx within ten minutes there, or more bytes than \
`megabytes` and ten times what it is used to, and does so from an address or country that is new for it. It is \
critical when the country is new.\n\nA stolen token or account shows by much data at a new place. An address is new \
if this caller came from it for the first time less than an hour ago and came from elsewhere before.\n\nBenign \
sources: travelling staff that runs its usual export; raise the numbers, or tag the route `sensitive` instead. \
Countries need a geographic database. It does not see how many objects are in a list, and bytes only where the \
response says its length. It costs 16 bytes an actor, and 300 to 1300 for those that read such routes.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "per_10_minutes",
            default: 1000.0,
            min: 10.0,
            max: 5000.0,
            doc: "Distinct objects within ten minutes above which it fires.",
        },
        Threshold {
            key: "megabytes",
            default: 50.0,
            min: 1.0,
            max: 100_000.0,
            doc: "Megabytes of responses within ten minutes above which it fires, if that is ten times the usual.",
        },
        Threshold {
            key: "new_s",
            default: 3600.0,
            min: 60.0,
            max: 2_592_000.0,
            doc: "Seconds for which an address or a country is new.",
        },
    ],
};

/// Parts of the window, of two minutes each.
const PARTS: u32 = 5;
const PART_S: u32 = 120;

/// Addresses and countries remembered of a reader.
const MAX_PLACES: usize = 6;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(DataExfiltration {
        limit: settings.count(&ABOUT, "per_10_minutes"),
        bytes: u64::from(settings.count(&ABOUT, "megabytes")) << 20,
        new_s: settings.count(&ABOUT, "new_s"),
        actors: Column::default(),
    })
}

/// A place and when it was first seen.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Place {
    address: Slot,
    country: Option<[u8; 2]>,
    first_s: u32,
    newest_s: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Reader {
    objects: Sliding<PARTS>,
    places: ArrayVec<Place, MAX_PLACES>,
    /// Ten minutes by number, bytes in them, and the usual number.
    window: u32,
    bytes: u64,
    usual_bytes: u64,
    windows: u16,
    quiet_until_s: u32,
}

/// What is new about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum New {
    Nothing,
    Address,
    Country,
}

struct DataExfiltration {
    limit: u32,
    bytes: u64,
    new_s: u32,
    actors: Column<Option<Box<Reader>>>,
}

impl Reader {
    fn count_bytes(&mut self, second: u32, bytes: u64) -> u64 {
        let window = second / 600;
        if window > self.window {
            if self.bytes > 0 {
                self.windows = self.windows.saturating_add(1);
                self.usual_bytes = self.bytes.max(self.usual_bytes - self.usual_bytes / 8);
            }
            (self.window, self.bytes) = (window, 0);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes
    }

    /// Goes to a place; what is new about it.
    fn go_to(&mut self, case: &Case<'_>, second: u32, new_s: u32) -> New {
        let address = case.who.address.slot;
        let at = self.places.iter().position(|place| place.address == address).unwrap_or_else(|| {
            let geo = case.knowledge.geo.as_ref();
            let country = geo.and_then(|geo| geo.place(case.exchange.client).country);
            let place = Place { address, country, first_s: second, newest_s: second };
            if self.places.is_full() {
                let oldest = (0..).zip(&self.places).min_by_key(|(_, p)| p.newest_s).map_or(0, |(i, _)| i);
                self.places.remove(oldest);
            }
            self.places.push(place);
            self.places.len() - 1
        });
        let Some(here) = self.places.get_mut(at) else { return New::Nothing };
        here.newest_s = second;
        let here = *here;
        let mut earlier = self.places.iter().filter(|place| place.first_s < here.first_s).peekable();
        if second.saturating_sub(here.first_s) >= new_s || earlier.peek().is_none() {
            return New::Nothing;
        }
        let mut countries = earlier.filter_map(|place| place.country).peekable();
        let abroad = here.country.filter(|_| countries.peek().is_some());
        if abroad.is_some_and(|here| countries.all(|other| other != here)) {
            New::Country
        } else {
            New::Address
        }
    }
}

impl Rule for DataExfiltration {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::ACTOR.and(When::SUCCESS)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.actors)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        if !matches!(case.route.kind, RouteKind::Pii | RouteKind::Financial) || !case.exchange.is_success() {
            return;
        }
        let Some(actor) = case.who.actor else { return };
        let second = case.second();
        let reader = self.actors.of(actor.known.slot).get_or_insert_default();
        let place = reader.go_to(case, second, self.new_s);
        let object =
            case.object.map_or_else(|| stable_hash(case.exchange.request.query()), |object| object.id);
        reader.objects.add(second / PART_S, mix(stable_hash(&case.route.slot), object));
        let usual = reader.usual_bytes;
        let bytes = reader.count_bytes(second, case.exchange.response_body_bytes.unwrap_or_default());
        if place == New::Nothing || case.who.trusted_address || second < reader.quiet_until_s {
            return;
        }
        let much = bytes > self.bytes && reader.windows >= 3 && bytes / 10 > usual;
        let many = reader.objects.at_most() > self.limit && reader.objects.count() > self.limit;
        if !much && !many {
            return;
        }
        reader.quiet_until_s = second.saturating_add(300);
        let (count, abroad) = (reader.objects.count(), place == New::Country);
        let statement = Statement {
            severity: if abroad { Severity::Critical } else { ABOUT.severity },
            confidence: if abroad { 85 } else { 75 },
            message: format!(
                "One caller got about {count} different objects and {} MB of data of the kind that is protected, within ten \
                 minutes and from {} that is new for it, the newest from {}.",
                bytes >> 20,
                if abroad { "a country" } else { "an address" },
                case.route.name
            ),
            brief: format!("about {count} protected objects in 10 min from a new place"),
            facts: vec![
                ("objects", count.into()),
                ("bytes", bytes.into()),
                ("usual_bytes", usual.into()),
                ("new_country", abroad.into()),
            ],
        };
        report.push(statement.into_actor_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::knowledge::{self, Geo};
    use crate::detect::staging::{Play, Stage, held_by};
    use std::net::IpAddr;

    struct World;

    impl Geo for World {
        fn place(&self, address: IpAddr) -> knowledge::Place {
            let home = address.to_string().starts_with("10.0.");
            knowledge::Place {
                country: Some(*(if home { b"NL" } else { b"BR" })),
                ..knowledge::Place::default()
            }
        }
    }

    fn play() -> Play {
        Play::new(rule(&Arc::default()))
    }

    fn read(
        play: &mut Play,
        kind: RouteKind,
        client: &str,
        n: u64,
        from_s: u64,
        bytes: u64,
    ) -> Vec<Severity> {
        let ask = |i: u64| {
            let stage = Stage::to("GET", &format!("/patients/{i}")).route("GET /patients/{id}").kind(kind);
            let mut stage = stage.status(200).client(client).after_ms(from_s * 1000 + i * 100);
            stage.exchange.response_body_bytes = Some(bytes);
            play.ask(&stage, [held_by("alice")])
        };
        (0..n).flat_map(ask).map(|f| f.severity).collect()
    }

    #[test]
    fn much_data_at_a_new_address_fires() {
        let mut play = play();
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.0.1", 10, 0, 100), []);
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.9.9", 1300, 86_400, 100), [Severity::High]);
    }

    #[test]
    fn a_new_country_is_critical() {
        let mut play = play();
        play.knowledge.geo = Some(Arc::new(World));
        read(&mut play, RouteKind::Financial, "10.0.0.1", 10, 0, 100);
        assert_eq!(
            read(&mut play, RouteKind::Financial, "172.16.0.1", 1300, 86_400, 100),
            [Severity::Critical]
        );
    }

    #[test]
    fn the_usual_place_first_place_and_other_routes_are_left_alone() {
        let mut play = play();
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.0.1", 3000, 0, 100), [], "the first place");
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.0.1", 3000, 86_400, 100), [], "the usual place");
        assert_eq!(read(&mut play, RouteKind::Plain, "10.0.9.9", 3000, 172_800, 100), []);
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.9.9", 800, 172_800, 100), [], "few");
    }

    #[test]
    fn many_bytes_count_against_the_usual() {
        let mut play = play();
        for i in 0..5 {
            read(&mut play, RouteKind::Pii, "10.0.0.1", 2, i * 3600, 1 << 20);
        }
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.9.9", 4, 86_400, 1 << 20), []);
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.9.8", 100, 90_000, 1 << 20), [Severity::High]);
    }

    #[test]
    fn a_restart_keeps_places() {
        let mut play = play();
        read(&mut play, RouteKind::Pii, "10.0.0.1", 10, 0, 100);
        play.restart(rule(&Arc::default()));
        assert_eq!(read(&mut play, RouteKind::Pii, "10.0.9.9", 1300, 86_400, 100).len(), 1);
    }
}
