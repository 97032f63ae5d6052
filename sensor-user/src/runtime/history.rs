//! The history on disk: read at the start, written every few minutes and at the end.
//!
//! A part is saved at each turn of the capture loop, and a thread packs and writes them all, so that capture is held up
//! for the largest part at most.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::cli::cards;
use crate::pipeline::Pipeline;
use crate::store::snapshot::FILE;
use crate::store::{self, Part, Snapshot, Store, StoreError, handover};
use crate::token::settings::TokenSettings;
use crate::token::stage::Tokens;

/// How long the last writing may take: SIGTERM means stopped within five seconds.
const LAST_WRITE: Duration = Duration::from_millis(2500);

/// What becomes of the history.
pub(super) struct History {
    store: Option<Store>,
    key: u64,
    every: Duration,
    due: Instant,
    taken: Option<(usize, Vec<Part>)>,
    /// Bytes of each part as it was saved last.
    sizes: Vec<(String, u64)>,
    writing: Option<Receiver<std::io::Result<()>>>,
    /// Where the sensor before stopped, in nanoseconds since boot.
    left: Option<u64>,
}

impl History {
    /// Opens the store. Without one the sensor runs all the same, and says what that costs.
    ///
    /// # Errors
    /// When another sensor uses it: two that were not meant to run side by side would tell of everything twice.
    pub(super) fn open(dir: Option<&Path>, every: Duration) -> Result<Self, StoreError> {
        let store = match dir.map(Store::open).transpose() {
            Ok(store) => store,
            Err(error @ StoreError::InUse(_)) => return Err(error),
            Err(error) => {
                tracing::warn!("{error}; what detections learn is lost at a restart{}", remedy(&error));
                None
            }
        };
        if let Some((dir, mode)) = store.as_ref().and_then(|store| Some((store.dir(), store.exposed()?))) {
            let dir = dir.display();
            tracing::warn!("{dir} has mode {mode:o}: others may enter it; close it with chmod 700 {dir}");
        }
        let left = store.as_ref().and_then(|store| handover::take(store.dir(), &handover::boot_id()));
        let (due, sizes) = (Instant::now() + every, Vec::new());
        Ok(Self { store, key: 0, every, due, taken: None, sizes, writing: None, left })
    }

    /// Where the sensor before stopped, in nanoseconds since boot, if it said so.
    pub(super) const fn left(&self) -> Option<u64> {
        self.left
    }

    /// The directory of state, if this process alone uses it.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.store.as_ref().map(Store::dir)
    }

    /// Bytes of each part as it was saved last; none before that.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sizes.iter().map(|(name, bytes)| (name.as_str(), *bytes))
    }

    /// Gives tokens the same names as before the restart, unless a key is configured.
    pub(super) fn name_tokens(&mut self, tokens: &mut TokenSettings) {
        if let (Some(store), None) = (&self.store, &tokens.fingerprint_key) {
            match store.fingerprint_key() {
                Ok(key) => tokens.fingerprint_key = Some(key),
                Err(error) => tracing::warn!("{error}; tokens get new names"),
            }
        }
        let key = tokens
            .fingerprint_key
            .as_ref()
            .map(|key| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key));
        self.key = key.and_then(|key| key.as_ref().first_chunk::<8>().copied()).map_or(0, u64::from_le_bytes);
    }

    /// Restores what was saved last.
    pub(super) fn restore(&self, pipeline: &mut Pipeline) {
        let detect = &mut pipeline.detect;
        let Some(store) = &self.store else { return };
        let snapshot = match store.load() {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return,
            Err(error) => return tracing::warn!("{error}; detections learn anew"),
        };
        if snapshot.key != self.key {
            let error = store.refuse("names tokens by another fingerprint key");
            return tracing::warn!("{error}; detections learn anew");
        }
        let forgotten = detect.restore(|name| {
            let part = snapshot.parts.iter().find(|part| part.name == name)?;
            Some((part.version, part.bytes.as_slice()))
        });
        for what in forgotten {
            tracing::warn!("{what}; it begins anew");
        }
        let desk = snapshot.parts.iter().find(|part| part.name == DESK && part.version == DESK_VERSION);
        if let Some(Err(error)) = desk.map(|part| pipeline.desk.load(&part.bytes, cards())) {
            tracing::warn!("open alerts of an earlier run are forgotten: {error}");
        }
        let published = snapshot.parts.iter().find(|part| part.name == KEYS && part.version == KEYS_VERSION);
        if let Some(published) =
            published.and_then(|part| postcard::from_bytes::<Published>(&part.bytes).ok())
        {
            pipeline.tokens.resume_published(&published);
        }
    }

    /// Takes the next step of saving, if it is time.
    pub(super) fn step(&mut self, pipeline: &mut Pipeline) {
        if self.store.is_none() {
            return;
        }
        if let Some(done) = self.writing.as_ref().and_then(|writing| writing.try_recv().ok()) {
            self.writing = None;
            tell(done);
        }
        if self.taken.is_none() && self.writing.is_none() && Instant::now() >= self.due {
            self.taken = Some((0, beside_rules(pipeline)));
            self.due = Instant::now() + self.every;
        }
        let detect = &mut pipeline.detect;
        let Some((next, parts)) = &mut self.taken else { return };
        if *next < detect.parts() {
            parts.extend(detect.save(*next).map(part));
            *next += 1;
        } else if let Some((_, parts)) = self.taken.take() {
            self.write(parts);
        }
    }

    /// Saves everything now, waits for it for a while, and says that everything was handled that was made before
    /// `boot_ns`. Others may have the directory once what this gives is dropped.
    pub(super) fn finish(mut self, pipeline: &mut Pipeline, boot_ns: u64) -> Option<Store> {
        let beside = beside_rules(pipeline);
        let detect = &mut pipeline.detect;
        let deadline = Instant::now() + LAST_WRITE;
        let dir = self.dir()?.to_owned();
        if let Some(writing) = self.writing.take() {
            let _ = writing.recv_timeout(LAST_WRITE);
        }
        let saved = (0..detect.parts()).filter_map(|part_of| detect.save(part_of).map(part));
        let parts = beside.into_iter().chain(saved).collect();
        self.write(parts);
        if let Some(writing) = self.writing.take() {
            match writing.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(done) => tell(done),
                Err(_late) => {
                    tracing::warn!("no time was left to save the history; the one saved before stays");
                }
            }
        }
        if let Err(error) = handover::leave(&dir, &handover::boot_id(), boot_ns) {
            tracing::warn!("cannot say in {} where this sensor stopped: {error}", dir.display());
        }
        self.store
    }

    fn write(&mut self, parts: Vec<Part>) {
        let Some(store) = &self.store else { return };
        let (path, key) = (store.path(FILE), self.key);
        self.sizes = parts.iter().map(|part| (part.name.clone(), part.bytes.len() as u64)).collect();
        let (tell, done) = sync_channel(1);
        let write = move || {
            let _ = tell.send(store::files::replace(&path, &Snapshot { key, parts }.write()));
        };
        match std::thread::Builder::new().name("history".into()).spawn(write) {
            Ok(_) => self.writing = Some(done),
            Err(error) => tracing::warn!("the history was not saved: {error}"),
        }
    }
}

/// The part about open alerts, incidents and risks.
const DESK: &str = "desk";

/// Raised when its layout changes.
const DESK_VERSION: u32 = 1;

/// What is remembered besides what rules do.
fn beside_rules(pipeline: &Pipeline) -> Vec<Part> {
    let desk = pipeline.desk.save().ok();
    let desk = desk.map(|bytes| Part { name: DESK.to_owned(), version: DESK_VERSION, bytes });
    keys(&pipeline.tokens).into_iter().chain(desk).collect()
}

/// The part about key ids that issuers have published.
const KEYS: &str = "published-keys";

/// Raised when its layout changes.
const KEYS_VERSION: u32 = 1;

type Published = Vec<(String, Vec<Box<str>>)>;

fn keys(tokens: &Tokens) -> Option<Part> {
    let bytes = postcard::to_allocvec::<Published>(&tokens.published_keys()).ok()?;
    Some(Part { name: KEYS.to_owned(), version: KEYS_VERSION, bytes })
}

fn part(saved: crate::detect::memory::Remembered) -> Part {
    Part { name: saved.name.to_owned(), version: saved.version, bytes: saved.bytes }
}

/// What to do about it, behind a message.
fn remedy(error: &StoreError) -> String {
    error.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default()
}

fn tell(done: std::io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!("the history was not saved: {error}");
    }
}
