//! Delivery against sinks that do what a script says.

#![allow(clippy::disallowed_methods, reason = "delivery is about real time")]

use std::collections::VecDeque;
use std::sync::{Mutex, mpsc};

use super::*;
use crate::detect::Severity;
use crate::render::Kind;
use crate::sink::{Batch, Delivery, Hours, Outcome, Picks, Refusal, Target};
use crate::spool::{Cursor, Draft};

/// What a sink saw of one delivery.
type Seen = Vec<u64>;

/// Answers as its script says, then takes everything.
struct Scripted {
    script: VecDeque<Answer>,
    seen: mpsc::SyncSender<Seen>,
    batch: Batch,
    patience: [Duration; 4],
    held: Cursor,
}

enum Answer {
    Take,
    Fail,
    Hang,
    Refuse(usize),
    /// Fails whatever holds this event.
    Stumble(u64),
}

impl Sink for Scripted {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        let numbers: Seen = events.iter().map(|told| told.sequence).collect();
        let answer = match self.script.front() {
            Some(Answer::Stumble(on)) if numbers.contains(on) => Answer::Fail,
            Some(Answer::Stumble(_)) => Answer::Take,
            _ => self.script.pop_front().unwrap_or(Answer::Take),
        };
        self.seen.send(numbers).unwrap();
        Box::pin(async move {
            match answer {
                Answer::Take | Answer::Stumble(_) => Outcome::done("taken"),
                Answer::Fail => Outcome::later("no"),
                Answer::Hang => std::future::pending().await,
                Answer::Refuse(index) => Outcome::Done {
                    refused: vec![Refusal { index, reason: "too odd".into() }],
                    answer: Words::default(),
                },
            }
        })
    }

    fn patience(&self, severity: Severity) -> Duration {
        self.patience[severity as usize]
    }

    fn holds(&mut self) -> Cursor {
        self.held
    }
}

#[derive(Default)]
struct Drawer {
    letters: Mutex<Vec<(u64, String, u32)>>,
    again: Mutex<VecDeque<Arc<Told>>>,
}

impl Letters for Drawer {
    fn add(&self, _sink: &str, told: &Told, reason: &Words, attempts: u32, _now_ms: u64) {
        self.letters.lock().unwrap().push((told.sequence, reason.to_string(), attempts));
    }
    fn any_waiting(&self, _sink: &str) -> bool {
        !self.again.lock().unwrap().is_empty()
    }
    fn next_replay(&self, _sink: &str) -> Option<Arc<Told>> {
        self.again.lock().unwrap().front().cloned()
    }
    fn replayed(&self, _sink: &str) {
        self.again.lock().unwrap().pop_front();
    }
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

fn clock(minute: u16) -> Clock {
    Clock {
        instant: Instant::now,
        now_ms: || {
            u64::try_from(
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
            )
            .unwrap()
        },
        minute: Arc::new(move || minute),
        chance: || 0,
    }
}

fn settings() -> Settings {
    let stdout = sink::stdout::Settings { format: crate::render::Format::Ocsf, colour: false };
    Settings {
        name: "scripted".into(),
        target: Target::Stdout(stdout),
        picks: Picks::default(),
        quiet: None,
        per_minute: None,
        timeout: Duration::from_millis(200),
        give_up_after: None,
    }
}

struct Stage {
    spool: Spool,
    letters: Arc<Drawer>,
    figures: Arc<Figures>,
    orders: watch::Sender<Orders>,
    thread: Option<JoinHandle<()>>,
    seen: mpsc::Receiver<Seen>,
}

fn append(spool: &Spool, severity: Severity) -> u64 {
    let mut json = |sequence: u64| format!(r#"{{"activity_id":1,"metadata":{{"sequence":{sequence}}}}}"#);
    let draft = Draft { time_ms: 1, severity, kind: Kind::Alert, json: &mut json };
    spool.append(&mut [draft]).unwrap().start
}

impl Stage {
    fn new(
        script: impl IntoIterator<Item = Answer>,
        events: &[Severity],
        change: impl FnOnce(&mut Settings, &mut Scripted),
    ) -> Self {
        let (tell, seen) = mpsc::sync_channel(1000);
        let mut sink = Scripted {
            script: script.into_iter().collect(),
            seen: tell,
            batch: Batch { events: 4, bytes: 1 << 20 },
            patience: [Duration::ZERO; 4],
            held: Cursor::default(),
        };
        let mut settings = settings();
        change(&mut settings, &mut sink);
        let spool = Spool::in_memory(0);
        // It is known to the spool already: a new reader begins with what comes next.
        let _ = spool.cursor(&settings.name);
        for severity in events {
            append(&spool, *severity);
        }
        let (letters, figures) = (Arc::new(Drawer::default()), Arc::new(Figures::default()));
        let (orders, heard) = watch::channel(Orders::default());
        let minute = if settings.quiet.is_some() { 5 } else { 600 };
        let outfit = Outfit {
            spool: spool.clone(),
            letters: Arc::clone(&letters) as Arc<dyn Letters>,
            figures: Arc::clone(&figures),
            clock: clock(minute),
            orders: heard,
        };
        let worker = Worker::new(&settings, Box::new(sink), outfit);
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(worker.run());
        });
        Self { spool, letters, figures, orders, thread: Some(thread), seen }
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_mins(1)).unwrap()
    }

    /// Ends the worker and gives what it still saw.
    fn end(&mut self) -> Vec<Seen> {
        self.orders.send_modify(|orders| orders.until = Some(Instant::now() + Duration::from_secs(2)));
        self.thread.take().unwrap().join().unwrap();
        self.seen.try_iter().collect()
    }

    fn count(&self, counter: impl Fn(&Figures) -> &std::sync::atomic::AtomicU64) -> u64 {
        counter(&self.figures).load(std::sync::atomic::Ordering::Relaxed)
    }
}

use Severity::{Critical, High, Low, Medium};

#[test]
fn everything_comes_in_order_and_once() {
    let mut stage = Stage::new([], &[Low, High, Critical, Medium, Low, Low], |_, _| {});
    assert_eq!((stage.next(), stage.next()), (vec![1, 2, 3, 4], vec![5, 6]));
    append(&stage.spool, High);
    assert_eq!(stage.next(), [7]);
    assert!(stage.end().is_empty());
    assert_eq!(stage.count(|f| &f.delivered), 7);
    assert_eq!(stage.spool.cursor("scripted").0.into_iter().max(), Some(7));
}

#[test]
fn what_fails_or_hangs_comes_again_as_it_was() {
    let mut stage = Stage::new([Answer::Fail, Answer::Hang], &[Low, High], |_, _| {});
    assert_eq!((stage.next(), stage.next(), stage.next()), (vec![1, 2], vec![1, 2], vec![1, 2]));
    stage.end();
    assert_eq!(
        (stage.count(|f| &f.later), stage.count(|f| &f.timeout), stage.count(|f| &f.delivered)),
        (1, 1, 2)
    );
}

#[test]
fn what_is_refused_is_a_dead_letter_and_holds_nobody_up() {
    let mut stage = Stage::new([Answer::Refuse(1)], &[Low, High, High], |_, _| {});
    assert_eq!(stage.next(), [1, 2, 3]);
    stage.end();
    assert_eq!(*stage.letters.letters.lock().unwrap(), [(2, "too odd".to_owned(), 1)]);
    assert_eq!((stage.count(|f| &f.delivered), stage.count(|f| &f.dead)), (2, 1));
}

#[test]
fn what_a_sink_holds_does_not_come_again_unless_numbers_began_anew() {
    let stage = Stage::new([], &[High, High, High], |_, sink| sink.held = Cursor([0, 0, 2, 0]));
    assert_eq!(stage.next(), [3]);
    let stage = Stage::new([], &[High, High, High], |_, sink| sink.held = Cursor([0, 0, 900, 0]));
    assert_eq!(stage.next(), [1, 2, 3]);
}

#[test]
fn a_sink_gets_only_what_it_picks_and_still_moves_on() {
    let mut stage = Stage::new([], &[Low, High, Low, Critical], |settings, _| {
        settings.picks.severities = [false, false, true, true];
    });
    assert_eq!(stage.next(), [2, 4]);
    append(&stage.spool, Low);
    append(&stage.spool, Critical);
    assert_eq!(stage.next(), [6]);
    stage.end();
    let stage = Stage::new([], &[Low, High], |settings, _| settings.picks.alerts = false);
    while stage.count(|f| &f.filtered) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(stage.seen.try_iter().count(), 0);
}

#[test]
fn the_less_severe_waits_through_quiet_hours() {
    let mut stage = Stage::new([], &[Low, Critical, Medium, High], |settings, _| {
        settings.quiet = Some(Hours { from_min: 0, until_min: 10, unless: High });
    });
    assert_eq!(stage.next(), [2, 4]);
    assert!(stage.end().is_empty());
    assert_eq!(stage.spool.cursor("scripted").0[..2], [0, 0], "they are still to come");
}

#[test]
fn gathered_events_come_as_one_when_they_are_enough_or_old_enough() {
    let patient = |_: &mut Settings, sink: &mut Scripted| sink.patience[0] = Duration::from_hours(1);
    let mut stage = Stage::new([], &[Low, High, Low, Low], patient);
    assert_eq!(stage.next(), [2], "what is urgent does not wait for the rest");
    append(&stage.spool, Low);
    assert_eq!(stage.next(), [1, 3, 4, 5], "a full batch");
    append(&stage.spool, Low);
    assert_eq!(stage.end(), [[6]], "what would not outlive the process goes at the end");
    let soon = |_: &mut Settings, sink: &mut Scripted| sink.patience[0] = Duration::from_millis(30);
    let stage = Stage::new([], &[Low, Low], soon);
    assert_eq!(stage.next(), [1, 2]);
}

#[test]
fn an_open_circuit_probes_with_one_event() {
    let mut stage = Stage::new((0..5).map(|_| Answer::Fail), &[Low; 6], |_, _| {});
    for _ in 0..5 {
        assert_eq!(stage.next(), [1, 2, 3, 4]);
    }
    assert_eq!(stage.next(), [1], "a probe");
    assert_eq!(stage.next(), [2, 3, 4, 5], "it was taken, so whole batches go again");
    stage.end();
}

#[test]
fn what_cannot_be_delivered_for_too_long_is_given_up_where_that_is_wanted() {
    let mut stage = Stage::new([Answer::Fail, Answer::Fail], &[Low], |settings, _| {
        settings.give_up_after = Some(Duration::from_millis(100));
    });
    assert_eq!((stage.next(), stage.next()), (vec![1], vec![1]));
    append(&stage.spool, Low);
    assert_eq!(stage.next(), [2]);
    stage.end();
    assert_eq!(*stage.letters.letters.lock().unwrap(), [(1, "no".to_owned(), 2)]);
}

#[test]
fn a_dead_letter_is_tried_again_when_somebody_asks() {
    let mut stage = Stage::new([], &[Low], |_, _| {});
    assert_eq!(stage.next(), [1]);
    let told = Told::new(77, 0, Low, Kind::Alert, "{}".into());
    stage.letters.again.lock().unwrap().push_back(Arc::new(told));
    append(&stage.spool, Low);
    let mut seen = vec![stage.next(), stage.next()];
    seen.sort();
    assert_eq!(seen, [[2], [77]]);
    stage.end();
    assert!(stage.letters.again.lock().unwrap().is_empty());
}

#[test]
fn an_event_that_alone_is_at_fault_is_found() {
    // The delays up to the tenth failure add up to minutes: the state is set, not waited for.
    let worker_sees = |events: &[u64]| {
        let (tell, seen) = mpsc::sync_channel(100);
        let sink = Scripted {
            script: [Answer::Stumble(1)].into(),
            seen: tell,
            batch: Batch { events: 1, bytes: 1 << 20 },
            patience: [Duration::ZERO; 4],
            held: Cursor::default(),
        };
        let spool = Spool::in_memory(0);
        let _ = spool.cursor(&settings().name);
        for _ in events {
            assert!(append(&spool, Low) > 0);
        }
        let letters = Arc::new(Drawer::default());
        let (orders, heard) = watch::channel(Orders::default());
        let outfit = Outfit {
            spool: spool.clone(),
            letters: Arc::clone(&letters) as Arc<dyn Letters>,
            figures: Arc::default(),
            clock: clock(600),
            orders: heard,
        };
        let mut worker = Worker::new(&settings(), Box::new(sink), outfit);
        worker.doubt();
        let run = async {
            orders.send_modify(|orders| orders.until = Some(Instant::now() + Duration::from_secs(5)));
            worker.run().await;
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
        let letters = letters.letters.lock().unwrap().iter().map(|letter| letter.0).collect::<Vec<_>>();
        (seen.try_iter().flatten().collect::<Vec<_>>(), letters)
    };
    assert_eq!(worker_sees(&[1, 2, 3]), (vec![2, 3], vec![1]));
    assert_eq!(worker_sees(&[1]), (vec![1], vec![]), "alone, it may as well be the other end's fault");
}
