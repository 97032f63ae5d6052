//! Which servers are watched, as far as the pipeline knows: by cgroup, decided elsewhere and kept here.
//!
//! A cgroup that nobody has decided on is watched, and its id is given out to be asked about; what comes back holds for
//! every later exchange. In a capture file no server has a cgroup, so that in replay everything is watched.

use hashbrown::HashMap;

use crate::capture::Origin;

/// Most cgroups of which it is known whether they are watched, 16 bytes each: far more than serve HTTP on one node. Beyond
/// it all are asked about anew.
const MAX_KNOWN: usize = 16_384;

/// Most cgroups that wait to be asked about. The others are met again with their next exchange.
const MAX_MET: usize = 1024;

/// Which servers are watched.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Whether somebody decides.
    asks: bool,
    known: HashMap<u64, bool>,
    met: Vec<u64>,
    /// Exchanges that were not looked at.
    pub skipped: u64,
}

impl Chosen {
    /// Asks about cgroups from now on.
    pub const fn ask(&mut self) {
        self.asks = true;
    }

    /// Whether the server of an exchange is watched.
    #[inline]
    pub fn has(&mut self, origin: &Origin) -> bool {
        if !self.asks || origin.cgroup == 0 {
            return true;
        }
        match self.known.get(&origin.cgroup) {
            Some(true) => true,
            Some(false) => {
                self.skipped += 1;
                false
            }
            None => self.meet(origin.cgroup),
        }
    }

    #[cold]
    fn meet(&mut self, cgroup: u64) -> bool {
        if self.met.len() < MAX_MET {
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(cgroup, true);
            self.met.push(cgroup);
        }
        true
    }

    /// Cgroups that were met since the last call.
    pub fn take_met(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.met)
    }

    /// These could not be asked about: they are met again.
    pub fn forget(&mut self, cgroups: &[u64]) {
        for cgroup in cgroups {
            self.known.remove(cgroup);
        }
    }

    /// It is decided whether a cgroup is watched. One that is left out may be decided on before it is met; if there is no
    /// room for it, it is asked about when it is met.
    pub fn decide(&mut self, cgroup: u64, watched: bool) {
        if let Some(known) = self.known.get_mut(&cgroup) {
            *known = watched;
        } else if !watched && self.known.len() < MAX_KNOWN {
            self.known.insert(cgroup, false);
        }
    }

    /// Cgroups that are known to be left out.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.known.values().filter(|watched| !**watched).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cgroup: u64) -> Origin {
        Origin { cgroup, ..Origin::default() }
    }

    #[test]
    fn nobody_asks_in_replay() {
        let mut chosen = Chosen::default();
        assert!(chosen.has(&at(7)) && chosen.take_met().is_empty());
        chosen.ask();
        assert!(chosen.has(&at(0)) && chosen.take_met().is_empty());
    }

    #[test]
    fn a_server_is_asked_about_once_and_watched_until_somebody_says_no() {
        let mut chosen = Chosen::default();
        chosen.ask();
        assert!(chosen.has(&at(7)) && chosen.has(&at(7)));
        assert_eq!((chosen.take_met(), chosen.take_met()), (vec![7], vec![]));
        chosen.decide(7, false);
        assert!(!chosen.has(&at(7)) && chosen.has(&at(8)));
        chosen.decide(7, true);
        assert!(chosen.has(&at(7)));
        assert_eq!(chosen.skipped, 1);
    }

    #[test]
    fn who_could_not_be_asked_about_is_met_again() {
        let mut chosen = Chosen::default();
        chosen.ask();
        chosen.has(&at(7));
        let met = chosen.take_met();
        chosen.forget(&met);
        assert!(chosen.has(&at(7)));
        assert_eq!(chosen.take_met(), [7]);
    }

    #[test]
    fn who_is_left_out_ahead_is_never_met() {
        let mut chosen = Chosen::default();
        chosen.ask();
        chosen.decide(7, false);
        chosen.decide(8, true);
        assert!(!chosen.has(&at(7)) && chosen.has(&at(8)));
        assert_eq!((chosen.take_met(), chosen.skipped, chosen.left_out()), (vec![8], 1, 1));
        chosen.decide(7, true);
        assert!(chosen.has(&at(7)));
        for cgroup in 1..=1_000_000 {
            chosen.decide(cgroup, false);
        }
        assert_eq!(chosen.known.len(), MAX_KNOWN);
        assert!(chosen.has(&at(999_999)), "no room: met, and asked about");
    }

    #[test]
    fn churn_is_bounded() {
        let mut chosen = Chosen::default();
        chosen.ask();
        for cgroup in 1..=100_000 {
            assert!(chosen.has(&at(cgroup)));
            if cgroup % 100 == 0 {
                chosen.take_met();
            }
        }
        assert!(chosen.known.len() <= MAX_KNOWN);
        for cgroup in 200_000..210_000 {
            chosen.has(&at(cgroup));
        }
        assert_eq!(chosen.met.len(), MAX_MET);
    }
}
