//! Upgrades without a gap: a sensor that finds another at work in its directory waits beside it, attached, and goes on
//! where that one stopped.
//!
//! It keeps the newest records in memory meanwhile. The one that ends says until when it has handled what came, by the
//! time that the kernel gave each record; what is older is forgotten here, and the rest is judged. After a crash there is no
//! such word, and the beginning is when the lock was last seen held: at most [`LOOK`] before the end.

use std::path::Path;
use std::time::{Duration, Instant};

use super::RuntimeError;
use super::history::History;
use super::services::{News, Services};
use super::supervisor::Doing;
use crate::capture::ebpf::EbpfSource;
use crate::config::State;
use crate::store::StoreError;
use crate::telemetry::catalogue as of;

/// How often the lock is tried.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is said that this sensor lives.
const SHOW: Duration = Duration::from_secs(1);

/// What waiting ended with.
pub(super) struct Turn {
    pub(super) history: History,
    /// Where to begin, in nanoseconds since boot.
    pub(super) begin: u64,
    /// Whether the configuration was to be read again meanwhile.
    pub(super) reload: bool,
}

/// Waits until the directory is free. None if a signal said stop.
///
/// # Errors
/// When the ring cannot be read.
pub(super) fn wait(
    dir: &Path,
    state: &State,
    source: &mut EbpfSource,
    services: &mut Services,
) -> Result<Option<Turn>, RuntimeError> {
    tracing::info!("another sensor uses {}; waiting to take over from it", dir.display());
    let (mut reload, mut shown, mut tried) = (false, None::<Instant>, None::<Instant>);
    let mut held_at = source.boot_ns();
    loop {
        if tried.is_none_or(|tried| tried.elapsed() >= LOOK) {
            tried = Some(Instant::now());
            let now = source.boot_ns();
            match History::open(Some(dir), state.save_every) {
                Err(StoreError::InUse(_)) => held_at = now,
                Err(error) => return Err(error.into()),
                Ok(history) => {
                    let begin = history.left().unwrap_or(held_at);
                    tracing::info!("the other sensor has ended; this one takes over");
                    return Ok(Some(Turn { history, begin, reload }));
                }
            }
        }
        source.stand_by(LOOK)?;
        while let Ok(news) = services.news.try_recv() {
            match news {
                News::Stop => return Ok(None),
                News::Reload => reload = true,
                News::Reopen => {}
            }
        }
        if shown.is_none_or(|shown| shown.elapsed() >= SHOW) {
            shown = Some(Instant::now());
            let version = of::BUILD_INFO.level(1).with(&[env!("CARGO_PKG_VERSION").into()]);
            services.show(Doing::StandingBy, vec![version, of::STANDBY.level(1)]);
        }
    }
}
