//! What a run came to: the line on standard error at its end.

use std::fmt::Write as _;
use std::time::Duration;

/// Sums over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Exchanges judged.
    pub exchanges: u64,
    /// Uses of tokens.
    pub tokens: u64,
    /// Alerts by severity: low, medium, high, critical.
    pub alerts: [u64; 4],
    /// Captured records that were lost, for whatever reason.
    pub lost: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Totals {
    /// One line: `replayed 1 file: 320,030 exchanges, 320,030 tokens, 2 alerts (1 critical, 1 high), 0 lost in 0.9 s`.
    #[must_use]
    pub fn summary(&self, verb: &str) -> String {
        let alerts: u64 = self.alerts.iter().sum();
        let mut line = format!(
            "{verb}: {}, {}, {}",
            count(self.exchanges, "exchange"),
            count(self.tokens, "token"),
            count(alerts, "alert")
        );
        let named = self.alerts.iter().zip(["low", "medium", "high", "critical"]).rev();
        let named: Vec<_> =
            named.filter(|(n, _)| **n > 0).map(|(n, name)| format!("{} {name}", grouped(*n))).collect();
        if !named.is_empty() {
            let _ = write!(line, " ({})", named.join(", "));
        }
        let _ = write!(line, ", {} lost in {}", grouped(self.lost), duration(self.elapsed));
        let millis = self.elapsed.as_millis();
        // Below a tenth of a second a rate says more about the clock than about us.
        if millis >= 100 && self.exchanges > 0 {
            let rate = u128::from(self.exchanges) * 1_000 / millis;
            let _ = write!(line, ", {} exchanges/s", grouped(u64::try_from(rate).unwrap_or(u64::MAX)));
        }
        line
    }
}

fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn duration(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        60..3_600 => format!("{} min {} s", elapsed.as_secs() / 60, elapsed.as_secs() % 60),
        secs => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_in_one_line() {
        let totals = Totals {
            exchanges: 320_030,
            tokens: 1,
            alerts: [0, 2, 0, 1],
            lost: 0,
            elapsed: Duration::from_millis(900),
        };
        assert_eq!(
            totals.summary("replayed 1 file"),
            "replayed 1 file: 320,030 exchanges, 1 token, 3 alerts (1 critical, 2 medium), 0 lost in 0.9 s, 355,588 exchanges/s"
        );
        assert_eq!(
            Totals::default().summary("watched"),
            "watched: 0 exchanges, 0 tokens, 0 alerts, 0 lost in 0.0 s"
        );
    }

    #[test]
    fn groups_and_measures() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(duration(Duration::from_mins(121)), "2 h 1 min");
    }
}
