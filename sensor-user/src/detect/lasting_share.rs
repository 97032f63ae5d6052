//! The share of a service's answers that is bad, and stays so: above a fixed limit for two minutes in a row, of five
//! whole minutes each time. How many of all were errors, how many slow. What is compared with the usual instead is an
//! [`UnusualShare`](crate::detect::unusual_share::UnusualShare).

use serde::{Deserialize, Serialize};

use crate::detect::Threshold;

/// Whole minutes that are looked at.
const MINUTES: u32 = 5;

/// The threshold below which a share says nothing.
pub const LEAST_ANSWERS: Threshold = Threshold {
    key: "least_answers",
    default: 200.0,
    min: 10.0,
    max: 1_000_000.0,
    doc: "Answers within five minutes below which nothing is said.",
};

/// What was counted in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All answers.
    pub all: u32,
    /// Those that count towards the lower limit.
    pub some: u32,
    /// Those that count towards the higher limit.
    pub worse: u32,
}

impl Tally {
    /// Whether more than `percent` of all, and at least `least`, are `part`.
    #[must_use]
    pub fn exceeds(&self, part: u32, percent: f64, least: u32) -> bool {
        part >= least && f64::from(part) * 100.0 > f64::from(self.all) * percent
    }
}

/// Tallies of the minute at hand and the five before it: 80 bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastingShare {
    minute: u32,
    now: Tally,
    past: [Tally; MINUTES as usize],
    /// The level of the minute before.
    level: u8,
    /// The level told last, and until when it need not be told again.
    told: (u8, u32),
}

impl LastingShare {
    /// Counts an answer. If it is the first of a new minute: the sum of the five minutes before it.
    pub fn add(&mut self, second: u32, some: bool, worse: bool) -> Option<Tally> {
        let minute = second / 60;
        let mut ended = None;
        if minute > self.minute {
            for passed in self.minute..minute.min(self.minute.saturating_add(MINUTES + 1)) {
                if let Some(past) = self.past.get_mut((passed % MINUTES) as usize) {
                    *past = std::mem::take(&mut self.now);
                }
            }
            if minute - self.minute > MINUTES {
                self.past = Default::default();
                self.level = 0;
            }
            self.minute = minute;
            ended = Some(self.sum());
        }
        self.now.all = self.now.all.saturating_add(1);
        self.now.some = self.now.some.saturating_add(u32::from(some));
        self.now.worse = self.now.worse.saturating_add(u32::from(worse));
        ended
    }

    /// The level (0: all is well) that holds for two minutes in a row, if that is news: higher than what was told, or
    /// `again_s` after it.
    pub fn rises(&mut self, level: u8, second: u32, again_s: u32) -> Option<u8> {
        let lasting = level.min(std::mem::replace(&mut self.level, level));
        let (told, until_s) = self.told;
        if lasting == 0 || (lasting <= told && second < until_s) {
            return None;
        }
        self.told = (lasting, second.saturating_add(again_s));
        Some(lasting)
    }

    fn sum(&self) -> Tally {
        self.past.iter().fold(Tally::default(), |sum, minute| Tally {
            all: sum.all.saturating_add(minute.all),
            some: sum.some.saturating_add(minute.some),
            worse: sum.worse.saturating_add(minute.worse),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_five_whole_minutes() {
        let mut share = LastingShare::default();
        let mut ended = Vec::new();
        for second in 6000..6600 {
            ended.extend(share.add(second, second % 10 == 0, second % 60 == 0));
        }
        assert_eq!(ended[0], Tally::default());
        assert_eq!(ended[1], Tally { all: 60, some: 6, worse: 1 });
        assert_eq!(ended[9], Tally { all: 300, some: 30, worse: 5 });
        assert!(ended[9].exceeds(30, 9.9, 30) && !ended[9].exceeds(30, 10.0, 30));
        assert_eq!(
            [(1, 10), (2, 20), (2, 30), (1, 40), (0, 120), (2, 130), (2, 140)]
                .map(|(l, s)| share.rises(l, s, 100)),
            [None, Some(1), Some(2), None, None, None, Some(2)]
        );
        assert_eq!(share.add(1_000_000, true, true), Some(Tally::default()));
        assert_eq!(share.add(10, true, true), None, "an earlier second counts to the minute at hand");
    }
}
