//! The desk's memory on disk: taken up at the start, written every minute and at the end.
//!
//! Writing is left to the event loop's thread pool; the capture thread only makes the bytes, which for the tens of
//! alerts that are usually open takes less than a millisecond.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::cli::cards;
use crate::pipeline::Pipeline;
use crate::store::snapshot;

/// The file below `state_dir`.
const NAME: &str = "alerts.state";

/// How much of a crash is forgotten.
const EVERY: Duration = Duration::from_mins(1);

/// Keeps the desk's memory.
pub(super) struct Keeper {
    dir: PathBuf,
    written: Instant,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Lets the desk go on where an earlier run stopped.
    pub(super) fn resume(dir: &Path, pipeline: &mut Pipeline) -> Self {
        match snapshot::read(dir, NAME, |bytes| pipeline.desk.load(bytes, cards())) {
            Ok(Some(gone)) => {
                tracing::info!("{} alerts go on from an earlier run", pipeline.desk.len());
                if gone > 0 {
                    tracing::warn!("{gone} alerts of rules that are no more were forgotten");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("alerts of an earlier run are forgotten: {error}"),
        }
        Self { dir: dir.to_owned(), written: Instant::now(), writing: None }
    }

    /// Writes what there is, if it is time to.
    pub(super) fn keep(&mut self, pipeline: &Pipeline, events: &Handle) {
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if self.written.elapsed() < EVERY || busy {
            return;
        }
        self.written = Instant::now();
        let Some(bytes) = bytes(pipeline) else { return };
        let dir = self.dir.clone();
        self.writing = Some(events.spawn_blocking(move || write(&dir, &bytes)));
    }

    /// Writes what there is, now.
    pub(super) fn finish(self, pipeline: &Pipeline) {
        if let Some(bytes) = bytes(pipeline) {
            write(&self.dir, &bytes);
        }
    }
}

fn bytes(pipeline: &Pipeline) -> Option<Vec<u8>> {
    let saved = pipeline.desk.save();
    saved.inspect_err(|error| tracing::warn!("alerts cannot be kept over a restart: {error}")).ok()
}

fn write(dir: &Path, bytes: &[u8]) {
    if let Err(error) = snapshot::write(dir, NAME, bytes) {
        tracing::warn!("alerts are not kept over a restart: {}: {error}; set state_dir", dir.display());
    }
}
