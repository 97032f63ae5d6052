//! Replay: the pipeline over capture files, in one thread and in step.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::figures::{self, Losses};
use super::settings;
use super::writer::Tally;
use super::{Options, RuntimeError};
use crate::capture::pcap::PcapSource;
use crate::capture::{Progress as Polled, Source as _};
use crate::config::{Config, Zone};
use crate::pipeline::{Output, Pipeline};
use crate::render::{Privacy, Told};
use crate::sink::stdout::Stdout;
use crate::telemetry::{Progress, Totals};
use crate::token::verifier::InStep;

/// Names tokens where no key is configured: replay must give the same bytes every time, and a capture file holds
/// the raw tokens anyway, so that a secret name would protect nothing.
const REPLAY_KEY: &[u8] = b"tokenscope replay, no key configured";

/// Judges capture files.
///
/// # Errors
/// When a file cannot be read, or alerts cannot be written.
pub fn replay(
    mut config: Config,
    options: &Options,
    files: &[PathBuf],
    progress: &Progress,
) -> Result<Totals, RuntimeError> {
    let began = Instant::now();
    config.tokens.fingerprint_key.get_or_insert_with(|| REPLAY_KEY.to_vec().into());
    if config.time_zone == Zone::System {
        config.time_zone = Zone::Named("UTC".to_owned());
    }
    if config.watch.is_choosy() {
        tracing::info!("`watch` is not obeyed: a capture file does not tell whose server answered");
    }
    config.tokens = config.tokens.without_inquiries();
    let keys = super::services::fetch_once(&config.tokens)?;
    let verifier = Box::new(InStep::new(&config.tokens));
    let mut pipeline = Pipeline::new(settings::of(&config), verifier)?;
    pipeline.adopt(Arc::clone(&options.rules));
    let mut out = Output::default();
    pipeline.on_keys(keys, &mut out);
    pipeline.know(super::knowledge::read_once(&config));
    let mut writer = Writer::new(&config, options);
    let mut losses = Losses::default();
    for (index, file) in files.iter().enumerate() {
        let mut source = PcapSource::open(file)?;
        loop {
            let polled = source.poll(Duration::ZERO, &mut |input| {
                losses.note(&input);
                pipeline.on_input(&input, &mut out);
            });
            pipeline.settle(&mut out);
            writer.write(&mut out, progress)?;
            show(progress, &source, index, files.len());
            if polled? == Polled::End {
                break;
            }
        }
    }
    pipeline.finish(&mut out);
    pipeline.close(&mut out);
    writer.write(&mut out, progress)?;
    Ok(figures::totals(&pipeline, &losses, writer.tally.0, began.elapsed()))
}

/// Files count alike, however large.
fn show(progress: &Progress, source: &PcapSource, index: usize, files: usize) {
    let (read, Some(size)) = source.progress() else { return };
    #[allow(clippy::cast_precision_loss, reason = "a bar is a hundred characters wide")]
    let fraction = (index as f64 + read as f64 / size.max(1) as f64) / files as f64;
    progress.set(fraction);
}

struct Writer {
    stdout: Option<Stdout<io::Stdout>>,
    privacy: Privacy,
    tally: Tally,
}

impl Writer {
    fn new(config: &Config, options: &Options) -> Self {
        let stdout = || Stdout::new(io::stdout(), options.format, options.colour);
        let privacy = settings::privacy(config);
        Self { stdout: config.stdout.enabled.then(stdout), privacy, tally: Tally::default() }
    }

    fn write(&mut self, out: &mut Output, progress: &Progress) -> Result<(), RuntimeError> {
        out.grants.clear();
        let events = std::mem::take(&mut out.events);
        for event in &events {
            self.tally.count(event);
        }
        let Some(stdout) = self.stdout.as_mut().filter(|_| !events.is_empty()) else { return Ok(()) };
        let told = |event| Arc::new(Told::of(&self.privacy.event(event), None, None));
        let told: Vec<_> = events.iter().map(told).collect();
        progress.suspend(|| stdout.write(&told)).map_err(RuntimeError::Write)?;
        Ok(())
    }
}
