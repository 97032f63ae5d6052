//! Correlation over time, in Sigma's words: how many, how many different, all of these, all of these in order.
//!
//! Exchanges are put into groups by the values of fields. Each group keeps a small fixed state, in a table that is
//! bounded, evicts fairly and counts what it evicts. Time is the data's. Windows slide in sixtieths of their length for
//! counts, exactly otherwise. A group is known by a 64-bit hash of its values: two groups may share one, once in
//! billions.
//!
//! Memory of one group: 160 bytes for `event_count`, 100 for the temporal kinds; `value_count` adds 16 for each value
//! that it has to tell apart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::detect::holder::holder;
use crate::detect::roster::stable_hash;
use crate::detect::table::Table;
use crate::detect::user::expr::Node;
use crate::detect::user::field::Field;
use crate::detect::user::value::{Facts, Value};
use crate::detect::window::Buckets;

/// Buckets of a window: a sixtieth is as exact as a person who writes "five minutes" means it.
const BUCKETS: u64 = 60;

/// Most steps of a temporal rule.
pub const MAX_STEPS: usize = 8;

/// Most values that `value_count` tells apart in one group: beyond it, "many" is exact enough.
pub const MAX_VALUES: u32 = 1000;

/// When a count is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// `gte`, and `gt` of one less.
    AtLeast(u32),
    /// `eq`: at the event that makes it so many, and not after.
    Exactly(u32),
}

impl Threshold {
    /// Whether a count is enough.
    #[must_use]
    pub const fn is_met(self, count: u32) -> bool {
        match self {
            Self::AtLeast(least) => count >= least,
            Self::Exactly(exact) => count == exact,
        }
    }

    /// The count that it needs.
    #[must_use]
    pub const fn needs(self) -> u32 {
        match self {
            Self::AtLeast(n) | Self::Exactly(n) => n,
        }
    }
}

/// What is looked for in a group.
#[derive(Clone, Debug)]
pub enum Kind {
    /// So many events; each further pair of window and threshold must hold too.
    Events(Threshold, Vec<(Duration, Threshold)>),
    /// So many different values.
    Values(Node, Threshold),
    /// Every step, in any order.
    Any(Vec<Node>),
    /// Every step, in this order.
    Ordered(Vec<Node>),
}

/// A correlation.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// What is looked for.
    pub kind: Kind,
    /// Fields and headers whose values make a group; none for one group of all.
    pub group_by: Vec<Node>,
    /// How long events stay.
    pub window: Duration,
    /// Groups at most.
    pub groups: usize,
}

/// A value that was seen, and when last: hash and milliseconds.
type Sight = (u64, u64);

/// What is remembered of every group of one rule.
#[derive(Debug, Serialize, Deserialize)]
pub enum Groups {
    /// The rule does not correlate.
    None,
    /// Counts.
    Events(Table<u64, Buckets<60>>),
    /// Values, oldest first.
    Values(Table<u64, Vec<Sight>>),
    /// When each step was seen last; for ordered steps, when the chain up to it began. Milliseconds; 0 is never.
    Steps(Table<u64, [u64; MAX_STEPS]>),
}

/// A correlation that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Events, values or steps.
    pub count: u32,
}

impl Groups {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(correlation: Option<&Correlation>) -> Self {
        let Some(correlation) = correlation else { return Self::None };
        match correlation.kind {
            Kind::Events(..) => Self::Events(Table::new(correlation.groups)),
            Kind::Values(..) => Self::Values(Table::new(correlation.groups)),
            Kind::Any(_) | Kind::Ordered(_) => Self::Steps(Table::new(correlation.groups)),
        }
    }

    /// Groups now.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Events(table) => table.len(),
            Self::Values(table) => table.len(),
            Self::Steps(table) => table.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Groups that had to be forgotten.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Events(table) => table.evicted(),
            Self::Values(table) => table.evicted(),
            Self::Steps(table) => table.evicted(),
        }
    }

    /// Sets the cap.
    pub fn limit(&mut self, cap: usize) {
        match self {
            Self::None => {}
            Self::Events(table) => table.limit(cap),
            Self::Values(table) => table.limit(cap),
            Self::Steps(table) => table.limit(cap),
        }
    }

    /// Takes an exchange in that matched the rule's condition. What lacks a field of its group has none.
    pub fn take(&mut self, correlation: &Correlation, facts: &dyn Facts, at_ms: u64) -> Option<Hit> {
        let window = millis(correlation.window);
        match (&correlation.kind, self) {
            (Kind::Events(need, also), Self::Events(table)) => {
                let counts = table.get_or(group(correlation, facts)?, Buckets::default)?;
                count(counts, at_ms, window, *need, also)
            }
            (Kind::Values(of, need), Self::Values(table)) => {
                let value = hash_of(of, &of.value(facts).ok()?, facts);
                let sights = table.get_or(group(correlation, facts)?, Vec::new)?;
                see(sights, (value, at_ms), window, *need)
            }
            (Kind::Any(steps), Self::Steps(table)) => {
                let matched = matched(steps, facts)?;
                let seen = table.get_or(group(correlation, facts)?, Default::default)?;
                any_order(seen, steps.len(), matched, at_ms, window)
            }
            (Kind::Ordered(steps), Self::Steps(table)) => {
                let matched = matched(steps, facts)?;
                let begun = table.get_or(group(correlation, facts)?, Default::default)?;
                in_order(begun, steps.len(), matched, at_ms, window)
            }
            _ => None,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The group of an exchange.
fn group(correlation: &Correlation, facts: &dyn Facts) -> Option<u64> {
    let mut hashes = smallvec::SmallVec::<[u64; 4]>::new();
    for node in &correlation.group_by {
        hashes.push(hash_of(node, &node.value(facts).ok()?, facts));
    }
    Some(stable_hash(hashes.as_slice()))
}

/// A client is who holds the address; a principal is told apart from its namesake at another issuer.
fn hash_of(node: &Node, value: &Value<'_>, facts: &dyn Facts) -> u64 {
    match (node, value) {
        (_, Value::Address(address)) => stable_hash(&holder(*address)),
        (Node::Field(Field::Principal), Value::Text(subject)) => match facts.value(Field::TokenIssuer) {
            Some(Value::Text(issuer)) => stable_hash(&(&**subject, &*issuer)),
            _ => stable_hash(&(&**subject, "")),
        },
        (_, Value::Text(text)) => stable_hash(&**text),
        (_, Value::Int(number)) => stable_hash(number),
        (_, Value::Bool(flag)) => stable_hash(flag),
        (_, Value::Texts(texts)) => {
            let mut all = Vec::with_capacity(texts.len());
            texts.iter().for_each(|text| all.push(text));
            stable_hash(all.as_slice())
        }
    }
}

fn count(
    counts: &mut Buckets<60>,
    at_ms: u64,
    window: u64,
    need: Threshold,
    also: &[(Duration, Threshold)],
) -> Option<Hit> {
    let width = window.div_ceil(BUCKETS).max(1);
    let bucket = at_ms / width;
    counts.add(bucket);
    let within = |time: u64| counts.sum(bucket, time.div_ceil(width).min(BUCKETS));
    let total = within(window);
    let met = need.is_met(total) && also.iter().all(|(time, need)| need.is_met(within(millis(*time))));
    met.then_some(Hit { count: total })
}

fn see(sights: &mut Vec<Sight>, sight: Sight, window: u64, need: Threshold) -> Option<Hit> {
    let (value, at_ms) = sight;
    sights.retain(|(other, last)| *other != value && at_ms.saturating_sub(*last) < window);
    // One more than is needed tells "exactly" from "more".
    let room = need.needs().min(MAX_VALUES) as usize + 1;
    if sights.len() >= room {
        sights.remove(0);
    }
    sights.push(sight);
    let count = u32::try_from(sights.len()).unwrap_or(u32::MAX);
    need.is_met(count).then_some(Hit { count })
}

/// Which steps an exchange is, as bits; none if it is no step.
fn matched(steps: &[Node], facts: &dyn Facts) -> Option<u8> {
    let bits = steps.iter().enumerate().map(|(at, step)| u8::from(step.test(facts) == Ok(true)) << at.min(7));
    Some(bits.sum::<u8>()).filter(|bits| *bits != 0)
}

fn any_order(seen: &mut [u64], steps: usize, matched: u8, at_ms: u64, window: u64) -> Option<Hit> {
    for (at, last) in seen.iter_mut().enumerate().take(steps) {
        if matched & (1 << at) != 0 {
            *last = (*last).max(at_ms);
        }
    }
    let fresh = |last: &u64| *last != 0 && at_ms.saturating_sub(*last) < window;
    finish(seen, steps, seen.iter().take(steps).all(fresh))
}

fn in_order(begun: &mut [u64], steps: usize, matched: u8, at_ms: u64, window: u64) -> Option<Hit> {
    // From the last step back, so that one exchange is not two steps of one chain.
    for at in (0..steps).rev().filter(|at| matched & (1 << at) != 0) {
        let chain = match at.checked_sub(1) {
            None => at_ms,
            Some(before) => match begun.get(before) {
                Some(start) if *start != 0 && at_ms.saturating_sub(*start) < window => *start,
                _ => continue,
            },
        };
        if let Some(place) = begun.get_mut(at) {
            *place = (*place).max(chain);
        }
    }
    let done = steps.checked_sub(1).and_then(|last| begun.get(last)).is_some_and(|began| *began != 0);
    finish(begun, steps, done)
}

/// What is complete begins anew.
fn finish(state: &mut [u64], steps: usize, done: bool) -> Option<Hit> {
    if !done {
        return None;
    }
    state.fill(0);
    Some(Hit { count: u32::try_from(steps).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn events_slide_out_of_the_window() {
        let mut counts = Buckets::default();
        let mut at = |ms| count(&mut counts, ms, MINUTE, Threshold::AtLeast(3), &[]);
        assert_eq!([0, 10_000, 20_000].map(&mut at), [None, None, Some(Hit { count: 3 })]);
        assert_eq!(at(61_000), Some(Hit { count: 3 }), "the first slid out");
        assert_eq!(at(200_000), None);
    }

    #[test]
    fn a_burst_must_be_recent_where_the_rule_says_so() {
        let also = [(Duration::from_mins(1), Threshold::AtLeast(11))];
        let mut counts = Buckets::default();
        let mut at = |ms| count(&mut counts, ms, 5 * MINUTE, Threshold::AtLeast(21), &also).is_some();
        assert!((0..28).all(|i| !at(i * 10_000)), "six a minute are slow");
        assert!((0..12).any(|i| at(280_000 + i * 500)));
    }

    #[test]
    fn values_count_once_each() {
        let mut sights = Vec::new();
        let mut at = |value, ms| see(&mut sights, (value, ms), MINUTE, Threshold::AtLeast(3)).is_some();
        assert!(!at(1, 1000) && !at(1, 2000) && !at(2, 3000) && at(3, 4000) && at(1, 5000));
        assert!(!at(1, 64_500), "the others slid out");
        for value in 0..5000 {
            at(value, 70_000 + value);
        }
        assert!(sights.len() <= 4);
    }

    #[test]
    fn exactly_is_said_once() {
        let mut counts = Buckets::default();
        let hits = (0..5).filter(|i| count(&mut counts, *i, MINUTE, Threshold::Exactly(3), &[]).is_some());
        assert_eq!(hits.count(), 1);
        let mut sights = Vec::new();
        let hits = (0..5).filter(|i| see(&mut sights, (*i, *i), MINUTE, Threshold::Exactly(3)).is_some());
        assert_eq!(hits.count(), 1);
    }

    #[test]
    fn order_matters_only_where_it_is_asked_for() {
        let any = |steps: [u8; 3]| {
            let mut seen = [0; MAX_STEPS];
            steps.into_iter().zip(1..).any(|(s, at)| any_order(&mut seen, 3, s, at, 100).is_some())
        };
        let ordered = |steps: [u8; 3]| {
            let mut begun = [0; MAX_STEPS];
            steps.into_iter().zip(1..).any(|(s, at)| in_order(&mut begun, 3, s, at, 100).is_some())
        };
        assert!(any([1, 2, 4]) && any([4, 1, 2]) && !any([1, 2, 2]));
        assert!(ordered([1, 2, 4]) && !ordered([2, 1, 4]) && !ordered([4, 2, 1]));
        assert!(!ordered([7, 1, 1]), "one exchange is one step");
    }

    proptest! {
        /// The chain state finds exactly what a search through all events finds.
        #[test]
        fn finds_every_chain(events in prop::collection::vec((0_u8..8, 1_u64..30), 0..25), window in 1_u64..80) {
            let mut begun = [0; MAX_STEPS];
            let (mut at, mut since) = (0, 0);
            let mut seen: Vec<(u8, u64)> = Vec::new();
            for (matched, gap) in events {
                at += gap;
                seen.push((matched, at));
                let mut best = [0_u64; 4];
                for (bits, t) in seen.iter().skip(since) {
                    for step in (0..3).rev().filter(|s| bits & (1 << s) != 0) {
                        let from = if step == 0 { *t } else { best[step - 1] };
                        if from != 0 && t - from < window { best[step] = best[step].max(from); }
                    }
                }
                let hit = in_order(&mut begun, 3, matched, at, window);
                prop_assert_eq!(hit.is_some(), best[2] != 0);
                if hit.is_some() { since = seen.len(); }
            }
        }
    }
}
