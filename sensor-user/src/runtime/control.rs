//! The control socket's thread: whoever asks is answered here, and no other thread ever waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{broadcast, watch};

use super::delivery::Delivery;
use super::past::Past;
use super::{RuntimeError, settings};
use crate::capture::Time;
use crate::config::Config;
use crate::control::{History, Overview, Search, Server, Sources, Streams};
use crate::deliver::clock;
use crate::render::exchange::Followed;
use crate::telemetry::{Metric, catalogue as of};

/// The thread. Dropping it leaves it alone; [`stop`](Self::stop) ends it.
pub(super) struct Control {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    streams: Arc<Streams>,
}

/// What time it is.
pub(super) fn now() -> Time {
    Time(clock::now_ms().saturating_mul(1_000_000))
}

impl Control {
    /// Listens and starts the thread. What cannot be listened on is told of, and is no reason not to watch.
    pub(super) fn start(
        config: &Config,
        delivery: &Delivery,
        exchanges: broadcast::Sender<Arc<Followed>>,
        past: Option<Past>,
        overview: Arc<dyn Overview>,
    ) -> Result<Self, RuntimeError> {
        let (stop, stopped) = watch::channel(false);
        let streams = Arc::new(Streams::default());
        let server = Server::open(&config.control);
        if server.is_deaf() {
            return Ok(Self { stop, thread: None, streams });
        }
        let past = past.map(Arc::new);
        let sources = Sources {
            node: delivery.node.clone(),
            started: now(),
            clock: now,
            spool: delivery.spool.clone(),
            privacy: settings::privacy(config),
            history: past.clone().map(|past| past as Arc<dyn History>),
            exchanges,
            streams: Arc::clone(&streams),
            overview,
            search: past.map(|past| past as Arc<dyn Search>),
        };
        if let Some(address) = server.address() {
            tracing::info!("control at {address}");
        }
        let started = |cause| RuntimeError::Start { what: "the control socket", cause };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()
            .map_err(started)?;
        let serve = move || {
            if let Err(error) = runtime.block_on(server.serve(sources, stopped)) {
                tracing::error!("the control socket is gone: {error}");
            }
            // A question about the past may still be worked on: it is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(serve).map_err(started)?;
        Ok(Self { stop, thread: Some(thread), streams })
    }

    /// What it counts.
    pub(super) fn metrics(&self, all: &mut Vec<Metric>) {
        all.push(of::STREAM_CLIENTS.level(self.streams.clients.load(Ordering::Relaxed)));
        all.push(of::STREAM_MISSED.count(self.streams.missed.load(Ordering::Relaxed)));
    }

    /// Tells readers what there is, for half a second at most, and ends.
    pub(super) fn stop(self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}
