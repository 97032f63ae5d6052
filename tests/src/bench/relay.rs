//! The least that an alert can take on its way: threads like the sensor's that do nothing but hand on.
//!
//! The first looks every millisecond whether anything has come, as the sensor looks at its ring; the second is woken by a
//! channel, as the sensor's writer; the third by a pipe, as whoever reads alerts. What this takes beside a load is how long
//! the kernel lets threads wait that want to run for a moment, and no sensor of this shape is quicker.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How often the first thread looks: `capture::ebpf::LINGER`.
const LOOK: Duration = Duration::from_millis(1);

/// The three, in a row. They end with it.
pub(super) struct Relay {
    to_first: SyncSender<u8>,
    from_third: Receiver<u8>,
}

impl Relay {
    pub(super) fn start() -> Result<Self> {
        let (to_first, first) = sync_channel(1);
        let (to_second, second) = sync_channel(1);
        let (third, to_third) = pipe()?;
        let (end, from_third) = sync_channel(1);
        std::thread::spawn(move || look(&first, &to_second));
        std::thread::spawn(move || hand_on(&second, to_third));
        std::thread::spawn(move || read(third, &end));
        Ok(Self { to_first, from_third })
    }

    /// Sends something through all of them.
    pub(super) fn pass(&self, patience: Duration) -> Result<()> {
        self.to_first.send(1).context("the first thread ended")?;
        match self.from_third.recv_timeout(patience) {
            Ok(_) => Ok(()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                anyhow::bail!("nothing came through")
            }
        }
    }
}

fn look(from: &Receiver<u8>, to: &SyncSender<u8>) {
    loop {
        std::thread::sleep(LOOK);
        match from.try_recv() {
            Ok(what) if to.send(what).is_ok() => {}
            Err(TryRecvError::Empty) => {}
            Ok(_) | Err(TryRecvError::Disconnected) => return,
        }
    }
}

fn hand_on(from: &Receiver<u8>, mut to: PipeWriter) {
    while let Ok(what) = from.recv() {
        if to.write_all(&[what]).is_err() {
            return;
        }
    }
}

fn read(mut from: PipeReader, to: &SyncSender<u8>) {
    let mut what = [0];
    while from.read_exact(&mut what).is_ok() && to.send(what[0]).is_ok() {}
}
