//! `token-rate`: one token that asks faster than people do.

use std::sync::Arc;

use crate::capture::Time;
use crate::detect::pace::Paces;
use crate::detect::statement::{Statement, Subject};
use crate::detect::{
    About, Case, DetectSettings, Memory, Needs, Report, Rule, Severity, Slot, Threshold, When,
};

/// The card.
pub static ABOUT: About = About {
    id: "token-rate",
    title: "Token used at a high rate",
    version: "1.0.0",
    severity: Severity::Low,
    accepted: None,
    attack: &["T1499"],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Fires when one token makes more than 10 requests a second, sustained over the window of 5 seconds: \
more than 50 requests in 5 one-second buckets. Above 100 a second it is medium.\n\nA token in a script, a \
scraper or a denial of service is faster than its owner. A page that loads thirty resources at once is not: it \
does not go on.\n\nBenign source: service tokens of busy back ends; raise `per_second`, or disable the rule. \
While the rate stays high the finding repeats once a minute. Every token counts, judged or not: volume hurts \
whoever sent it.",
    cooling_s: 300,
    thresholds: &[
        Threshold {
            key: "per_second",
            default: 10.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Requests a second, on average over the window, above which it fires.",
        },
        Threshold {
            key: "medium_per_second",
            default: 100.0,
            min: 1.0,
            max: 1_000_000.0,
            doc: "Requests a second above which it is medium.",
        },
        Threshold { key: "window_s", default: 5.0, min: 1.0, max: 15.0, doc: "Length of the window." },
    ],
};

/// Seconds between two findings about one token whose rate stays high.
const QUIET_S: u32 = 60;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    let window_s = settings.count(&ABOUT, "window_s").max(1);
    Box::new(TokenRate {
        window_s: u64::from(window_s),
        low: settings.count(&ABOUT, "per_second").saturating_mul(window_s),
        medium: settings.count(&ABOUT, "medium_per_second").saturating_mul(window_s),
        paces: Paces::default(),
    })
}

/// Until when nothing more is said of what is told now.
fn quiet_until(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX).saturating_add(QUIET_S)
}

struct TokenRate {
    window_s: u64,
    low: u32,
    medium: u32,
    paces: Paces,
}

impl TokenRate {
    /// Counts one use; the number in the window if that is news.
    #[inline]
    fn count(&mut self, token: Slot, at: Time) -> Option<u32> {
        let second = at.secs();
        let Some(calm) = self.paces.note(token, second) else { return self.count_busy(token, second) };
        let count = calm.sum(second, self.window_s);
        if count <= self.low || (second < u64::from(calm.quiet_until_s) && count <= self.medium) {
            return None;
        }
        if count > self.medium {
            self.paces.hurry(token);
            return self.tell(token, second, count);
        }
        calm.quiet_until_s = quiet_until(second);
        Some(count)
    }

    /// The same for a token that is used more than a place can count, or that more was told of.
    fn count_busy(&mut self, token: Slot, second: u64) -> Option<u32> {
        let pace = self.paces.busy(token)?;
        pace.counts.add(second);
        let count = pace.counts.sum(second, self.window_s);
        self.tell(token, second, count)
    }

    fn tell(&mut self, token: Slot, second: u64, count: u32) -> Option<u32> {
        let pace = self.paces.busy(token)?;
        let grown = count > self.medium && !pace.told_medium;
        if count <= self.low || (second < u64::from(pace.quiet_until_s) && !grown) {
            return None;
        }
        pace.quiet_until_s = quiet_until(second);
        pace.told_medium = count > self.medium;
        Some(count)
    }
}

impl Rule for TokenRate {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::TOKEN
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.paces)
    }

    fn glance(&self, token: u32, _actor: u32) -> bool {
        self.paces.glance(token);
        true
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let Some(token) = case.who.token(held.token.fingerprint) else { continue };
            let Some(count) = self.count(token.slot, case.exchange.at) else { continue };
            let window_s = self.window_s;
            let statement = Statement {
                severity: if count > self.medium { Severity::Medium } else { ABOUT.severity },
                confidence: 90,
                message: format!(
                    "One token made {count} requests within {window_s} s, the newest to {}.",
                    case.route.name
                ),
                brief: format!("{count} requests in {window_s} s"),
                facts: vec![("requests", count.into()), ("window_s", window_s.into())],
            };
            report.push(statement.into_finding(&ABOUT, &Subject::new(case, held)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};

    /// Asks with one token every `gap_ms`, `n` times; the milliseconds at which the rule spoke.
    fn spoke(rule: &mut dyn Rule, number: u64, gap_ms: u64, n: u64) -> Vec<(u64, Severity)> {
        let ask = |i: u64| Stage::new().status(200).after_ms(i * gap_ms).ask(rule, [token(number)]);
        let found: Vec<_> = (0..n).map(ask).collect();
        found.iter().zip(0..).flat_map(|(f, i)| f.iter().map(move |f| (i * gap_ms, f.severity))).collect()
    }

    #[test]
    fn fires_above_ten_a_second_and_repeats_each_minute() {
        let mut rule = rule(&Arc::default());
        assert_eq!(spoke(&mut *rule, 1, 100, 1000), []);
        let spoken = spoke(&mut *rule, 2, 90, 1500);
        assert_eq!(spoken.len(), 3, "{spoken:?}");
        assert!(spoken.iter().all(|(_, s)| *s == Severity::Low));
    }

    #[test]
    fn a_page_that_loads_is_no_flood() {
        assert_eq!(spoke(&mut *rule(&Arc::default()), 1, 1, 50), []);
    }

    #[test]
    fn grows_to_medium_at_once() {
        let spoken = spoke(&mut *rule(&Arc::default()), 1, 1, 600);
        assert_eq!(spoken, [(50, Severity::Low), (500, Severity::Medium)]);
    }

    #[test]
    fn many_tokens_are_counted_each() {
        let mut rule = rule(&Arc::default());
        for number in 0..1000 {
            assert!(Stage::new().after_ms(number).ask(&mut *rule, [token(number)]).is_empty());
        }
    }
}
