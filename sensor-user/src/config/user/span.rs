//! Words of rule files: lengths of time, ids, ATT&CK techniques.

use std::time::Duration;

use crate::config::word::{Word, Wrong, excerpt, quote};

/// A length of time: `90s`, `5m`, `2h`, `1d`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(pub Duration);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Word for Length {
    const WHAT: &'static str = "a length of time such as 90s, 5m, 2h or 1d";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let value = number.parse::<u64>().ok().zip(scale).and_then(|(n, scale)| n.checked_mul(scale));
        value.map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| {
            Wrong::new(format!("is {}; it must be {}", excerpt(text), Self::WHAT)).hint(if scale.is_none() {
                "add a unit: ms, s, m, h or d"
            } else {
                "write a whole number before the unit"
            })
        })
    }

    fn show(&self) -> String {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fits = UNITS.iter().rev().find(|(_, scale)| ms.is_multiple_of(*scale));
        fits.map_or_else(|| format!("{ms}ms"), |(unit, scale)| format!("{}{unit}", ms / scale))
    }
}

/// A rule's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(pub String);

impl Word for Id {
    const WHAT: &'static str = "words of small letters and digits with dashes between";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edges = text.starts_with('-') || text.ends_with('-');
        if (3..=64).contains(&text.len()) && text.bytes().all(good) && !edges {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("is {}; it must be 3 to 64 characters, {}", excerpt(text), Self::WHAT))
            .hint("for example export-by-night"))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

/// An ATT&CK technique: `T1110` or `T1110.001`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Technique(pub String);

impl Word for Technique {
    const WHAT: &'static str = "an ATT&CK technique";
    const WHAT_MANY: &'static str = "ATT&CK techniques";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        let good = text.strip_prefix('T').is_some_and(|rest| match rest.split_once('.') {
            Some((technique, part)) => digits(technique, 4) && digits(part, 3),
            None => digits(rest, 4),
        });
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("holds {}, which is no ATT&CK technique", excerpt(text)))
            .hint("write T1110 or T1110.001"))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_units() {
        for (text, ms) in
            [("90s", 90_000), ("5m", 300_000), ("24h", 86_400_000), ("1d", 86_400_000), ("7ms", 7)]
        {
            assert_eq!(Length::parse(text).unwrap().0.as_millis(), ms);
        }
        assert_eq!(Length::parse("86400s").unwrap().show(), "1d");
        for wrong in ["", "5", "m", "5 m", "-5m", "1.5h", "99999999999999999999s", "18446744073709551615d"] {
            assert!(Length::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_and_techniques_are_strict() {
        assert!(
            Id::parse("export-by-night").is_ok() && Id::parse("Export").is_err() && Id::parse("-ab").is_err()
        );
        assert!(Technique::parse("T1110.001").is_ok() && Technique::parse("T111").is_err());
        assert!(Technique::parse("1110").is_err() && Technique::parse("T1110.1").is_err());
    }
}
