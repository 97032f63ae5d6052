//! Exchanges to one reader. They are kept nowhere: who reads too slowly is told how many it has missed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::control::alerts::KEEP_ALIVE;
use crate::control::flow::{Gone, Writer};
use crate::control::{Filter, Record, Streams};
use crate::render::exchange::Followed;

/// Bytes that are written at once.
const BYTES: usize = 64 << 10;
/// Exchanges that are looked at before others get their turn.
const TURN: usize = 256;

/// How a reader wants its exchanges.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Which.
    pub filter: Filter,
    /// So many at most.
    pub limit: Option<u64>,
    /// For so long at most.
    pub lasts: Option<Duration>,
    /// Where it is counted what readers miss.
    pub streams: Arc<Streams>,
}

/// Writes until that is done, or the reader has gone.
pub async fn tell(
    mut exchanges: Receiver<Arc<Followed>>,
    manner: Manner,
    mut stop: watch::Receiver<bool>,
    writer: Writer,
) {
    let mut left = manner.limit.unwrap_or(u64::MAX);
    // A reader that goes away is nothing to speak of.
    let _ = write(&mut exchanges, &manner, &mut left, &mut stop, &writer).await;
}

async fn write(
    exchanges: &mut Receiver<Arc<Followed>>,
    manner: &Manner,
    left: &mut u64,
    stop: &mut watch::Receiver<bool>,
    writer: &Writer,
) -> Result<(), Gone> {
    let end = manner.lasts.map(|lasts| Instant::now() + lasts);
    while *left > 0 && !*stop.borrow() {
        let mut text = String::new();
        tokio::select! {
            first = exchanges.recv() => match first {
                Ok(followed) => {
                    add(&followed, manner, left, &mut text);
                    gather(exchanges, manner, left, &mut text);
                }
                Err(RecvError::Lagged(missed)) => miss(missed, manner, &mut text),
                Err(RecvError::Closed) => return Ok(()),
            },
            () = until(end) => return Ok(()),
            () = writer.gone() => return Err(Gone),
            _ = stop.changed() => {}
            () = sleep(KEEP_ALIVE) => Record::Idle.write(false, &mut text),
        }
        writer.send(text).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Adds what is there already.
fn gather(exchanges: &mut Receiver<Arc<Followed>>, manner: &Manner, left: &mut u64, text: &mut String) {
    for _ in 0..TURN {
        if *left == 0 || text.len() >= BYTES {
            return;
        }
        match exchanges.try_recv() {
            Ok(followed) => add(&followed, manner, left, text),
            Err(TryRecvError::Lagged(missed)) => miss(missed, manner, text),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

fn miss(missed: u64, manner: &Manner, text: &mut String) {
    manner.streams.missed.fetch_add(missed, Ordering::Relaxed);
    Record::Missed(missed).write(false, text);
}

fn add(followed: &Followed, manner: &Manner, left: &mut u64, text: &mut String) {
    if *left > 0 && manner.filter.admits_exchange(&followed.exchanged) {
        text.push_str(followed.json());
        text.push('\n');
        *left -= 1;
    }
}
