//! What the kernel half says about itself (`aya-log`), handed to the agent's own log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

/// The reader of the kernel half's log.
pub(super) struct Diagnostics(EbpfLogger<ToTracing>);

impl std::fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Diagnostics")
    }
}

impl Diagnostics {
    /// `None` if the object holds no log, as one without any message does.
    pub(super) fn new(programs: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(programs, ToTracing).ok().map(Self)
    }

    /// Passes on what has gathered.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

/// Turns records of `log`, which `aya-log` writes, into events of `tracing`.
#[derive(Debug)]
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!("kernel half: {message}"),
            Level::Warn => tracing::warn!("kernel half: {message}"),
            _ => tracing::debug!("kernel half: {message}"),
        }
    }

    fn flush(&self) {}
}
