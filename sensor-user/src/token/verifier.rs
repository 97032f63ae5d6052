//! Who verifies, and when: in step with the data (replay), or beside it, under a budget (live).
//!
//! One verification costs 20 to 60 us, fifty times what the rest of a request costs, and each distinct text needs
//! one: a flood of forgeries would stall the capture. So live, the stage only offers work; what does not fit the
//! budget is refused at once, counted, and offered again when the token is next used.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use zeroize::Zeroizing;

use crate::capture::Time;
use crate::token::facts::{Fingerprint, Signature, Unchecked};
use crate::token::jose::{Parts, Reading};
use crate::token::keys::KeyRing;
use crate::token::settings::TokenSettings;
use crate::token::verify::{Judge, Judgement};

/// One token to verify.
pub struct Job<'a> {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Its text.
    pub text: &'a [u8],
    /// Its pieces.
    pub parts: &'a Parts<'a>,
    /// How it reads.
    pub reading: &'a Reading<'a>,
    /// The keys as they are now.
    pub ring: &'a Arc<KeyRing>,
    /// Who sent it.
    pub client: IpAddr,
    /// When, by the data.
    pub at: Time,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Judged.
    Done(Judgement),
    /// A [`Verdict`] will follow.
    Queued,
    /// Refused: too much work.
    OverBudget,
}

/// Somebody who verifies.
pub trait Verifier: Send {
    /// Takes on a job, or not.
    fn submit(&mut self, job: &Job<'_>) -> Submitted;
}

/// Judges at once, so that results do not depend on timing. For replay.
#[derive(Debug)]
pub struct InStep {
    judge: Judge,
}

impl InStep {
    /// A verifier for these issuers.
    #[must_use]
    pub fn new(settings: &TokenSettings) -> Self {
        Self { judge: Judge::new(settings.issuers.clone()) }
    }
}

impl Verifier for InStep {
    fn submit(&mut self, job: &Job<'_>) -> Submitted {
        Submitted::Done(self.judge.judge(job.parts, job.reading, job.ring, job.at))
    }
}

/// A late verdict.
pub struct Verdict {
    /// Whose.
    pub fingerprint: Fingerprint,
    /// What it is.
    pub judgement: Judgement,
    /// The token's text, if it will have to be judged again.
    text: Option<Zeroizing<Box<[u8]>>>,
}

impl std::fmt::Debug for Verdict {
    /// Never the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let judgement = &self.judgement;
        f.debug_struct("Verdict")
            .field("fingerprint", &self.fingerprint)
            .field("judgement", judgement)
            .finish_non_exhaustive()
    }
}

impl Verdict {
    /// A verdict that is final.
    #[must_use]
    pub const fn new(fingerprint: Fingerprint, judgement: Judgement) -> Self {
        Self { fingerprint, judgement, text: None }
    }

    /// The text that came back.
    pub(super) fn into_text(self) -> Option<Zeroizing<Box<[u8]>>> {
        self.text
    }
}

/// A job on its way to a worker.
struct Work {
    fingerprint: Fingerprint,
    text: Zeroizing<Box<[u8]>>,
    ring: Arc<KeyRing>,
    at: Time,
}

/// Hands jobs to [`Workers`]. For live capture.
pub struct Pooled {
    jobs: SyncSender<Work>,
    budget: Budget,
}

/// The other end of [`Pooled`]: clone it once a thread and [`run`](Self::run) it there.
#[derive(Clone)]
pub struct Workers {
    jobs: Arc<Mutex<Receiver<Work>>>,
    judge: Arc<Judge>,
    max_token_bytes: usize,
}

/// Makes a pool. At most `queue` jobs wait for a worker; their texts are at most 16 KiB each by default, so a
/// queue of 1024 is at most 16 MiB and commonly 1 MiB.
#[must_use]
pub fn pool(settings: &TokenSettings, queue: usize) -> (Pooled, Workers) {
    let (sender, receiver) = sync_channel(queue);
    let judge = Arc::new(Judge::new(settings.issuers.clone()));
    let workers =
        Workers { jobs: Arc::new(Mutex::new(receiver)), judge, max_token_bytes: settings.max_token_bytes };
    (Pooled { jobs: sender, budget: Budget::new(settings.verifications_per_s) }, workers)
}

impl Verifier for Pooled {
    fn submit(&mut self, job: &Job<'_>) -> Submitted {
        if !self.budget.take(job.client, job.at) {
            return Submitted::OverBudget;
        }
        let text = Zeroizing::new(job.text.into());
        let work = Work { fingerprint: job.fingerprint, text, ring: Arc::clone(job.ring), at: job.at };
        match self.jobs.try_send(work) {
            Ok(()) => Submitted::Queued,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Submitted::OverBudget,
        }
    }
}

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooled").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl Workers {
    /// Verifies until the pool is dropped, or until `deliver` says that nobody listens any more.
    pub fn run(&self, mut deliver: impl FnMut(Verdict) -> bool) {
        while let Some(work) = self.next() {
            if !deliver(self.work(work)) {
                return;
            }
        }
    }

    fn next(&self) -> Option<Work> {
        // Whoever holds the lock waits for the next job; the others wait for the lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    fn work(&self, work: Work) -> Verdict {
        let parts = Parts::of(&work.text, self.max_token_bytes);
        let judgement = self.judge.judge(&parts, &parts.read(), &work.ring, work.at);
        let again = matches!(
            judgement.signature,
            Signature::Unchecked(Unchecked::KeysPending | Unchecked::KeyUnknown | Unchecked::Pending)
        );
        drop(parts);
        Verdict { fingerprint: work.fingerprint, judgement, text: again.then_some(work.text) }
    }
}

/// How many groups of clients have an allowance of their own.
const GROUPS: usize = 256;

/// Which part of the whole budget one group may use: so no single address starves the others.
const SHARE: u32 = 4;

/// A token bucket in the data's time for all, and one for each group of clients.
struct Budget {
    all: Bucket,
    groups: Vec<Bucket>,
    hasher: RandomState,
}

impl Budget {
    fn new(per_s: u32) -> Self {
        let share = (per_s / SHARE).max(1);
        Self {
            all: Bucket::new(per_s),
            groups: vec![Bucket::new(share); GROUPS],
            hasher: RandomState::default(),
        }
    }

    fn take(&mut self, client: IpAddr, at: Time) -> bool {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, client);
        let group = usize::try_from(hash % GROUPS as u64).unwrap_or_default();
        let Some(group) = self.groups.get_mut(group) else { return false };
        // Only what both can pay is taken from either.
        let affordable = group.has(at) && self.all.has(at);
        if affordable {
            group.take();
            self.all.take();
        }
        affordable
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("all", &self.all).finish_non_exhaustive()
    }
}

/// Fills by `per_s` a second up to one second's worth.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_s: u32,
    /// In billionths of a verification, so that no fraction is lost. At most `per_s` whole ones.
    level: u64,
    filled: Time,
}

const WHOLE: u64 = 1_000_000_000;

impl Bucket {
    pub(super) const fn new(per_s: u32) -> Self {
        Self { per_s, level: per_s as u64 * WHOLE, filled: Time(0) }
    }

    pub(super) fn has(&mut self, at: Time) -> bool {
        if at > self.filled {
            let gained = at.0.saturating_sub(self.filled.0).saturating_mul(u64::from(self.per_s));
            self.level = self.level.saturating_add(gained).min(u64::from(self.per_s) * WHOLE);
            self.filled = at;
        }
        self.level >= WHOLE
    }

    pub(super) const fn take(&mut self) {
        self.level = self.level.saturating_sub(WHOLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, client: [u8; 4], at: Time, offers: usize) -> usize {
        (0..offers).filter(|_| budget.take(IpAddr::from(client), at)).count()
    }

    #[test]
    fn the_budget_fills_with_the_datas_time() {
        let mut budget = Budget::new(400);
        let mut at = Time::from_secs(1_000);
        assert_eq!(taken(&mut budget, [10, 0, 0, 1], at, 1_000), 100, "a quarter for one client");
        assert_eq!(taken(&mut budget, [10, 0, 0, 1], at, 1_000), 0);
        at = at.plus(std::time::Duration::from_millis(100));
        assert_eq!(taken(&mut budget, [10, 0, 0, 1], at, 1_000), 10);
        let before = Time::from_secs(1);
        assert_eq!(taken(&mut budget, [10, 0, 0, 1], before, 1_000), 0, "time going back gives nothing");
    }

    #[test]
    fn one_client_cannot_starve_the_others() {
        let mut budget = Budget::new(400);
        let at = Time::from_secs(1_000);
        let greedy = taken(&mut budget, [10, 0, 0, 1], at, 10_000);
        let others: usize = (2..=255).map(|last| taken(&mut budget, [10, 0, 0, last], at, 1)).sum();
        assert_eq!(greedy, 100);
        // Those who share the greedy one's group wait with it: about one in 256.
        assert!(others >= 240, "{others}");
    }
}
