//! A user rule as it is asked: everything checked, nothing left to look up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::detect::user::correlate::{Correlation, Kind};
use crate::detect::user::expr::Node;
use crate::detect::user::field::Field;
use crate::detect::user::guard::Guard;
use crate::detect::user::message::Template;
use crate::detect::user::played::Example;
use crate::detect::user::value::{Counted, Facts};
use crate::detect::{About, Needs, Severity};

/// Most rules: beyond it a person no longer knows what runs.
pub const MAX_RULES: usize = 500;

/// Memory that the groups of all rules may take: 64 MiB beside the sensor's own histories of up to 1 GiB.
const MAX_GROUP_BYTES: usize = 64 << 20;

/// Cards that one run of the sensor makes at most, some 500 bytes each. They are never given back: see
/// docs/decisions/0006-user-rules.md.
const MAX_CARDS: usize = 4096;

/// How bad a finding is.
#[derive(Clone, Debug)]
pub struct SeverityPlan {
    /// Conditions, worst first: the first that holds decides.
    pub when: Vec<(Severity, Node)>,
    /// If the application answered 2xx.
    pub accepted: Option<Severity>,
    /// Otherwise.
    pub otherwise: Severity,
}

impl SeverityPlan {
    /// How bad this exchange is.
    #[must_use]
    pub fn of(&self, facts: &Counted<'_>) -> Severity {
        if let Some((severity, _)) = self.when.iter().find(|(_, when)| when.test(facts) == Ok(true)) {
            return *severity;
        }
        let success =
            matches!(facts.value(Field::Status), Some(crate::detect::user::value::Value::Int(200..300)));
        self.accepted.filter(|_| success).unwrap_or(self.otherwise)
    }
}

/// What a rule has done since it was loaded.
#[derive(Debug, Default)]
pub struct Figures {
    /// Findings.
    pub findings: AtomicU64,
    /// Conditions that could not be computed.
    pub faults: AtomicU64,
    /// Groups now.
    pub groups: AtomicU64,
    /// Groups that had to be forgotten.
    pub evicted: AtomicU64,
}

impl Figures {
    /// Counts one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A user rule.
#[derive(Debug)]
pub struct UserRule {
    /// Its card.
    pub about: &'static About,
    /// What its author says of it.
    pub description: String,
    /// The file that it comes from.
    pub file: PathBuf,
    /// Files of its lists.
    pub list_files: Vec<PathBuf>,
    /// A hash of all its text: a rule that is the same keeps its memory.
    pub version_hash: u64,
    /// Whether it is asked.
    pub enabled: bool,
    /// What an exchange must be.
    pub when: Node,
    /// What it must not be.
    pub exceptions: Vec<Node>,
    /// How bad it is.
    pub severity: SeverityPlan,
    /// How sure, 0 to 100.
    pub confidence: u8,
    /// What must come together.
    pub correlation: Option<Correlation>,
    /// The sentence.
    pub message: Template,
    /// Its own tests.
    pub examples: Vec<Example>,
    /// What it has done.
    pub figures: Figures,
}

impl UserRule {
    /// Where it may match.
    #[must_use]
    pub fn guard(&self) -> Guard {
        match self.correlation.as_ref().map(|c| &c.kind) {
            Some(Kind::Any(steps) | Kind::Ordered(steps)) => {
                Guard::of(&self.when).meet(steps.iter().map(Guard::of).fold(Guard::NONE, Guard::or))
            }
            _ => Guard::of(&self.when),
        }
    }

    /// Calls `see` for every field that decides whether it fires.
    pub fn fields(&self, see: &mut dyn FnMut(Field)) {
        self.when.fields(see);
        self.exceptions.iter().for_each(|node| node.fields(see));
        self.severity.when.iter().for_each(|(_, node)| node.fields(see));
        let Some(correlation) = &self.correlation else { return };
        correlation.group_by.iter().for_each(|node| node.fields(see));
        match &correlation.kind {
            Kind::Events(..) => {}
            Kind::Values(of, _) => of.fields(see),
            Kind::Any(steps) | Kind::Ordered(steps) => steps.iter().for_each(|step| step.fields(see)),
        }
    }

    /// Bytes of one group; 0 without correlation.
    fn group_bytes(&self) -> usize {
        match self.correlation.as_ref().map(|c| &c.kind) {
            None => 0,
            Some(Kind::Events(..)) => 160,
            Some(Kind::Values(_, need)) => 64 + 16 * (need.needs() as usize + 1),
            Some(Kind::Any(_) | Kind::Ordered(_)) => 100,
        }
    }

    /// Groups that it may have among so many correlating rules: its own cap, or its share of the memory.
    #[must_use]
    pub fn max_groups(&self, correlating: usize) -> usize {
        let share = MAX_GROUP_BYTES / correlating.max(1) / self.group_bytes().max(1);
        self.correlation.as_ref().map_or(0, |c| c.groups.min(share)).max(1)
    }
}

/// The user rules in force, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct UserRules {
    /// Those that are asked, by id.
    pub rules: Vec<Arc<UserRule>>,
    /// Files that are not in force as they are: they have errors, and their last good version runs, if there is one.
    pub bad_files: u64,
    /// Readings of the directory that changed something and found no error.
    pub reloads: u64,
    /// Readings that found errors.
    pub refusals: u64,
}

/// What a card is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Card {
    /// The rule's id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Severity otherwise.
    pub severity: Severity,
    /// Severity if accepted.
    pub accepted: Option<Severity>,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// Whether it correlates.
    pub behavioural: bool,
    /// Whether it names a token.
    pub of_token: bool,
    /// Cooling.
    pub cooling_s: u32,
}

/// The card of a rule, kept for ever. Two rules that say the same share one; none when there are too many.
#[must_use]
pub fn card(card: Card) -> Option<&'static About> {
    static CARDS: Mutex<Option<HashMap<Card, &'static About>>> = Mutex::new(None);
    let mut cards = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
    let cards = cards.get_or_insert_default();
    if let Some(about) = cards.get(&card) {
        return Some(about);
    }
    if cards.len() >= MAX_CARDS {
        return None;
    }
    let keep = |text: &str| -> &'static str { Box::leak(text.into()) };
    let attack: Vec<&'static str> = card.attack.iter().map(|id| keep(id)).collect();
    let about = About {
        id: keep(&card.id),
        title: keep(&card.title),
        version: keep(&card.version),
        severity: card.severity,
        accepted: card.accepted,
        attack: Box::leak(attack.into()),
        behavioural: card.behavioural,
        needs: if card.of_token { Needs::Verdict } else { Needs::Exchange },
        doc: "A rule of the user's own.",
        cooling_s: card.cooling_s,
        thresholds: &[],
    };
    let about: &'static About = Box::leak(Box::new(about));
    cards.insert(card, about);
    Some(about)
}
