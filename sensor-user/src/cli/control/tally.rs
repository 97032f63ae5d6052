//! What a stream came to: the line on standard error when it ends.

use std::ops::Range;

/// What was shown, and what was missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Tally {
    /// Events shown.
    pub(in crate::cli) shown: u64,
    /// Events that are lost to this reader.
    pub(in crate::cli) lost: u64,
    /// How often the stream began again.
    pub(in crate::cli) again: u64,
}

impl Tally {
    /// Counts numbers that are lost, and says so.
    pub(in crate::cli) fn gap(&mut self, lost: &Range<u64>) -> String {
        let count = lost.end.saturating_sub(lost.start);
        self.lost += count;
        let end = lost.end.saturating_sub(1);
        let which = if count == 1 { format!("{end} is") } else { format!("{} to {end} are", lost.start) };
        format!("GAP: number {which} lost: given up before being read ({count})\n")
    }

    /// Counts exchanges that were missed, and says so.
    pub(in crate::cli) fn missed(&mut self, count: u64) -> String {
        self.lost += count;
        format!("GAP: {count} exchanges came faster than they were read\n")
    }

    /// Everything in one line.
    pub(in crate::cli) fn summary(&self, what: &str) -> String {
        let gaps = if self.lost == 0 { "no gaps".to_owned() } else { format!("{} lost", self.lost) };
        let again = match self.again {
            0 => String::new(),
            1 => ", connected again once".to_owned(),
            times => format!(", connected again {times} times"),
        };
        format!("{} {what} shown, {gaps}{again}\n", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_said_loudly_and_counted() {
        let mut tally = Tally { shown: 3, again: 1, ..Tally::default() };
        assert_eq!(tally.summary("alerts"), "3 alerts shown, no gaps, connected again once\n");
        assert_eq!(tally.gap(&(3..6)), "GAP: number 3 to 5 are lost: given up before being read (3)\n");
        assert_eq!(tally.gap(&(9..10)), "GAP: number 9 is lost: given up before being read (1)\n");
        assert_eq!(tally.missed(7), "GAP: 7 exchanges came faster than they were read\n");
        assert_eq!(tally.summary("alerts"), "3 alerts shown, 11 lost, connected again once\n");
    }
}
