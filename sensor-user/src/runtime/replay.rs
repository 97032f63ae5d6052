//! Replay: the pipeline over capture files, in one thread and in step.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::figures::{self, Losses};
use super::settings;
use super::writer::Tally;
use super::{Options, RuntimeError};
use crate::capture::pcap::PcapSource;
use crate::capture::{Input, Progress as Polled, Source as _};
use crate::config::{Config, Zone};
use crate::pipeline::{Output, Pipeline};
use crate::render::{Sink as _, Stdout};
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
    config.tokens = config.tokens.without_inquiries();
    let keys = super::services::fetch_once(&config.tokens)?;
    let verifier = Box::new(InStep::new(&config.tokens));
    let mut pipeline = Pipeline::new(settings::of(&config), verifier)?;
    pipeline.adopt(std::sync::Arc::clone(&options.rules));
    let mut out = Output::default();
    pipeline.on_keys(keys, &mut out);
    pipeline.know(super::knowledge::read_once(&config));
    let mut writer = Writer::new(&config, options);
    let mut losses = Losses::default();
    for (index, file) in files.iter().enumerate() {
        let mut source = PcapSource::open(file)?;
        loop {
            let polled = source.poll(Duration::ZERO, &mut |input| {
                if let Input::Loss(loss) = input {
                    losses.add(loss.reason, loss.records);
                }
                pipeline.on_input(input, &mut out);
            });
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
    writer.flush()?;
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
    sink: Option<Stdout<BufWriter<io::Stdout>>>,
    tally: Tally,
}

impl Writer {
    fn new(config: &Config, options: &Options) -> Self {
        let sink = Stdout::new(BufWriter::new(io::stdout()), options.format, options.colour);
        let sink = config.stdout.enabled.then(|| sink.with_privacy(settings::privacy(config)));
        Self { sink, tally: Tally::default() }
    }

    fn write(&mut self, out: &mut Output, progress: &Progress) -> Result<(), RuntimeError> {
        out.grants.clear();
        if out.events.is_empty() {
            return Ok(());
        }
        progress.suspend(|| {
            for event in out.events.drain(..) {
                self.tally.count(&event);
                if let Some(sink) = &mut self.sink {
                    sink.emit(&event).map_err(RuntimeError::Write)?;
                }
            }
            self.flush()
        })
    }

    fn flush(&mut self) -> Result<(), RuntimeError> {
        let Some(sink) = &mut self.sink else { return io::stdout().flush().map_err(RuntimeError::Write) };
        sink.flush().map_err(RuntimeError::Write)
    }
}
