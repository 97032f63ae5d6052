//! To be written.

use std::path::PathBuf;

use crate::cli::Options;
use crate::config::Config;
use crate::telemetry::{Progress, Totals};

/// Captures on this host until a signal says stop.
///
/// # Errors
/// When capture cannot start or go on.
pub fn run(_config: Config, _options: Options) -> anyhow::Result<Totals> {
    anyhow::bail!("not built in")
}

/// Judges capture files.
///
/// # Errors
/// When a file cannot be read.
pub fn replay(
    _config: Config,
    _options: Options,
    _files: &[PathBuf],
    _progress: &Progress,
) -> anyhow::Result<Totals> {
    anyhow::bail!("not built in")
}
