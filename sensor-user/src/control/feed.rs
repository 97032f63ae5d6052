//! Alerts for one reader, a batch at a time: what is older than the spool from the history, then the spool by a cursor.
//!
//! It neither waits nor writes, so that the server and a command without a server use the same. What the spool gave up
//! before this reader came to it is in the batch as a gap, in its place.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::control::{Filter, History, Page, Record};
use crate::render::Told;
use crate::spool::{Cursor, LANES, Spool};

/// Events that are read at once: some 3 KiB each, so that a batch is about 200 KiB.
const EVENTS: usize = 64;
/// Bytes that are read at once, unless one event is larger.
const BYTES: usize = 256 << 10;
/// Numbers of the history that are asked for at once, however few of them are wanted: a history may refuse to look
/// through more.
const NUMBERS: u64 = 20_000;
/// Most events that can be asked for as the newest: so many are kept while they are gathered, some 30 MiB.
pub const MAX_LAST: usize = 10_000;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is oldest.
    Oldest,
    /// Behind this number.
    After(u64),
    /// With the newest so many, at most [`MAX_LAST`].
    Last(usize),
}

/// Some records, and whether there may be more at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<Record>,
    /// Whether to ask again at once.
    pub more: bool,
}

/// One reader's way through the alerts.
pub struct Feed {
    spool: Spool,
    history: Option<Arc<dyn History>>,
    filter: Filter,
    state: State,
    /// The oldest of the spool when the reader came.
    oldest: u64,
    /// Every event up to here was given, or was not wanted.
    through: u64,
}

enum State {
    /// The newest are to be found.
    Newest(usize),
    /// Numbers of the history that are still to be read.
    Past(Range<u64>),
    /// The spool is read.
    Present(Cursor),
}

impl Feed {
    /// A reader who begins there. The history is asked for what the spool no longer has.
    #[must_use]
    pub fn new(spool: Spool, history: Option<Arc<dyn History>>, filter: Filter, start: Start) -> Self {
        let oldest = oldest(&spool);
        Self::within(spool, history, filter, start, oldest)
    }

    fn within(
        spool: Spool,
        history: Option<Arc<dyn History>>,
        filter: Filter,
        start: Start,
        oldest: u64,
    ) -> Self {
        // Half of all numbers are more than there will ever be, and leave room to count on.
        let start = match start {
            Start::After(number) => Start::After(number.min(u64::MAX / 2)),
            start => start,
        };
        let (state, through) = match start {
            Start::Last(count) => (State::Newest(count.min(MAX_LAST)), 0),
            Start::After(number) if number.saturating_add(1) < oldest && history.is_some() => {
                (State::Past(number.saturating_add(1)..oldest), number)
            }
            Start::After(number) => (State::Present(Cursor([number; LANES])), number),
            Start::Oldest if history.is_some() => (State::Past(1..oldest), 0),
            // What was given up before anybody asked is no gap in what this reader sees.
            Start::Oldest => (State::Present(Cursor([oldest.saturating_sub(1); LANES])), 0),
        };
        Self { spool, history, filter, state, oldest, through }
    }

    /// Whether reading on may block: it is about the history.
    #[must_use]
    pub const fn is_past(&self) -> bool {
        matches!(self.state, State::Newest(_) | State::Past(_)) && self.history.is_some()
    }

    /// Every event up to this number was given, or was not wanted.
    #[must_use]
    pub const fn through(&self) -> u64 {
        self.through
    }

    /// What comes next. Empty and without more: nothing, until the spool's head moves. A history that cannot be read is
    /// a gap, and told in the log.
    pub fn step(&mut self) -> Batch {
        match &self.state {
            State::Newest(count) => self.newest(*count),
            State::Past(range) => self.past(range.clone()),
            State::Present(cursor) => self.present(*cursor),
        }
    }

    /// The newest events that are wanted, found by reading ever larger pieces from the end.
    fn newest(&mut self, count: usize) -> Batch {
        let head = *self.spool.head().borrow();
        let oldest = self.oldest;
        self.state = State::Present(Cursor([head; LANES]));
        self.through = head;
        let mut found: VecDeque<Arc<Told>> = VecDeque::new();
        let mut end = head;
        let mut width = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(2).max(64);
        while found.len() < count && end >= oldest && end > 0 {
            let start = end.saturating_sub(width).max(oldest.saturating_sub(1));
            let piece = self.piece(start..end, count - found.len());
            for told in piece.into_iter().rev() {
                found.push_front(told);
            }
            (end, width) = (start, width.saturating_mul(2));
        }
        let mut records = self.older(oldest, count.saturating_sub(found.len()));
        records.extend(found.into_iter().map(Record::Event));
        records.push(Record::Position(head));
        Batch { records, more: true }
    }

    /// The newest of what the spool no longer has.
    fn older(&self, oldest: u64, missing: usize) -> Vec<Record> {
        let Some(history) = &self.history else { return Vec::new() };
        let mut found: VecDeque<Record> = VecDeque::new();
        let mut end = oldest;
        while found.len() < missing && end > 1 {
            let start = end.saturating_sub(NUMBERS).max(1);
            let limit = missing - found.len();
            let page = Page { sequences: start..end, filter: &self.filter, newest: true, limit };
            match history.alerts(&page) {
                Ok(events) => {
                    for told in events.into_iter().rev().take(limit) {
                        found.push_front(Record::Event(told));
                    }
                }
                Err(error) => {
                    found.push_front(unreadable(&error, 1..end));
                    break;
                }
            }
            end = start;
        }
        found.into()
    }

    /// The last `count` wanted events with numbers behind the start and up to the end.
    fn piece(&self, numbers: Range<u64>, count: usize) -> VecDeque<Arc<Told>> {
        let mut found = VecDeque::new();
        let mut cursor = Cursor([numbers.start; LANES]);
        loop {
            let read = self.spool.read(&cursor, self.filter.lanes(), EVENTS, BYTES);
            if read.events.is_empty() {
                return found;
            }
            for told in read.events {
                if told.sequence > numbers.end {
                    return found;
                }
                if self.filter.admits(&told) {
                    found.push_back(told);
                    if found.len() > count {
                        found.pop_front();
                    }
                }
            }
            cursor = read.next;
        }
    }

    fn past(&mut self, range: Range<u64>) -> Batch {
        let Some(history) = self.history.as_ref().filter(|_| !range.is_empty()) else {
            self.through = self.through.max(range.end.saturating_sub(1));
            self.state = State::Present(Cursor([range.end.saturating_sub(1); LANES]));
            return Batch { records: Vec::new(), more: true };
        };
        let end = range.end.min(range.start.saturating_add(NUMBERS));
        let page = Page { sequences: range.start..end, filter: &self.filter, newest: false, limit: EVENTS };
        let mut events = match history.alerts(&page) {
            Ok(events) => events,
            Err(error) => {
                let records = vec![unreadable(&error, range.clone())];
                self.state = State::Past(range.end..range.end);
                return Batch { records, more: true };
            }
        };
        events.truncate(EVENTS);
        // A full page may not be all that is wanted of these numbers.
        let last = events.last().map(|told| told.sequence).filter(|_| events.len() == EVENTS);
        let next = last.map_or(end, |last| last.saturating_add(1).clamp(range.start.saturating_add(1), end));
        self.state = State::Past(next..range.end);
        self.through = self.through.max(next.saturating_sub(1));
        Batch { records: events.into_iter().map(Record::Event).collect(), more: true }
    }

    fn present(&mut self, cursor: Cursor) -> Batch {
        let lanes = self.filter.lanes();
        let read = self.spool.read(&cursor, lanes, EVENTS, BYTES);
        let more = !read.events.is_empty() || !read.lost.is_empty();
        let mut lost = read.lost;
        lost.sort_by_key(|range| range.start);
        let mut lost = lost.into_iter().peekable();
        let mut records = Vec::with_capacity(read.events.len());
        for told in read.events {
            while let Some(range) = lost.next_if(|range| range.start < told.sequence) {
                records.push(Record::Gap(range));
            }
            if self.filter.admits(&told) {
                records.push(Record::Event(told));
            }
        }
        records.extend(lost.map(Record::Gap));
        self.state = State::Present(read.next);
        // The cursor says how far everything was given: not to the head, if the disk cannot be read now.
        let passed = read.next.0.iter().zip(lanes).filter(|(_, wanted)| *wanted).map(|(next, _)| *next);
        self.through = self.through.max(passed.min().unwrap_or(0));
        if more && !matches!(records.last(), Some(Record::Event(_))) {
            records.push(Record::Position(self.through));
        }
        Batch { records, more }
    }
}

fn unreadable(error: &str, range: Range<u64>) -> Record {
    tracing::warn!("alerts that the spool no longer has cannot be read: {error}");
    Record::Gap(range)
}

/// The number of the oldest event of the spool; one above the head if it has none.
#[must_use]
pub fn oldest(spool: &Spool) -> u64 {
    let head = *spool.head().borrow();
    let read = spool.read(&Cursor::default(), [true; LANES], 1, usize::MAX);
    read.events.first().map_or(head.saturating_add(1), |told| told.sequence)
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::control::tests::{append, spool_of};

    fn numbers(feed: &mut Feed) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let batch = feed.step();
            for record in &batch.records {
                if let Record::Event(told) = record {
                    all.push(told.sequence);
                }
            }
            if !batch.more {
                return all;
            }
        }
    }

    fn filter(rule: &str) -> Filter {
        Filter { rules: vec![rule.to_owned()], ..Filter::default() }
    }

    /// A history that has the even numbers only.
    struct Even;

    impl History for Even {
        fn alerts(&self, page: &Page<'_>) -> Result<Vec<Arc<Told>>, String> {
            let mut all: Vec<_> = page.sequences.clone().filter(|n| n % 2 == 0).collect();
            if page.newest {
                all.drain(..all.len().saturating_sub(page.limit));
            }
            all.truncate(page.limit);
            let told = |n| Arc::new(crate::control::tests::told(n));
            Ok(all.into_iter().map(told).collect())
        }
    }

    fn range(numbers: RangeInclusive<u64>) -> Vec<u64> {
        numbers.collect()
    }

    #[test]
    fn a_reader_begins_where_it_wants_and_sees_each_event_once() {
        let spool = spool_of(1_000);
        let start = |start| numbers(&mut Feed::new(spool.clone(), None, Filter::default(), start));
        assert_eq!(start(Start::Oldest), range(1..=1_000));
        assert_eq!(start(Start::After(990)), range(991..=1_000));
        assert_eq!(start(Start::After(1_000)), Vec::<u64>::new());
        assert_eq!(start(Start::After(u64::MAX)), Vec::<u64>::new());
        assert_eq!(start(Start::Last(7)), range(994..=1_000));
        assert_eq!(start(Start::Last(0)), Vec::<u64>::new());
        assert_eq!(start(Start::Last(MAX_LAST + 1)), range(1..=1_000));
    }

    #[test]
    fn the_newest_of_a_rare_rule_are_found_far_back() {
        let spool = spool_of(3);
        for _ in 0..2_000 {
            append(&spool, "common");
        }
        let mut feed = Feed::new(spool.clone(), None, filter("rule-1"), Start::Last(20));
        assert_eq!(numbers(&mut feed), [1]);
        append(&spool, "rule-1");
        assert_eq!(numbers(&mut feed), [2_004], "and it goes on behind them");
    }

    #[test]
    fn what_is_not_wanted_moves_the_position() {
        let spool = spool_of(10);
        let mut feed = Feed::new(spool, None, filter("none"), Start::Oldest);
        assert!(numbers(&mut feed).is_empty());
        assert_eq!(feed.through(), 10);
    }

    #[test]
    fn an_empty_spool_gives_nothing_and_then_what_comes() {
        let spool = Spool::in_memory(0);
        for start in [Start::Oldest, Start::After(0), Start::Last(5)] {
            let mut feed = Feed::new(spool.clone(), None, Filter::default(), start);
            let _ = numbers(&mut feed);
            let number = append(&spool, "x");
            assert_eq!(numbers(&mut feed), [number], "{start:?}");
        }
    }

    #[test]
    fn what_the_spool_no_longer_has_comes_from_the_history() {
        let spool = spool_of(300);
        let feed = |start| {
            let history: Arc<dyn History> = Arc::new(Even);
            Feed::within(spool.clone(), Some(history), Filter::default(), start, 201)
        };
        let mut even: Vec<_> = (1..=200).filter(|n| n % 2 == 0).collect();
        even.extend(201..=300);
        assert_eq!(numbers(&mut feed(Start::Oldest)), even);
        let behind: Vec<_> = even.iter().copied().filter(|n| *n > 190).collect();
        assert_eq!(numbers(&mut feed(Start::After(190))), behind);
        let newest: Vec<_> = [198, 200].into_iter().chain(201..=300).collect();
        assert_eq!(numbers(&mut feed(Start::Last(102))), newest);
    }

    #[test]
    fn a_long_history_is_read_in_pieces() {
        let spool = spool_of(50_000);
        let feed = |start, oldest| {
            let history: Arc<dyn History> = Arc::new(Even);
            let wanted = Filter { rules: vec!["rule-2".into()], ..Filter::default() };
            Feed::within(spool.clone(), Some(history), wanted, start, oldest)
        };
        // This history does not filter: every even number comes.
        assert_eq!(numbers(&mut feed(Start::After(0), 49_991)).len(), 24_995);
        let newest = numbers(&mut feed(Start::Last(MAX_LAST + 1), 50_001));
        let expected: Vec<_> = (30_001..=50_000).filter(|n| n % 2 == 0).collect();
        assert_eq!(newest, expected);
    }

    /// A history that cannot be read.
    struct Damaged;

    impl History for Damaged {
        fn alerts(&self, _: &Page<'_>) -> Result<Vec<Arc<Told>>, String> {
            Err("damaged".into())
        }
    }

    #[test]
    fn a_history_that_cannot_be_read_is_a_gap() {
        let spool = spool_of(30);
        let mut feed = Feed::within(spool, Some(Arc::new(Damaged)), Filter::default(), Start::After(5), 21);
        assert!(matches!(&feed.step().records[..], [Record::Gap(lost)] if *lost == (6..21)));
        assert_eq!(numbers(&mut feed), range(21..=30));
    }
}
