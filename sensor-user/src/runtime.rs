//! Threads, tasks, channels, clocks, signals: the only place that spawns.
//!
//! Live, the capture thread owns the pipeline and never waits for anybody: verdicts, keys, signals and new
//! configurations come to it by bounded channels, alerts leave it by one. Replay is the same pipeline in one thread.

#![allow(clippy::disallowed_methods, reason = "the runtime is where clocks are read")]

mod config_file;
mod control;
mod delivery;
mod figures;
mod history;
mod hosts;
mod identity;
mod knowledge;
mod life;
mod live;
mod names;
mod outward;
mod past;
mod records;
mod replay;
mod services;
mod settings;
mod stages;
mod standby;
mod supervisor;
mod unfinished;
mod user_rules;
mod writer;

use std::sync::Arc;

use crate::capture::SourceError;
use crate::config::{Config, Report};
use crate::deliver::DeliverError;
use crate::detect::user::UserRules;
use crate::render;
use crate::store::StoreError;
use crate::token::fetch::FetchError;
use crate::token::hash::NoRandomness;

pub use config_file::ConfigFile;
pub(crate) use delivery::node;
pub use live::run;
pub use replay::replay;
pub use services::Board;
pub use settings::{following, veil};

/// What the runtime needs to know besides the configuration.
pub struct Options {
    /// How alerts are written.
    pub format: render::Format,
    /// Whether compact lines are coloured.
    pub colour: bool,
    /// The user's rules that replay asks; live capture reads its own from the directory.
    pub rules: Arc<UserRules>,
    /// Reads the configuration again, for SIGHUP; a bad one is refused and the old one stays.
    pub reload: Box<dyn Fn() -> Result<Config, Report> + Send>,
    /// Whether to wait for a sensor that has the state directory, and to go on where it stopped.
    pub take_over: bool,
    /// The file whose changes are a SIGHUP by themselves.
    pub watch: Option<ConfigFile>,
}

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The source could not be opened, or could not go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Another sensor runs here.
    #[error(transparent)]
    Other(#[from] StoreError),
    /// No randomness for the secrets of the token stage.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// No client for fetching keys.
    #[error("cannot fetch keys: {0}")]
    Fetch(#[from] FetchError),
    /// An alert could not be written.
    #[error("cannot write alerts: {0}")]
    Write(std::io::Error),
    /// A sink can never work as configured.
    #[error("{}", all(.0))]
    Sinks(Vec<DeliverError>),
    /// A thread or a signal handler could not be made.
    #[error("cannot start {what}: {cause}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// One error a line.
fn all(errors: &[DeliverError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
