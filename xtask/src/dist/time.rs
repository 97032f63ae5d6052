//! The one moment that everything handed out bears: that of the commit, or what `SOURCE_DATE_EPOCH` says
//! (<https://reproducible-builds.org/specs/source-date-epoch/>). No clock is read.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::step::root;
use crate::toolchain::output;

/// Seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(pub(super) u64);

impl Epoch {
    /// The moment of this source.
    ///
    /// # Errors
    /// When there is neither the variable nor a commit.
    pub(super) fn of_the_source() -> Result<Self> {
        let set = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty());
        let of_the_commit = || output(git().args(["log", "-1", "--format=%ct"]));
        let text = set.or_else(of_the_commit).context("this is no git clone: set SOURCE_DATE_EPOCH")?;
        let seconds = text.trim().parse().with_context(|| format!("{text:?} is no count of seconds"))?;
        Ok(Self(seconds))
    }

    /// As RFC 3339 writes it, in UTC.
    pub(super) fn rfc3339(self) -> String {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// As RFC 5322 writes it, in UTC, which is what changelogs of Debian want.
    pub(super) fn rfc5322(self) -> String {
        // 1 January 1970 was a Thursday.
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        let name = |names: &[&'static str], at: u64| {
            names.get(usize::try_from(at).unwrap_or_default()).copied().unwrap_or_default()
        };
        let (weekday, month) = (name(&DAYS, days % 7), name(&MONTHS, month - 1));
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// The commit, and whether the tree differs from it.
pub(super) fn commit() -> Option<String> {
    let commit = output(git().args(["rev-parse", "HEAD"]))?.trim().to_owned();
    let changed = output(git().args(["status", "--porcelain", "--untracked-files=no"]))?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-changed") })
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(root());
    git
}

/// Year, month and day of a day counted from 1 January 1970, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_dates() {
        let text = |seconds| Epoch(seconds).rfc3339();
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(text(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(Epoch(0).rfc5322(), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(Epoch(1_700_000_000).rfc5322(), "Tue, 14 Nov 2023 22:13:20 +0000");
    }
}
