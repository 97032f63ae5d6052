//! The sections about detections: `rules` and `alerts`. Their keys come from the rules' own cards.

use std::time::Duration;

use crate::config::near::nearest;
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::detect::{About, Severity, Thresholds};

/// What is set of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSettings {
    /// The rule's id.
    pub id: &'static str,
    /// Whether it is asked at all.
    pub enabled: bool,
    /// Fixes its severity, attempt and success alike.
    pub severity: Option<Severity>,
    /// Its numbers, each set or shipped.
    pub thresholds: Thresholds,
}

/// What becomes of findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// How long repeats join an open alert.
    pub dedup_window: Duration,
    /// How long a rule keeps silent about the same thing afterwards; every rule is named.
    pub cooling: Vec<(&'static str, Duration)>,
    /// How long an incident waits for more alerts.
    pub incident_window: Duration,
}

/// Ids of the catalogue that are yet to come. A configuration may name them, so that one file serves two versions.
const LATER: [&str; 2] = ["behaviour-anomaly", "behaviour-drift"];

/// Reads `rules`: one section a rule of the catalogue.
pub(super) fn read(s: &mut Section<'_, '_>, cards: &[&'static About]) -> Vec<RuleSettings> {
    skip_later(s, cards);
    cards.iter().map(|card| s.section(card.id, card.title, |s| read_rule(s, card))).collect()
}

fn read_rule(s: &mut Section<'_, '_>, card: &'static About) -> RuleSettings {
    let enabled = s.word("enabled", true, "Whether the rule is asked.");
    let worst = card
        .accepted
        .map_or(String::new(), |severity| format!(", {severity} if the application accepted it"));
    let doc = format!("Fixes the severity. Shipped: {}{worst}.", card.severity);
    let severity = s.optional("severity", &doc);
    let numbers = card.thresholds.iter();
    let numbers = numbers.map(|t| (t.key, s.decimal(t.key, t.default, t.min..=t.max, t.doc))).collect();
    RuleSettings { id: card.id, enabled, severity, thresholds: Thresholds(numbers) }
}

impl Alerts {
    pub(super) fn read(s: &mut Section<'_, '_>, cards: &[&'static About]) -> Self {
        let doc = "Seconds in which repeats of a finding join its open alert instead of raising another.";
        let dedup_window = Duration::from_secs(s.number("dedup_window_s", 600, 1..=86_400, doc));
        let doc = "Seconds that a rule keeps silent about the same thing afterwards, by rule; worse always breaks through.";
        let cooling = s.section("cooling_s", doc, |s| {
            skip_later(s, cards);
            let one = |card: &&'static About| {
                (card.id, Duration::from_secs(s.number(card.id, card.cooling_s.into(), 0..=604_800, "")))
            };
            cards.iter().map(one).collect()
        });
        let doc = "Seconds after its newest finding in which another alert about the same principal, token or address joins an incident. None lasts longer than a day.";
        let incident_window = Duration::from_secs(s.number("incident_window_s", 1800, 1..=86_400, doc));
        Self { dedup_window, cooling, incident_window }
    }
}

/// Warns of ids that are yet to come, and takes them off the list of unknown keys.
fn skip_later(s: &mut Section<'_, '_>, cards: &[&'static About]) {
    for key in s.keys() {
        if LATER.contains(&key.text.as_str()) && !cards.iter().any(|card| card.id == key.text) {
            let message = format!("the rule `{}` is not in this version; this has no effect", key.text);
            s.report(Problem::warning(key.span, message));
            s.accept(&key.text);
        }
    }
}

/// The card of a rule, or the id that was probably meant.
///
/// # Errors
/// With the nearest id, if there is a near one.
pub fn find<'a>(id: &str, cards: &'a [&'static About]) -> Result<&'static About, Option<&'a str>> {
    match cards.iter().find(|card| card.id == id) {
        Some(card) => Ok(card),
        None => Err(nearest(id, cards.iter().map(|card| card.id))),
    }
}
