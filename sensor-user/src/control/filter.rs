//! What somebody wants to see, of alerts and of exchanges alike: one type for the server, the commands and the store.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::capture::Time;
use crate::control::Refusal;
use crate::detect::Severity;
use crate::render::exchange::Exchanged;
use crate::render::{Kind, Privacy, Told, shown};
use crate::spool::LANES;

/// Most names of rules or namespaces in one filter: the catalogue is smaller.
const MAX_NAMES: usize = 100;
/// Longest name, principal or pattern, in bytes: no principal that we show is longer.
const MAX_NAME: usize = 512;
/// The farthest back that a duration reaches: longer than anything is kept.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

/// What is wanted. Empty lists and `None` want everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Alerts and incidents at least this bad.
    pub min_severity: Option<Severity>,
    /// Rules by id, `*` for any run of characters; `incident` names incidents.
    pub rules: Vec<String>,
    /// A principal: its subject, or `subject@issuer` as lines show it.
    pub principal: Option<String>,
    /// The same as it is shown where privacy hides it, by [`hide`](Self::hide).
    pub known_as: Vec<String>,
    /// The client's addresses.
    pub address: Option<IpNet>,
    /// Namespaces of the workload, with `*`.
    pub namespaces: Vec<String>,
    /// Alerts or incidents only.
    pub kind: Option<Kind>,
    /// Nothing before this, in milliseconds.
    pub since_ms: Option<u64>,
    /// Nothing after this, in milliseconds.
    pub until_ms: Option<u64>,
}

impl Filter {
    /// Takes one parameter of a query. False if it is none of a filter.
    ///
    /// # Errors
    /// When its value is no such value, or it came before.
    pub fn take(&mut self, name: &str, value: &str, now: Time) -> Result<bool, Refusal> {
        let wrong = |why: &str, remedy: &str| Refusal::wrong(format!("{name}={value}: {why}"), remedy);
        if value.is_empty() || value.len() > MAX_NAME {
            return Err(wrong("it must have from 1 to 512 characters", "leave it out to see everything"));
        }
        let again = || wrong("it was given twice", "give it once");
        match name {
            "min_severity" => {
                let severity = Severity::parse(value)
                    .ok_or_else(|| wrong("it is no severity", "low, medium, high or critical"))?;
                set(&mut self.min_severity, severity).map_err(|()| again())?;
            }
            "rule" | "namespace" => {
                let names = if name == "rule" { &mut self.rules } else { &mut self.namespaces };
                names.extend(value.split(',').filter(|part| !part.is_empty()).map(str::to_owned));
                if names.len() > MAX_NAMES {
                    return Err(wrong("there are too many names", "use a pattern, as in token-*"));
                }
            }
            "principal" => set(&mut self.principal, value.to_owned()).map_err(|()| again())?,
            "address" => {
                let network = network(value)
                    .ok_or_else(|| wrong("it is no address", "10.0.0.7, 10.0.0.0/8 or 2001:db8::/32"))?;
                set(&mut self.address, network).map_err(|()| again())?;
            }
            "kind" => {
                let kind = match value {
                    "alert" => Kind::Alert,
                    "incident" => Kind::Incident,
                    _ => return Err(wrong("it is no kind", "alert or incident")),
                };
                set(&mut self.kind, kind).map_err(|()| again())?;
            }
            "since" | "until" => {
                let at = time(value, now)
                    .ok_or_else(|| wrong("it is no time", "10m, 2h, 3d or 2026-11-21T18:00:00Z"))?;
                let place = if name == "since" { &mut self.since_ms } else { &mut self.until_ms };
                set(place, at).map_err(|()| again())?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Looks for people and addresses as they are shown, since that is all that events hold.
    pub fn hide(&mut self, privacy: &Privacy) {
        if let Some(name) = &self.principal {
            self.known_as = vec![privacy.subject(name)];
            if let Some((subject, issuer)) = name.rsplit_once('@') {
                self.known_as.push(format!("{}@{issuer}", privacy.subject(subject)));
            }
        }
        if let Some(of) = self.address.filter(|of| of.prefix_len() == of.max_prefix_len()) {
            self.address = Some(privacy.address(of.addr()).into());
        }
    }

    /// What of it can only be asked of alerts, if anything is.
    #[must_use]
    pub fn about_alerts(&self) -> Option<&'static str> {
        let asked = [
            (self.min_severity.is_some(), "min_severity"),
            (!self.rules.is_empty(), "rule"),
            (self.kind.is_some(), "kind"),
            (self.since_ms.is_some(), "since"),
            (self.until_ms.is_some(), "until"),
        ];
        asked.into_iter().find(|(asked, _)| *asked).map(|(_, name)| name)
    }

    /// The lanes of the spool that can hold what is wanted.
    #[must_use]
    pub fn lanes(&self) -> [bool; LANES] {
        let least = self.min_severity.map_or(0, |severity| severity as usize);
        std::array::from_fn(|lane| lane >= least)
    }

    /// Whether an alert or incident is wanted. What costs least is asked first: most are turned down by it.
    #[must_use]
    pub fn admits(&self, told: &Told) -> bool {
        self.min_severity.is_none_or(|least| told.severity >= least)
            && self.kind.is_none_or(|kind| told.kind == kind)
            && self.since_ms.is_none_or(|since| told.time_ms >= since)
            && self.until_ms.is_none_or(|until| told.time_ms <= until)
            && match told.kind {
                Kind::Alert => self.admits_alert(told),
                Kind::Incident => self.admits_incident(told),
            }
    }

    fn admits_alert(&self, told: &Told) -> bool {
        (self.rules.is_empty() || any(&self.rules, told.rule()))
            && (self.namespaces.is_empty()
                || told.namespace().is_some_and(|name| any(&self.namespaces, name)))
            && self.address.is_none_or(|wanted| told.address().is_some_and(|is| holds(&wanted, is)))
            && self.is_about(|| told.principal().map(str::to_owned).into_iter().chain(told.principal_name()))
    }

    /// An incident is about several: one that fits is enough.
    fn admits_incident(&self, told: &Told) -> bool {
        let observables = || {
            let all = told.at("/observables").and_then(Value::as_array).into_iter().flatten();
            all.filter_map(|one| one.get("value")?.as_str())
        };
        let mut rules = told.texts("/unmapped/rules").chain(["incident"]);
        let mut namespaces =
            told.texts("/unmapped/services").filter_map(|name| Some(name.split_once('/')?.0));
        (self.rules.is_empty() || rules.any(|rule| any(&self.rules, rule)))
            && (self.namespaces.is_empty() || namespaces.any(|name| any(&self.namespaces, name)))
            && self.address.is_none_or(|wanted| observables().any(|is| holds(&wanted, is)))
            && self.is_about(|| observables().map(str::to_owned))
    }

    /// Whether one of these names is meant.
    fn is_about<N: Iterator<Item = String>>(&self, names: impl Fn() -> N) -> bool {
        let Some(wanted) = &self.principal else { return true };
        names().any(|name| name == *wanted || self.known_as.contains(&name))
    }

    /// Whether an exchange is wanted.
    #[must_use]
    pub fn admits_exchange(&self, of: &Exchanged) -> bool {
        let workload = || of.place.as_ref().and_then(|place| Some(place.name.split_once('/')?.0));
        self.address.is_none_or(|wanted| wanted.contains(&of.client))
            && (self.namespaces.is_empty() || workload().is_some_and(|name| any(&self.namespaces, name)))
            && self.is_about(|| {
                let principals = of.tokens.iter().filter_map(|token| token.principal.as_ref());
                principals.flat_map(|p| [shown::subject(p), shown::principal(p)])
            })
    }

    /// The parameters of a query that read back as this filter.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        add("min_severity", self.min_severity.map(|severity| severity.as_str().to_ascii_lowercase()));
        add("principal", self.principal.clone());
        add("address", self.address.map(|address| address.to_string()));
        let kind = |kind| if kind == Kind::Alert { "alert" } else { "incident" };
        add("kind", self.kind.map(|is| kind(is).to_owned()));
        add("since", self.since_ms.map(stamp));
        add("until", self.until_ms.map(stamp));
        all.extend(self.rules.iter().map(|rule| ("rule", rule.clone())));
        all.extend(self.namespaces.iter().map(|name| ("namespace", name.clone())));
        all
    }
}

fn stamp(ms: u64) -> String {
    shown::timestamp(Time(ms.saturating_mul(1_000_000)))
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), ()> {
    if place.is_some() {
        return Err(());
    }
    *place = Some(value);
    Ok(())
}

fn holds(network: &IpNet, address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|address| network.contains(&address))
}

fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, name))
}

/// Whether a name fits a pattern in which `*` stands for any run of characters. In linear space and, as only the last
/// `*` is ever tried again, in at most pattern times name steps.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if name.get(n) == Some(byte) => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((after, at)) => {
                    (p, n) = (after, at + 1);
                    retry = Some((after, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// An address, or a network.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A time in milliseconds: so long ago (`90s`, `10m`, `2h`, `3d`), RFC 3339, or a day in UTC.
#[must_use]
pub fn time(text: &str, now: Time) -> Option<u64> {
    if let Some(ago) = duration(text) {
        return Some(now.millis().saturating_sub(u64::try_from(ago.as_millis()).ok()?));
    }
    let stamp: Timestamp = match text.parse() {
        Ok(stamp) => stamp,
        Err(_) => text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    u64::try_from(stamp.as_millisecond()).ok()
}

/// `90s`, `10m`, `2h`, `3d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let unit = match text.as_bytes().last()? {
        b'd' => 86_400,
        b'h' => 3_600,
        b'm' => 60,
        b's' => 1,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    Some(Duration::from_secs(seconds)).filter(|long| *long <= LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::render::exchange::staging::exchanged;

    const NOW: Time = Time::from_secs(1_000_000);

    fn filter(parameters: &[(&str, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (name, value) in parameters {
            assert_eq!(filter.take(name, value, NOW), Ok(true), "{name}={value}");
        }
        filter.hide(&Privacy::default());
        filter
    }

    fn alert() -> Told {
        let json = json!({
            "finding_info": {"analytic": {"uid": "token-in-url"}},
            "evidences": [{
                "actor": {"user": {"uid": "a…@example.com"}, "session": {"issuer": "https://idp.example/"}},
                "src_endpoint": {"ip": "10.1.2.3"},
                "dst_endpoint": {"name": "shop/orders"},
            }],
            "unmapped": {"verified": true},
        });
        Told::new(7, 999_000_000, Severity::High, Kind::Alert, json.to_string().into())
    }

    fn incident() -> Told {
        let json = json!({
            "observables": [{"name": "a", "value": "10.1.2.3"}, {"name": "p", "value": "alice"}],
            "unmapped": {"rules": ["alg-none", "token-rate"], "services": ["shop/orders"]},
        });
        Told::new(8, 1, Severity::Low, Kind::Incident, json.to_string().into())
    }

    #[test]
    fn each_wish_admits_what_fits_and_nothing_else() {
        for (name, fits, fails) in [
            ("min_severity", "high", "critical"),
            ("rule", "token-*", "alg-*"),
            ("rule", "x,token-in-url", "token-in"),
            ("principal", "alice@example.com", "bob@example.com"),
            ("principal", "a…@example.com@idp", "alice@idp"),
            ("address", "10.0.0.0/8", "10.1.2.4"),
            ("namespace", "shop", "sho"),
            ("kind", "alert", "incident"),
            ("since", "1000s", "999s"),
            ("until", "1000s", "1001s"),
        ] {
            assert!(filter(&[(name, fits)]).admits(&alert()), "{name}={fits}");
            assert!(!filter(&[(name, fails)]).admits(&alert()), "{name}={fails}");
        }
        assert!(Filter::default().admits(&alert()) && Filter::default().admits(&incident()));
    }

    #[test]
    fn an_incident_fits_by_any_of_those_it_is_about() {
        for (name, fits, fails) in [
            ("rule", "alg-none", "alg-confusion"),
            ("rule", "incident", "incidents"),
            ("principal", "alice", "bob"),
            ("address", "10.1.2.3", "10.1.2.4"),
            ("namespace", "shop", "bank"),
            ("kind", "incident", "alert"),
        ] {
            assert!(filter(&[(name, fits)]).admits(&incident()), "{name}={fits}");
            assert!(!filter(&[(name, fails)]).admits(&incident()), "{name}={fails}");
        }
    }

    #[test]
    fn an_exchange_fits_by_whoever_takes_part() {
        for (name, fits, fails) in [
            ("principal", "alice", "bob"),
            ("principal", "alice@idp", "alice@other"),
            ("address", "10.0.3.0/24", "10.0.4.0/24"),
            ("namespace", "sh*", "bank"),
        ] {
            assert!(filter(&[(name, fits)]).admits_exchange(&exchanged()), "{name}={fits}");
            assert!(!filter(&[(name, fails)]).admits_exchange(&exchanged()), "{name}={fails}");
        }
        assert_eq!(filter(&[("rule", "x")]).about_alerts(), Some("rule"));
        assert_eq!(filter(&[("address", "10.0.0.1")]).about_alerts(), None);
    }

    #[test]
    fn who_is_hidden_is_found_by_name() {
        let privacy = Privacy::new(true, Some(b"0123456789abcdef"));
        let mut hidden = exchanged();
        privacy.exchange(&mut hidden);
        for (name, value) in [("principal", "alice"), ("principal", "alice@idp"), ("address", "10.0.3.7")] {
            let mut of = Filter::default();
            of.take(name, value, NOW).unwrap();
            assert!(!of.admits_exchange(&hidden), "{value}");
            of.hide(&privacy);
            assert!(of.admits_exchange(&hidden), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = "x".repeat(600);
        for (name, value) in [
            ("min_severity", "awful"),
            ("address", "10.0.0.0/40"),
            ("kind", "x"),
            ("since", "10"),
            ("since", "10w"),
            ("since", "-5m"),
            ("since", "99999999999999999999d"),
            ("until", "yesterday"),
            ("principal", ""),
            ("principal", &long),
        ] {
            let refusal = Filter::default().take(name, value, NOW).unwrap_err();
            assert!(refusal.status == 400 && refusal.error.contains(name), "{refusal:?}");
        }
        assert_eq!(Filter::default().take("colour", "red", NOW), Ok(false));
        let mut twice = filter(&[("since", "1h")]);
        assert!(twice.take("since", "2h", NOW).is_err());
        let many = vec!["r"; MAX_NAMES + 1].join(",");
        assert!(Filter::default().take("rule", &many, NOW).is_err());
    }

    #[test]
    fn times_are_said_in_three_ways() {
        assert_eq!(time("10m", NOW), Some(999_400_000));
        assert_eq!(time("3650d", NOW), Some(0), "there is nothing before 1970");
        assert_eq!(time("1970-01-02", NOW), Some(86_400_000));
        assert_eq!(time("1970-01-01T01:00:00+01:00", NOW), Some(0));
        assert_eq!(time("1969-01-01", NOW), None);
    }

    #[test]
    fn lanes_below_the_least_severity_are_not_read() {
        assert_eq!(Filter::default().lanes(), [true; 4]);
        assert_eq!(filter(&[("min_severity", "high")]).lanes(), [false, false, true, true]);
    }

    #[test]
    fn a_filter_survives_the_way_over_the_wire() {
        let of = filter(&[
            ("min_severity", "medium"),
            ("rule", "a,b*"),
            ("principal", "a b&c=d"),
            ("address", "10.0.0.0/8"),
            ("namespace", "shop"),
            ("kind", "incident"),
            ("since", "2h"),
            ("until", "1970-01-02"),
        ]);
        let mut back = Filter::default();
        for (name, value) in of.parameters() {
            assert_eq!(back.take(name, &value, Time(0)), Ok(true));
        }
        back.hide(&Privacy::default());
        assert_eq!(back, of);
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_its_regular_expression_does(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            let expression = format!("^{}$", pattern.replace('*', ".*"));
            prop_assert_eq!(fits(&pattern, &name), regex::Regex::new(&expression).unwrap().is_match(&name));
        }

        #[test]
        fn no_parameter_panics(name in "(since|until|address|rule|kind|min_severity)", value in ".{0,40}") {
            let _ = Filter::default().take(&name, &value, NOW);
        }
    }
}
