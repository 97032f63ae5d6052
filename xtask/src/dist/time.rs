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
        self.shown("%Y-%m-%dT%H:%M:%SZ")
    }

    /// As RFC 5322 writes it, in UTC, which is what changelogs of Debian want.
    pub(super) fn rfc5322(self) -> String {
        self.shown("%a, %d %b %Y %H:%M:%S +0000")
    }

    fn shown(self, format: &str) -> String {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        time.strftime(format).to_string()
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
