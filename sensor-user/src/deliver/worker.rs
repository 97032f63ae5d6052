//! One sink's worker: reads the spool behind its own cursor, hands batches over, and moves the cursor once the other
//! end has taken them. It knows no other sink, so that no sink can delay another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::backoff::Backoff;
use super::figures::Figures;
use super::plan::{Plan, Rate};
use super::{Clock, Letters};
use crate::render::Told;
use crate::sink::{Outcome, Picks, Refusal, Settings, Sink, Words};
use crate::spool::{Cursor, LANES, Spool, lane};

/// How often dead letters are looked at for those that are to be tried again.
const LOOK_AT_LETTERS: Duration = Duration::from_secs(2);

/// What a worker is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// End, at this time at the latest.
    pub(super) until: Option<Instant>,
    /// How often the sink was to be opened again.
    pub(super) reopened: u64,
}

/// The worker.
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) spool: Spool,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) figures: Arc<Figures>,
    pub(super) clock: Clock,
    pub(super) orders: watch::Receiver<Orders>,
    picks: Picks,
    plan: Plan,
    timeout: Duration,
    give_up_after: Option<Duration>,
    cursor: Cursor,
    backoff: Backoff,
    rate: Rate,
    not_before: Option<Instant>,
    /// When the first event of those that are gathered was seen.
    gathering: Option<Instant>,
    /// When the first event that is still tried was tried first, and its number.
    trying: Option<(u64, Instant)>,
    letters_seen: Instant,
}

/// What to do next.
enum Step {
    More,
    Wait(Option<Instant>),
    End,
}

/// Events that go together.
struct Parcel {
    events: Vec<Arc<Told>>,
    done: Done,
}

/// What holds once they are delivered.
#[derive(Clone, Copy)]
struct Done {
    /// Where the cursor is.
    next: Cursor,
    /// How many were passed over because the sink does not get them.
    filtered: usize,
    /// How many the spool had given up before.
    lost: u64,
}

/// What the worker needs from outside.
pub(super) struct Outfit {
    pub(super) spool: Spool,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) figures: Arc<Figures>,
    pub(super) clock: Clock,
    pub(super) orders: watch::Receiver<Orders>,
}

impl Worker {
    pub(super) fn new(settings: &Settings, mut sink: Box<dyn Sink>, outfit: Outfit) -> Self {
        let mut cursor = outfit.spool.register(&settings.name, settings.picks.severities);
        let head = *outfit.spool.head().borrow();
        for (mine, held) in cursor.0.iter_mut().zip(sink.holds().0) {
            // A number that is not given yet is of an earlier life, before the spool was lost.
            if held <= head {
                *mine = (*mine).max(held);
            }
        }
        let Outfit { spool, letters, figures, clock, orders } = outfit;
        Self {
            name: settings.name.as_str().into(),
            plan: Plan::new(settings, &*sink),
            picks: settings.picks.clone(),
            timeout: settings.timeout,
            give_up_after: settings.give_up_after,
            rate: Rate::new(settings.per_minute),
            sink,
            spool,
            letters,
            figures,
            orders,
            cursor,
            backoff: Backoff::default(),
            not_before: None,
            gathering: None,
            trying: None,
            letters_seen: (clock.instant)(),
            clock,
        }
    }

    /// As after ten failures in a row.
    #[cfg(test)]
    pub(super) fn doubt(&mut self) {
        while !self.backoff.doubts_the_first() {
            self.backoff.failed(None, 0);
        }
    }

    /// Until it is told to end.
    pub(super) async fn run(mut self) {
        let mut head = self.spool.head();
        let mut orders = self.orders.clone();
        let mut reopened = orders.borrow().reopened;
        loop {
            head.borrow_and_update();
            let now = *orders.borrow_and_update();
            if now.reopened != reopened {
                reopened = now.reopened;
                self.sink.reopen();
            }
            let until = match self.step(now.until).await {
                Step::More => continue,
                Step::End => break,
                Step::Wait(until) => until,
            };
            let letters = self.letters.any_waiting(&self.name).then(|| self.letters_seen + LOOK_AT_LETTERS);
            let until = [until, letters, now.until].into_iter().flatten().min();
            let sleep = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = head.changed() => if changed.is_err() { break },
                changed = orders.changed() => if changed.is_err() { break },
                () = sleep => {}
            }
        }
    }

    async fn step(&mut self, until: Option<Instant>) -> Step {
        let now = (self.clock.instant)();
        let ending = until.is_some();
        if until.is_some_and(|until| until <= now) {
            return Step::End;
        }
        if let Some(not_before) = self.not_before.filter(|at| *at > now) {
            return if ending { Step::End } else { Step::Wait(Some(not_before)) };
        }
        if now.duration_since(self.letters_seen) >= LOOK_AT_LETTERS && self.replay(now).await {
            return Step::More;
        }
        let allowed = self.rate.allowance((self.clock.now_ms)());
        if allowed == 0 {
            let wait = self.rate.until_one();
            return if ending { Step::End } else { Step::Wait(Some(now + wait)) };
        }
        let minute = (self.clock.minute)();
        match self.parcel(self.plan.prompt(minute), allowed) {
            Some(parcel) if parcel.events.is_empty() => return self.pass_over(parcel.done),
            Some(parcel) => return self.attempt(parcel, until).await,
            None => {}
        }
        let quiet = self.plan.quiet_for(minute).map(|left| now + left);
        match self.parcel(self.plan.patient(minute), allowed) {
            Some(parcel) if parcel.events.is_empty() => self.pass_over(parcel.done),
            Some(parcel) => self.gather(parcel, now, until, quiet).await,
            None if ending => Step::End,
            None => {
                self.gathering = None;
                Step::Wait(quiet)
            }
        }
    }

    /// What there is in these lanes; events that the sink does not get are left out. None if there is nothing.
    fn parcel(&mut self, lanes: [bool; LANES], allowed: usize) -> Option<Parcel> {
        if lanes == [false; LANES] {
            return None;
        }
        let batch = self.sink.batch();
        let most = batch.events.max(if self.backoff.doubts_the_first() { 2 } else { 1 }).min(allowed);
        let mut read = self.spool.read(&self.cursor, lanes, most, batch.bytes);
        if read.next == self.cursor {
            return None;
        }
        let before = read.events.len();
        let picks = &self.picks;
        read.events.retain(|told| picks.has(told));
        let filtered = before - read.events.len();
        let lost = read.lost_events;
        Some(Parcel { events: read.events, done: Done { next: read.next, filtered, lost } })
    }

    /// Nothing of what was read is for this sink.
    fn pass_over(&mut self, done: Done) -> Step {
        self.keep(done);
        Step::More
    }

    fn keep(&mut self, Done { next, filtered, lost }: Done) {
        self.cursor = next;
        self.spool.keep_cursor(&self.name, &next);
        Figures::add(&self.figures.filtered, filtered);
        if lost > 0 {
            self.figures.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!("sink {}: {lost} events were given up before they could be delivered", self.name);
        }
    }

    /// Hands gathered events over once they are enough or the first has waited long enough.
    async fn gather(
        &mut self,
        parcel: Parcel,
        now: Instant,
        until: Option<Instant>,
        quiet: Option<Instant>,
    ) -> Step {
        let batch = self.sink.batch();
        let bytes: usize = parcel.events.iter().map(|told| told.json().len()).sum();
        let full =
            parcel.events.len() >= batch.events || bytes.saturating_mul(10) >= batch.bytes.saturating_mul(9);
        let since = *self.gathering.get_or_insert(now);
        let patience = parcel.events.iter().map(|told| self.plan.patience(told.severity)).min();
        let due = since + patience.unwrap_or_default();
        let hurried = until.is_some() && !self.spool.is_lasting();
        if full || due <= now || hurried {
            let step = self.attempt(parcel, until).await;
            self.gathering = None;
            return step;
        }
        if until.is_some() {
            return Step::End;
        }
        Step::Wait([Some(due), quiet].into_iter().flatten().min())
    }

    /// One delivery. With an open circuit it is a single event.
    async fn attempt(&mut self, parcel: Parcel, until: Option<Instant>) -> Step {
        let Parcel { mut events, mut done } = parcel;
        let second = self.backoff.doubts_the_first() && events.len() > 1;
        if self.backoff.is_open() && events.len() > 1 {
            events.truncate(if second { 2 } else { 1 });
            done = Done { next: behind(self.cursor, &events), filtered: 0, lost: 0 };
        }
        let sent = if second { events.get(1..).unwrap_or_default() } else { &events };
        let began = (self.clock.instant)();
        let first = events.first().map_or(0, |told| told.sequence);
        if self.trying.is_none_or(|(tried, _)| tried != first) {
            self.trying = Some((first, began));
        }
        let patience = until.map_or(self.timeout, |until| self.timeout.min(until.duration_since(began)));
        let outcome = tokio::time::timeout(patience, self.sink.deliver(sent)).await;
        let ended = (self.clock.instant)();
        self.figures.took(ended.duration_since(began));
        match outcome {
            Ok(Outcome::Done { refused, .. }) => {
                let doubted = if second { events.first().cloned() } else { None };
                let sent = sent.to_vec();
                self.delivered(&sent, &refused, doubted.as_ref(), done);
                Step::More
            }
            Ok(Outcome::Later { reason, after }) => {
                Figures::add(&self.figures.later, 1);
                self.failed(&events, &reason, after, ended, done)
            }
            Err(_elapsed) => {
                Figures::add(&self.figures.timeout, 1);
                let reason = Words::new(&format!("no answer within {:.1} s", patience.as_secs_f64()));
                self.failed(&events, &reason, None, ended, done)
            }
        }
    }

    fn delivered(
        &mut self,
        sent: &[Arc<Told>],
        refused: &[Refusal],
        doubted: Option<&Arc<Told>>,
        done: Done,
    ) {
        let attempts = self.backoff.failures() + 1;
        for refusal in refused {
            if let Some(told) = sent.get(refusal.index) {
                self.bury(told, &refusal.reason, attempts);
            }
        }
        if let Some(told) = doubted {
            let reason = Words::new("it was never taken, though others were");
            self.bury(told, &reason, attempts);
        }
        if self.backoff.failures() > 0 {
            tracing::info!("sink {}: works again", self.name);
        }
        self.backoff.succeeded();
        self.figures.open.store(false, Ordering::Relaxed);
        self.figures.trouble(None);
        self.rate.spend(sent.len());
        Figures::add(&self.figures.ok, 1);
        Figures::add(&self.figures.delivered, sent.len().saturating_sub(refused.len()));
        self.trying = None;
        self.keep(done);
    }

    fn bury(&self, told: &Arc<Told>, reason: &Words, attempts: u32) {
        Figures::add(&self.figures.dead, 1);
        let id = told.event_id();
        tracing::warn!("sink {}: {id} is refused and a dead letter now: {reason}", self.name);
        self.letters.add(&self.name, told, reason, attempts, (self.clock.now_ms)());
    }

    /// Waits, or gives the first event up.
    fn failed(
        &mut self,
        events: &[Arc<Told>],
        reason: &Words,
        after: Option<Duration>,
        now: Instant,
        done: Done,
    ) -> Step {
        let was_open = self.backoff.is_open();
        let wait = self.backoff.failed(after, (self.clock.chance)());
        self.not_before = Some(now + wait);
        self.figures.trouble(Some(reason.clone()));
        if self.backoff.failures() == 1 {
            tracing::warn!("sink {}: {reason}; trying again in {:.1} s", self.name, wait.as_secs_f64());
        }
        if self.backoff.is_open() && !was_open {
            tracing::error!(
                "sink {}: still failing: {reason}; events wait in the spool, one is tried from time to time",
                self.name
            );
            self.figures.open.store(true, Ordering::Relaxed);
        }
        let tried = self.trying.map_or(Duration::ZERO, |(_, since)| now.duration_since(since));
        if self.give_up_after.is_some_and(|most| tried >= most) {
            let attempts = self.backoff.failures();
            for told in events {
                self.bury(told, reason, attempts);
            }
            self.trying = None;
            self.keep(done);
        }
        Step::More
    }

    /// Tries a dead letter again that somebody wants to be tried. Whether there was one.
    async fn replay(&mut self, now: Instant) -> bool {
        self.letters_seen = now;
        let Some(told) = self.letters.next_replay(&self.name) else { return false };
        let events = [Arc::clone(&told)];
        let outcome = tokio::time::timeout(self.timeout, self.sink.deliver(&events)).await;
        let reason = match outcome {
            Ok(Outcome::Done { refused, .. }) => refused.into_iter().next().map(|refusal| refusal.reason),
            Ok(Outcome::Later { reason, .. }) => Some(reason),
            Err(_elapsed) => Some(Words::new("no answer in time")),
        };
        match reason {
            None => Figures::add(&self.figures.delivered, 1),
            Some(reason) => self.bury(&told, &reason, 1),
        }
        self.letters.replayed(&self.name);
        // The next one at once.
        self.letters_seen = now.checked_sub(LOOK_AT_LETTERS).unwrap_or(now);
        true
    }
}

/// The cursor behind these events.
fn behind(mut cursor: Cursor, events: &[Arc<Told>]) -> Cursor {
    for told in events {
        if let Some(mine) = cursor.0.get_mut(lane(told.severity)) {
            *mine = told.sequence.max(*mine);
        }
    }
    cursor
}
