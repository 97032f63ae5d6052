//! Logs on standard error: one compact line an event.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(LevelFilter);

impl Level {
    /// From how often `-v` and `-q` were given.
    #[must_use]
    pub const fn of(verbose: u8, quiet: u8) -> Self {
        Self(match (verbose, quiet) {
            (0, 0) => LevelFilter::INFO,
            (1, _) => LevelFilter::DEBUG,
            (2.., _) => LevelFilter::TRACE,
            (0, 1) => LevelFilter::WARN,
            (0, _) => LevelFilter::ERROR,
        })
    }
}

/// Starts logging, once a process; later calls have no effect. `RUST_LOG` beats the level if it is set.
pub fn init(level: Level, colour: bool) {
    // What libraries say is of interest only to who asks for everything.
    let others =
        if level.0 == LevelFilter::TRACE { LevelFilter::DEBUG } else { LevelFilter::WARN.min(level.0) };
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = wanted.and_then(|text| EnvFilter::try_new(text).ok());
    // What the client of Kubernetes cannot read it logs whole, and pods hold secrets.
    let silent = "kube_client=off,kube_runtime=off";
    let filter =
        filter.unwrap_or_else(|| EnvFilter::new(format!("{others},{silent},sensor_user={}", level.0)));
    let layer = fmt::layer().compact().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    // systemd's journal has times of its own.
    let layer = if std::env::var_os("JOURNAL_STREAM").is_some() {
        layer.without_time().boxed()
    } else {
        layer.boxed()
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}
