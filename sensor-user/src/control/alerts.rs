//! Alerts and incidents to one reader, at its own pace.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::capture::Time;
use crate::control::Streams;
use crate::control::feed::Feed;
use crate::control::flow::{Gone, Writer};
use crate::control::record::Record;

/// How often a stream that has nothing to say shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How a reader wants its alerts.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Go on with what comes.
    pub follow: bool,
    /// With their numbers.
    pub envelope: bool,
    /// So many at most.
    pub limit: Option<u64>,
    /// Nothing after this, in milliseconds.
    pub until_ms: Option<u64>,
}

/// What a stream must hear of.
pub struct Ears {
    /// The spool's head.
    pub head: watch::Receiver<u64>,
    /// Whether the sensor stops: then what there is is told, and no more.
    pub stop: watch::Receiver<bool>,
    /// What time it is.
    pub clock: fn() -> Time,
    /// Where it is counted what readers miss.
    pub streams: Arc<Streams>,
}

/// Writes until everything was told, or the reader has gone.
pub async fn tell(feed: Feed, manner: Manner, mut ears: Ears, writer: Writer) {
    // A reader that goes away is nothing to speak of.
    let _ = write(feed, manner, &mut ears, &writer).await;
}

async fn write(mut feed: Feed, manner: Manner, ears: &mut Ears, writer: &Writer) -> Result<(), Gone> {
    let mut left = manner.limit.unwrap_or(u64::MAX);
    loop {
        let stopping = *ears.stop.borrow_and_update();
        ears.head.mark_unchanged();
        let (back, batch) = read(feed).await?;
        feed = back;
        let mut text = String::new();
        for record in &batch.records {
            if left == 0 {
                break;
            }
            left -= u64::from(matches!(record, Record::Event(_)));
            if let Record::Gap(lost) = record {
                let count = lost.end.saturating_sub(lost.start);
                ears.streams.missed.fetch_add(count, Ordering::Relaxed);
            }
            if manner.envelope || !matches!(record, Record::Position(_)) {
                record.write(manner.envelope, &mut text);
            }
        }
        writer.send(text).await?;
        if left == 0 {
            return Ok(());
        }
        if batch.more {
            tokio::task::yield_now().await;
            continue;
        }
        let over = manner.until_ms.is_some_and(|until| (ears.clock)().millis() > until);
        if !manner.follow || over || stopping {
            return Ok(());
        }
        wait(&feed, manner, ears, writer).await?;
    }
}

/// Reads a batch: aside, if that may block.
async fn read(mut feed: Feed) -> Result<(Feed, super::feed::Batch), Gone> {
    if !feed.is_past() {
        let batch = feed.step();
        return Ok((feed, batch));
    }
    let aside = tokio::task::spawn_blocking(move || {
        let batch = feed.step();
        (feed, batch)
    });
    aside.await.map_err(|_panicked_or_stopped| Gone)
}

async fn wait(feed: &Feed, manner: Manner, ears: &mut Ears, writer: &Writer) -> Result<(), Gone> {
    tokio::select! {
        changed = ears.head.changed() => changed.map_err(|_no_spool| Gone),
        _ = ears.stop.changed() => Ok(()),
        () = writer.gone() => Err(Gone),
        () = tokio::time::sleep(KEEP_ALIVE) => {
            let mut line = String::new();
            Record::Position(feed.through()).write(manner.envelope, &mut line);
            writer.send(line).await
        }
    }
}
