//! A capture file as a source: what `tokenscope replay` reads.
//!
//! pcap and pcapng, plain or compressed, from a file or standard input, in memory that does not grow with the file. It
//! plays the kernel half's part: connections are told apart and their servers found, so that nothing downstream knows
//! that it reads a file. Time is the packets' own, made monotonic.
//!
//! Checksums: a segment to a server with a wrong one is left out (no server accepts it) if that client's checksums were
//! right before. In captures taken before the network card filled them in they are all wrong or partial, and mean
//! nothing. Not read: IP fragments (counted as losses that may hold requests) and tunnels other than VLAN and `PPPoE`.

mod checksum;
mod connections;
mod file;
mod input;
mod packet;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use self::connections::Connections;
use self::file::{CaptureFile, FileError, Item};
use self::input::Window;
use self::packet::Miss;
use super::{Input, Loss, LossKind, Progress, Source, SourceError, Time};

/// Packets delivered by one call of [`Source::poll`], so that signals and progress bars get their turn.
const BATCH: usize = 4096;

/// How often packet time is told when nothing else does: as often as live sources do.
const TICK: Duration = Duration::from_millis(200);

/// What was read of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcapCounters {
    /// Packets in the file.
    pub packets: u64,
    /// Packets of other protocols than TCP.
    pub not_tcp: u64,
    /// IP fragments of TCP segments.
    pub fragments: u64,
    /// Packets whose headers cannot be.
    pub malformed: u64,
    /// Packets cut off before their payload.
    pub snaplen: u64,
    /// Packets of link types that are not known here.
    pub link_type: u64,
    /// Segments that no server accepts, by their checksum.
    pub bad_checksum: u64,
    /// Packets that the capturing side says it dropped.
    pub dropped: u64,
}

impl PcapCounters {
    /// Each counter with its name as a metric label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("packets", self.packets),
            ("not_tcp", self.not_tcp),
            ("fragments", self.fragments),
            ("malformed", self.malformed),
            ("snaplen", self.snaplen),
            ("link_type", self.link_type),
            ("bad_checksum", self.bad_checksum),
            ("dropped", self.dropped),
        ]
        .into_iter()
    }

    /// Losses since `before`: reason, how many, and what they mean.
    fn losses_since(&self, before: &Self) -> impl Iterator<Item = (&'static str, u64, LossKind)> {
        use LossKind::{Other, Request};
        [
            ("ip_fragment", self.fragments - before.fragments, Request),
            ("malformed", self.malformed - before.malformed, Other),
            ("snaplen", self.snaplen - before.snaplen, Request),
            ("link_type", self.link_type - before.link_type, Request),
            ("bad_checksum", self.bad_checksum - before.bad_checksum, Other),
            ("capture_dropped", self.dropped - before.dropped, Request),
        ]
        .into_iter()
        .filter(|(_, records, _)| *records > 0)
    }
}

/// A capture file being replayed.
pub struct PcapSource {
    name: String,
    file: CaptureFile,
    connections: Connections,
    counters: PcapCounters,
    now: Time,
    ticked: Time,
}

impl PcapSource {
    /// Opens a file by its name; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read, or is no capture file.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let window = Window::open(path)
            .map_err(|cause| SourceError::Io { what: format!("cannot read {name}"), cause })?;
        Self::start(name, window)
    }

    /// Reads a capture from anything. `name` is for messages.
    ///
    /// # Errors
    /// When it cannot be read, or is no capture.
    pub fn from_reader(name: &str, reader: Box<dyn Read + Send>) -> Result<Self, SourceError> {
        let window = Window::new(reader, None)
            .map_err(|cause| SourceError::Io { what: format!("cannot read {name}"), cause })?;
        Self::start(name.to_owned(), window)
    }

    fn start(name: String, window: Window) -> Result<Self, SourceError> {
        let file = CaptureFile::new(window).map_err(|error| told(&name, error))?;
        Ok(Self {
            name,
            file,
            connections: Connections::new(),
            counters: PcapCounters::default(),
            now: Time(0),
            ticked: Time(0),
        })
    }

    /// Bytes of the stored file read so far, and its size where it has one.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        self.file.progress()
    }

    /// What was read so far.
    #[must_use]
    pub fn counters(&self) -> &PcapCounters {
        &self.counters
    }

    /// The time of the last packet.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    fn batch(&mut self, sink: &mut dyn FnMut(Input<'_>)) -> Result<Progress, FileError> {
        let Self { file, connections, counters, now, ticked, .. } = self;
        for _ in 0..BATCH {
            let record = match file.next()? {
                Some(Item::Packet(record)) => record,
                Some(Item::Dropped(packets)) => {
                    counters.dropped += packets;
                    continue;
                }
                Some(Item::Other) => continue,
                None => return Ok(Progress::End),
            };
            counters.packets += 1;
            *now = record.at.map_or(*now, |at| at.max(*now));
            if now.since(*ticked) >= TICK {
                *ticked = *now;
                sink(Input::Tick(*now));
            }
            match packet::decode(record.link, record.data, record.wire_len) {
                Ok(packet) => connections.push(&packet, *now, sink),
                Err(Miss::NotTcp) => counters.not_tcp += 1,
                Err(Miss::Fragment) => counters.fragments += 1,
                Err(Miss::Malformed) => counters.malformed += 1,
                Err(Miss::Snaplen) => counters.snaplen += 1,
                Err(Miss::Link) => counters.link_type += 1,
            }
        }
        Ok(Progress::More)
    }
}

impl Source for PcapSource {
    fn poll(&mut self, _wait: Duration, sink: &mut dyn FnMut(Input<'_>)) -> Result<Progress, SourceError> {
        let before = self.counters;
        let result = self.batch(sink);
        self.counters.bad_checksum = self.connections.decoys;
        for (reason, records, kind) in self.counters.losses_since(&before) {
            sink(Input::Loss(Loss { at: self.now, reason, records, kind }));
        }
        result.map_err(|error| told(&self.name, error))
    }
}

fn told(name: &str, error: FileError) -> SourceError {
    match error {
        FileError::Io(cause) => SourceError::Io { what: format!("cannot read {name}"), cause },
        other => SourceError::Format { file: name.to_owned(), problem: other.to_string() },
    }
}
