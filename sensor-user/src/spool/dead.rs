//! Dead letters: events that a sink's other end refuses for good, with the reason, to be looked at and sent again.
//!
//! A directory a sink, `dead/SINK/`, of files `N.ndjson`: a line a letter, the event at its end as it was told. A file
//! grows to an eighth of what a sink may keep; then the next begins, and the oldest is given up. Letters that are to be
//! sent again are moved to `dead/SINK/replay/`, a file a batch, which appears as a whole; delivery takes a batch from
//! there, and removes it when it is done. So commands work while a sensor runs and while none does. Who changes letters
//! holds `dead/SINK/lock`.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::detect::Severity;
use crate::render::{Kind, Told};
use crate::spool::files;
use crate::spool::record::MAX_JSON;

/// The directory's name in `state.dir`.
pub const DIR: &str = "dead";

/// Bytes that are kept of a sink: some five thousand letters.
pub const MAX_BYTES: u64 = 16 << 20;

/// Files that they are spread over: giving one up costs an eighth.
const FILES: u64 = 8;

/// Most letters and bytes that are sent again as one batch: after a crash they may come twice.
const BATCH_LETTERS: usize = 16;
const BATCH_BYTES: usize = 1 << 20;

/// Longest reason that is kept, in bytes: what a line of a log holds.
const MAX_REASON: usize = 300;

/// One dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// When it was given up, in milliseconds.
    pub at_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was refused.
    pub reason: String,
    /// The event.
    pub event: Arc<Told>,
}

/// Which letters are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of this sink only.
    pub sink: Option<String>,
    /// Those with these sequence numbers only; empty: all.
    pub numbers: Vec<u64>,
}

impl Filter {
    fn has(&self, number: u64) -> bool {
        self.numbers.is_empty() || self.numbers.contains(&number)
    }
}

/// Letters that are to be sent again as one batch.
#[derive(Debug)]
pub struct Replay {
    /// The letters, at least one.
    pub letters: Vec<Letter>,
    path: PathBuf,
}

/// The dead letters of all sinks.
#[derive(Clone, Debug)]
pub struct Dead {
    dir: PathBuf,
    max_bytes: u64,
}

/// A line of a file.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    at_ms: u64,
    attempts: u32,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    sequence: u64,
    time_ms: u64,
    #[serde(borrow)]
    severity: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// The line of a letter, with its end.
fn line(told: &Told, reason: &str, attempts: u32, at_ms: u64) -> io::Result<String> {
    // A damaged event is kept as text.
    let quoted;
    let event = if let Ok(event) = serde_json::from_str(told.json()) {
        event
    } else {
        quoted = serde_json::to_string(told.json())?;
        serde_json::from_str(&quoted)?
    };
    let kind = match told.kind {
        Kind::Alert => "alert",
        Kind::Incident => "incident",
    };
    let line = Line {
        at_ms,
        attempts,
        reason: crate::detect::text::printable(reason.as_bytes(), MAX_REASON).into(),
        sequence: told.sequence,
        time_ms: told.time_ms,
        severity: told.severity.as_str().into(),
        kind: kind.into(),
        event,
    };
    Ok(serde_json::to_string(&line)? + "\n")
}

impl Letter {
    /// Reads a line; none if it is damaged.
    fn read(line: &str) -> Option<Self> {
        let line: Line<'_> = serde_json::from_str(line).ok()?;
        let severity = Severity::parse(&line.severity)?;
        let kind = if line.kind == "incident" { Kind::Incident } else { Kind::Alert };
        let json = line.event.get();
        let json = if json.starts_with('"') { serde_json::from_str(json).ok()? } else { json.to_owned() };
        let event = Told::new(line.sequence, line.time_ms, severity, kind, json.into_boxed_str());
        let (at_ms, attempts, reason) = (line.at_ms, line.attempts, line.reason.into_owned());
        Some(Self { at_ms, attempts, reason, event: Arc::new(event) })
    }
}

impl Dead {
    /// The dead letters in a directory, which need not be there yet.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), max_bytes: MAX_BYTES }
    }

    /// Keeps an event that a sink will never take. Gives how many older letters were given up for it.
    ///
    /// # Errors
    /// When it cannot be written, even after older ones were given up.
    pub fn add(&self, sink: &str, told: &Told, reason: &str, attempts: u32, now_ms: u64) -> io::Result<u64> {
        let line = line(told, reason, attempts, now_ms)?;
        let dir = self.dir.join(files::safe(sink));
        files::make_dir(&dir)?;
        let _lock = lock(&dir)?;
        let mut given_up = 0;
        loop {
            let files = numbered(&dir)?;
            match append(&dir, files.last(), line.as_bytes(), self.max_bytes / FILES) {
                Ok(()) => break,
                Err(error) if files::is_full(&error) && !files.is_empty() => given_up += give_up(&files)?,
                Err(error) => return Err(error),
            }
        }
        while let files = numbered(&dir)?
            && files.len() > 1
            && files.iter().map(|file| file.bytes).sum::<u64>() > self.max_bytes
        {
            given_up += give_up(&files)?;
        }
        Ok(given_up)
    }

    /// Whether a sink has ever had dead letters.
    #[must_use]
    pub fn knows(&self, sink: &str) -> bool {
        self.dir.join(files::safe(sink)).exists()
    }

    /// Bytes of the dead letters of a sink.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn bytes(&self, sink: &str) -> io::Result<u64> {
        Ok(numbered(&self.dir.join(files::safe(sink)))?.iter().map(|file| file.bytes).sum())
    }

    /// The sinks that have had dead letters.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn sinks(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Tells of every letter that is meant: those of one sink after the other, the oldest first. Gives how many lines could
    /// not be read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn each(&self, filter: &Filter, mut tell: impl FnMut(&str, Letter)) -> io::Result<u64> {
        let mut damaged = 0;
        for sink in self.chosen(filter)? {
            for file in numbered(&self.dir.join(&sink))? {
                for line in text(&file.path)?.lines().filter(|line| !line.is_empty()) {
                    match Letter::read(line) {
                        Some(letter) if filter.has(letter.event.sequence) => tell(&sink, letter),
                        Some(_) => {}
                        None => damaged += 1,
                    }
                }
            }
        }
        Ok(damaged)
    }

    /// The letters that are meant, with their sinks.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn list(&self, filter: &Filter) -> io::Result<Vec<(String, Letter)>> {
        let mut all = Vec::new();
        self.each(filter, |sink, letter| all.push((sink.to_owned(), letter)))?;
        Ok(all)
    }

    /// Has letters sent again: by the sensor that runs, or by the next. Gives how many.
    ///
    /// # Errors
    /// When a file cannot be written. A letter may then be sent again and be here all the same.
    pub fn replay(&self, filter: &Filter) -> io::Result<u64> {
        self.take(filter, |dir, lines| {
            let replay = dir.join("replay");
            files::make_dir(&replay)?;
            let waiting = numbered(&replay)?;
            if waiting.iter().map(|file| file.bytes).sum::<u64>() > self.max_bytes {
                return Err(io::Error::other(
                    "too many letters wait to be sent again already; start the sensor",
                ));
            }
            let mut number = waiting.last().map_or(0, |file| file.number);
            for batch in batches(lines) {
                number += 1;
                files::replace(&path(&replay, number), batch.as_bytes(), true)?;
            }
            Ok(())
        })
    }

    /// Forgets letters. Gives how many.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn discard(&self, filter: &Filter) -> io::Result<u64> {
        self.take(filter, |_, _| Ok(()))
    }

    /// The oldest batch of letters of a sink that are to be sent again. It stays until it is [`done`](Self::done), so that
    /// a crash repeats it. With none there this costs one look at a directory.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_replay(&self, sink: &str) -> io::Result<Option<Replay>> {
        for file in numbered(&self.dir.join(files::safe(sink)).join("replay"))? {
            let letters: Vec<Letter> = text(&file.path)?.lines().filter_map(Letter::read).collect();
            if !letters.is_empty() {
                return Ok(Some(Replay { letters, path: file.path }));
            }
            files::remove(&file.path)?;
        }
        Ok(None)
    }

    /// A batch was sent again; those of it that were refused again have been added as letters.
    ///
    /// # Errors
    /// When its file cannot be removed: it will come again.
    pub fn done(&self, replay: &Replay) -> io::Result<()> {
        files::remove(&replay.path)
    }

    fn chosen(&self, filter: &Filter) -> io::Result<Vec<String>> {
        let wanted = filter.sink.as_deref().map(files::safe);
        let mut sinks = self.sinks()?;
        sinks.retain(|sink| wanted.as_ref().is_none_or(|wanted| wanted == sink));
        Ok(sinks)
    }

    /// Gives the lines of the letters that are meant to `keep`, a sink at a time, and removes them when it has kept them.
    fn take(&self, filter: &Filter, keep: impl Fn(&Path, &[String]) -> io::Result<()>) -> io::Result<u64> {
        let mut count = 0;
        for sink in self.chosen(filter)? {
            let dir = self.dir.join(&sink);
            let _lock = lock(&dir)?;
            let (mut taken, mut changed) = (Vec::new(), Vec::new());
            for file in numbered(&dir)? {
                let (mut rest, before) = (String::new(), taken.len());
                for line in text(&file.path)?.lines().filter(|line| !line.is_empty()) {
                    match Letter::read(line) {
                        Some(letter) if filter.has(letter.event.sequence) => taken.push(format!("{line}\n")),
                        // What is damaged goes with a file of which nothing else is left.
                        Some(_) => rest = rest + line + "\n",
                        None => {}
                    }
                }
                if taken.len() > before {
                    changed.push((file.path, rest));
                }
            }
            if taken.is_empty() {
                continue;
            }
            keep(&dir, &taken)?;
            for (path, rest) in changed {
                if rest.is_empty() {
                    files::remove(&path)?;
                } else {
                    files::replace(&path, rest.as_bytes(), true)?;
                }
            }
            count += taken.len() as u64;
        }
        Ok(count)
    }
}

/// A file of letters.
struct Numbered {
    number: u64,
    path: PathBuf,
    bytes: u64,
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.ndjson"))
}

/// The files of a directory in order; none, if it is not there.
fn numbered(dir: &Path) -> io::Result<Vec<Numbered>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".ndjson"));
        if let (Some(number), Ok(meta)) = (digits.and_then(|digits| digits.parse().ok()), entry.metadata()) {
            all.push(Numbered { number, path: entry.path(), bytes: meta.len() });
        }
    }
    all.sort_by_key(|file| file.number);
    Ok(all)
}

/// What a file holds, as far as it is read at all: twice its usual size and one event of the largest size.
fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // It was given up meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        file => {
            let most = 2 * MAX_BYTES / FILES + 2 * MAX_JSON as u64;
            file?.take(most).read_to_end(&mut bytes)?;
        }
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Waits until nobody else changes the letters of this sink.
fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Appends a line to the newest file, or to a new one if that is large enough. All of it or nothing.
fn append(dir: &Path, newest: Option<&Numbered>, line: &[u8], limit: u64) -> io::Result<()> {
    let full = |file: &Numbered| file.bytes > 0 && file.bytes + line.len() as u64 > limit;
    let number = newest.map_or(1, |file| file.number + u64::from(full(file)));
    let path = path(dir, number);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
    let length = file.metadata()?.len();
    let mut out = Vec::with_capacity(line.len() + 1);
    if length > 0 {
        // A crash may have cut the last line: it ends here.
        let mut last = [0];
        file.seek(io::SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            out.push(b'\n');
        }
    }
    out.extend(line);
    let written = file.write_all(&out).and_then(|()| file.sync_data());
    if written.is_err() {
        let _ = file.set_len(length);
        if length == 0 {
            let _ = fs::remove_file(&path);
        }
    } else if length == 0 {
        files::sync_dir(dir)?;
    }
    written
}

/// Gives up the oldest file. Gives how many letters were in it.
fn give_up(files: &[Numbered]) -> io::Result<u64> {
    let Some(oldest) = files.first() else { return Ok(0) };
    let letters = text(&oldest.path)?.lines().filter(|line| !line.is_empty()).count();
    files::remove(&oldest.path)?;
    Ok(letters as u64)
}

/// Lines as batches that are sent at once.
fn batches(lines: &[String]) -> Vec<String> {
    let (mut all, mut batch, mut count) = (Vec::new(), String::new(), 0);
    for line in lines {
        if count >= BATCH_LETTERS || (count > 0 && batch.len() + line.len() > BATCH_BYTES) {
            all.push(std::mem::take(&mut batch));
            count = 0;
        }
        batch.push_str(line);
        count += 1;
    }
    if count > 0 {
        all.push(batch);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sequence: u64, size: usize) -> Arc<Told> {
        let json = format!("{{\"z\":1,\"a\":\"{}\"}}", "ä".repeat(size / 2));
        Arc::new(Told::new(sequence, 5, Severity::High, Kind::Incident, json.into_boxed_str()))
    }

    fn of(sink: &str, numbers: &[u64]) -> Filter {
        Filter { sink: Some(sink.into()), numbers: numbers.to_vec() }
    }

    fn numbers(dead: &Dead, filter: &Filter) -> Vec<u64> {
        dead.list(filter).unwrap().iter().map(|(_, letter)| letter.event.sequence).collect()
    }

    #[test]
    fn what_is_added_is_listed_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead::open(&dir.path().join("dead"));
        assert!(dead.list(&Filter::default()).unwrap().is_empty());
        dead.add("siem", &told(7, 10), "400: \"bad\"\nfield", 3, 99).unwrap();
        let torn = Arc::new(Told::new(8, 5, Severity::Low, Kind::Alert, "{\"half".into()));
        dead.add("mail", &torn, "x", 1, 100).unwrap();
        let all = dead.list(&Filter::default()).unwrap();
        assert_eq!(all.iter().map(|(sink, _)| sink.as_str()).collect::<Vec<_>>(), ["mail", "siem"]);
        let (_, letter) = &all[1];
        assert_eq!((letter.at_ms, letter.attempts), (99, 3));
        assert!(
            letter.reason.starts_with("400: \"bad\"") && !letter.reason.contains('\n'),
            "{}",
            letter.reason
        );
        assert_eq!(letter.event.json(), told(7, 10).json());
        assert_eq!((letter.event.kind, letter.event.severity), (Kind::Incident, Severity::High));
        assert_eq!(all[0].1.event.json(), "{\"half");
        assert_eq!(dead.sinks().unwrap(), ["mail", "siem"]);
    }

    #[test]
    fn the_oldest_are_given_up_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead { dir: dir.path().to_owned(), max_bytes: 80_000 };
        let mut given_up = 0;
        for number in 1..=300 {
            given_up += dead.add("siem", &told(number, 1000), "no", 1, 5).unwrap();
        }
        let left = numbers(&dead, &Filter::default());
        assert_eq!(left.len() as u64 + given_up, 300);
        assert_eq!(left, (given_up + 1..=300).collect::<Vec<_>>());
        let bytes: u64 = numbered(&dir.path().join("siem")).unwrap().iter().map(|file| file.bytes).sum();
        assert!((60_000..=80_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_sent_again_comes_in_batches_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead::open(dir.path());
        for number in 1..=150 {
            dead.add("siem", &told(number, 10), "no", 2, 5).unwrap();
        }
        dead.add("mail", &told(3, 10), "no", 2, 5).unwrap();
        assert!(dead.next_replay("siem").unwrap().is_none());
        assert_eq!(dead.replay(&of("siem", &[3, 4, 999])).unwrap(), 2);
        assert_eq!(numbers(&dead, &of("siem", &[])).len(), 148);
        assert_eq!(dead.replay(&of("siem", &[])).unwrap(), 148);
        let mut sent = Vec::new();
        while let Some(replay) = dead.next_replay("siem").unwrap() {
            // After a crash the same batch comes again.
            let again = Dead::open(dir.path()).next_replay("siem").unwrap().unwrap();
            assert_eq!(again.letters.len(), replay.letters.len());
            assert!(replay.letters.len() <= BATCH_LETTERS);
            assert!(replay.letters.iter().all(|letter| letter.attempts == 2));
            sent.extend(replay.letters.iter().map(|letter| letter.event.sequence));
            dead.done(&replay).unwrap();
        }
        let expected: Vec<u64> =
            [3, 4].into_iter().chain((1..=150).filter(|n| ![3, 4].contains(n))).collect();
        assert_eq!(sent, expected);
        assert!(numbers(&dead, &of("siem", &[])).is_empty());
        assert_eq!(numbers(&dead, &Filter::default()), [3]);
        assert_eq!(dead.discard(&Filter::default()).unwrap(), 1);
        assert!(numbers(&dead, &Filter::default()).is_empty());
    }

    #[test]
    fn a_line_that_was_cut_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Dead::open(dir.path());
        dead.add("siem", &told(1, 10), "no", 1, 5).unwrap();
        dead.add("siem", &told(2, 10), "no", 1, 5).unwrap();
        let path = path(&dir.path().join("siem"), 1);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        dead.add("siem", &told(3, 10), "no", 1, 5).unwrap();
        fs::write(dir.path().join("siem/notes"), [0xff; 9]).unwrap();
        let mut seen = Vec::new();
        let damaged = dead.each(&Filter::default(), |_, letter| seen.push(letter.event.sequence)).unwrap();
        assert_eq!((seen, damaged), (vec![1, 3], 1));
    }

    #[test]
    fn several_writers_disturb_no_letter() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dead = Dead::open(dir.path());
                scope.spawn(move || {
                    for number in 1..=25 {
                        dead.add("siem", &told(writer * 100 + number, 300), "no", 1, 5).unwrap();
                        if number % 10 == 0 {
                            dead.replay(&of("siem", &[])).unwrap();
                        }
                    }
                });
            }
        });
        let dead = Dead::open(dir.path());
        let mut all = numbers(&dead, &Filter::default());
        while let Some(replay) = dead.next_replay("siem").unwrap() {
            all.extend(replay.letters.iter().map(|letter| letter.event.sequence));
            dead.done(&replay).unwrap();
        }
        all.sort_unstable();
        assert_eq!(all.len(), 100);
        all.dedup();
        assert_eq!(all.len(), 100);
    }
}
