//! Key ids that no key of the issuer has: made up by a forger, too new for the keys that we hold, or withdrawn.
//!
//! Such a token waits until its issuer's keys have been looked at again. If nobody has the key then, no correct
//! verifier takes the token: it is invalid. A key id that the issuer did publish once is another matter: issuers
//! withdraw keys long before the tokens signed with them expire, and applications that hold on to keys take them.
//! Those stay unchecked. Which ids were published is kept over a restart.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::capture::Time;
use crate::token::keys::{IssuerKeys, KeyRing};

/// Key ids remembered of one issuer: years of monthly rotation.
const MAX_SEEN: usize = 128;

/// Ids found absent that are remembered; made-up ones beyond it wait for the next look at the keys.
const MAX_ABSENT: usize = 1024;

/// How long the answer "nobody has this key" holds: as long as the fetcher does not ask for a key id again.
const HOLDS: Duration = Duration::from_mins(1);

/// What is to be done about a token with an unknown key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Keys will be looked at; this is the number of the last look.
    Waits(u32),
    /// The issuer published it once.
    Withdrawn,
    /// Nobody has it.
    Absent,
}

/// What is known of key ids without a key.
#[derive(Debug, Default)]
pub(super) struct AbsentKeys {
    seen: Vec<VecDeque<Box<str>>>,
    absent: HashMap<(usize, Box<str>), Time, foldhash::fast::RandomState>,
}

impl AbsentKeys {
    /// Takes note of what issuers publish.
    pub(super) fn learn(&mut self, ring: &KeyRing) {
        self.seen.resize_with(ring.issuers().count(), VecDeque::new);
        for (seen, issuer) in self.seen.iter_mut().zip(ring.issuers()) {
            for kid in issuer.keys.iter().filter_map(|key| key.kid.as_deref()) {
                remember(seen, kid);
            }
        }
    }

    /// The ids published by each issuer so far, oldest first.
    pub(super) fn seen(&self) -> impl Iterator<Item = Vec<Box<str>>> + '_ {
        self.seen.iter().map(|ids| ids.iter().cloned().collect())
    }

    /// Takes over what an issuer published before a restart.
    pub(super) fn resume(&mut self, issuer: usize, kids: &[Box<str>]) {
        if self.seen.len() <= issuer {
            self.seen.resize_with(issuer + 1, VecDeque::new);
        }
        let Some(seen) = self.seen.get_mut(issuer) else { return };
        let newer = std::mem::take(seen);
        for kid in kids.iter().chain(&newer) {
            remember(seen, kid);
        }
    }

    /// What to do about a token of `issuer` with this `kid`, which first asked at look number `asked`.
    pub(super) fn judge(
        &mut self,
        issuer: usize,
        keys: &IssuerKeys,
        kid: &str,
        asked: Option<u32>,
        now: Time,
    ) -> Unknown {
        if self.seen.get(issuer).is_some_and(|seen| seen.iter().any(|id| **id == *kid)) {
            return Unknown::Withdrawn;
        }
        let name = (issuer, Box::from(kid));
        if keys.last || asked.is_some_and(|asked| asked != keys.looks) {
            self.absent.retain(|_, at| at.plus(HOLDS) > now);
            if self.absent.len() < MAX_ABSENT {
                self.absent.insert(name, now);
            }
            return Unknown::Absent;
        }
        if self.absent.get(&name).is_some_and(|at| at.plus(HOLDS) > now) {
            return Unknown::Absent;
        }
        Unknown::Waits(keys.looks)
    }
}

fn remember(seen: &mut VecDeque<Box<str>>, kid: &str) {
    if seen.iter().any(|known| **known == *kid) {
        return;
    }
    if seen.len() >= MAX_SEEN {
        seen.pop_front();
    }
    seen.push_back(kid.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_000_000);

    fn keys(looks: u32) -> IssuerKeys {
        IssuerKeys { looks, ..IssuerKeys::default() }
    }

    #[test]
    fn a_made_up_id_is_absent_after_a_look() {
        let mut absent = AbsentKeys::default();
        assert_eq!(absent.judge(0, &keys(3), "x", None, NOW), Unknown::Waits(3));
        assert_eq!(absent.judge(0, &keys(3), "x", Some(3), NOW), Unknown::Waits(3));
        assert_eq!(absent.judge(0, &keys(4), "x", Some(3), NOW), Unknown::Absent);
        assert_eq!(absent.judge(0, &keys(4), "x", None, NOW), Unknown::Absent, "another token, at once");
        assert_eq!(absent.judge(1, &keys(4), "x", None, NOW), Unknown::Waits(4), "another issuer");
        let later = NOW.plus(Duration::from_secs(61));
        assert_eq!(absent.judge(0, &keys(4), "x", None, later), Unknown::Waits(4));
    }

    #[test]
    fn what_was_published_once_is_withdrawn_also_after_a_restart() {
        let mut absent = AbsentKeys::default();
        absent.resume(0, &["old".into()]);
        assert_eq!(absent.judge(0, &keys(9), "old", Some(1), NOW), Unknown::Withdrawn);
        assert_eq!(absent.seen().next().unwrap(), [Box::<str>::from("old")]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut absent = AbsentKeys::default();
        for n in 0..10_000_u32 {
            absent.judge(0, &keys(1), &n.to_string(), Some(0), NOW);
            absent.resume(0, &[n.to_string().into()]);
        }
        assert!(absent.absent.len() <= MAX_ABSENT && absent.seen[0].len() <= MAX_SEEN);
    }
}
