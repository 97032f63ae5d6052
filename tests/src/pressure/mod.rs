//! Pressure: scans, floods, requests in crumbs, heads that never end; and what the sensor says meanwhile.
//!
//! Everything happens in two network namespaces of its own, so that ports, queues and sysctls are nobody else's, while
//! the sensor runs on the host and sees them as any other sockets. Both ends and the sensor share the machine's cores:
//! rates are what is left, and never asserted.

pub mod bed;
pub mod crowd;
pub mod flood;
pub mod gauge;
pub mod hall;
pub mod loris;
pub mod scan;
pub mod segments;
pub mod visitor;

use anyhow::Result;

use crate::clock;

/// How much was made of something, and in how long.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// Seconds.
    pub seconds: f64,
}

impl Rate {
    /// How many a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
    pub fn per_second(self) -> f64 {
        self.count as f64 / self.seconds.max(1e-9)
    }
}

/// Runs the same in several threads and gives what they did, and how long it took.
///
/// # Errors
/// What the first that fails says.
pub fn in_threads<T: Send>(threads: usize, run: impl Fn(usize) -> Result<T> + Sync) -> Result<(Vec<T>, f64)> {
    let began = clock::instant();
    let run = &run;
    let done: Result<Vec<T>> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|one| scope.spawn(move || run(one))).collect();
        all.into_iter()
            .map(|one| one.join().map_err(|_panic| anyhow::anyhow!("a thread panicked"))?)
            .collect()
    });
    Ok((done?, began.elapsed().as_secs_f64()))
}
