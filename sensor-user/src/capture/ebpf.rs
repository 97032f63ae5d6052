//! The live source: the kernel half, loaded, attached and read.
//!
//! Programs are attached by links, which go with this process however it ends; nothing is pinned. Records are
//! read where the kernel wrote them, in the shared ring.
//!
//! **Wakeups.** One a record would cost several times what capturing costs. So the kernel stays silent while
//! this reader is awake; the reader looks again every [`LINGER`] and only when a look finds nothing does it raise a flag,
//! and sleep until the kernel, seeing the flag, wakes it or it is time for the housekeeping.
//! Raising the flag and *then* polling is what makes it sound: a record reserved before the poll shows in
//! the poll, and one reserved after it sees the flag.

mod blame;
mod clock;
mod counts;
mod diagnostics;
mod doctor;
mod host;
mod kept;
mod load;
mod mounts;
mod pending;
mod records;

use std::path::PathBuf;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::Program;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;

use self::clock::BootClock;
use self::counts::Counts;
pub use self::counts::Gauges;
use self::diagnostics::Diagnostics;
pub use self::doctor::{Check, Status, probe};
use self::kept::Kept;
pub use self::load::Features;
use self::records::Reader;
use super::{Grant, Input, Loss, LossKind, Progress, Side, Source, SourceError};

/// How long records may gather before they are read: what an alert waits at most, and what saves a wakeup a
/// record under load.
pub const LINGER: Duration = Duration::from_millis(1);

/// Records of one look that make a crowd: 30,000 records a second.
const CROWD: usize = 32;

/// How often losses are reported and time is said to pass.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// The same once nothing has come for [`LULL`]: what times out by then waits that long at most.
const HOUSEKEEPING_IDLE: Duration = Duration::from_millis(500);

/// No record for so long makes a lull.
const LULL: Duration = Duration::from_secs(5);

/// Records delivered before [`Source::poll`] returns, so that grants reach the kernel while they still help:
/// about a millisecond's work.
const BATCH: usize = 1024;

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup to watch with all below it; `None` finds the root of cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// Local server ports to watch; empty means all. At most [`MAX_PORTS`].
    pub ports: Vec<u16>,
    /// Bytes of the ring: a power of two, and of pages. 16 MiB lost nothing under load where 1 MiB lost heavily.
    pub ring_bytes: u32,
    /// Whether the first 8 KiB of what answers POST are captured, and not only the head: tokens are issued there.
    pub answers: bool,
}

/// Ports that [`Options::ports`] may name: the size of the kernel's map.
pub const MAX_PORTS: usize = 1024;

impl Default for Options {
    fn default() -> Self {
        Self { cgroup: None, ports: Vec::new(), ring_bytes: 16 << 20, answers: false }
    }
}

/// The kernel half, attached, and its ring.
pub struct EbpfSource {
    /// Holds the programs and their links: dropping it detaches them.
    programs: Ebpf,
    ring: RingBuf<MapData>,
    sleeping: Array<MapData, u32>,
    pressed: Array<MapData, u32>,
    grants: HashMap<MapData, u64, u32>,
    response_grants: HashMap<MapData, u64, u32>,
    counts: Counts,
    reader: Reader,
    clock: BootClock,
    diagnostics: Option<Diagnostics>,
    cgroup: PathBuf,
    features: Features,
    /// Nanoseconds since boot of the last housekeeping.
    kept_house: u64,
    /// The same of the start, or of the last look that found something.
    busy: u64,
    pace: Pace,
    /// Records that the last look found.
    crowd: usize,
    /// Bytes that looks have found since one found less than a [`BATCH`]: what the ring held, and what came meanwhile.
    in_a_row: usize,
    ring_bytes: usize,
    /// What was kept while another sensor was watching.
    kept: Kept,
    /// Records of this time since boot and later are another sensor's.
    end: Option<u64>,
}

/// What one program costs.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The program.
    pub name: String,
    /// Instructions that the verifier walked (>= 5.16): it gives up at a million.
    pub verified: Option<u32>,
    /// How often it ran.
    pub runs: u64,
    /// How long it ran, in all.
    pub time: Duration,
}

impl Cost {
    fn of(name: &str, program: &Program) -> Option<Self> {
        let info = program.info().ok()?;
        Some(Self {
            name: name.to_owned(),
            verified: info.verified_instruction_count(),
            runs: info.run_count(),
            time: info.run_time(),
        })
    }
}

impl std::fmt::Debug for EbpfSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EbpfSource")
            .field("cgroup", &self.cgroup)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

/// What the next look at the ring should wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// More is there now.
    Busy,
    /// There was something: more may gather.
    Awake,
    /// The last look found nothing. The flag says whether the kernel knows.
    Drowsy { flagged: bool },
}

impl EbpfSource {
    /// Loads the kernel half and attaches it.
    ///
    /// # Errors
    /// [`SourceError::Kernel`] names the step, the kernel's answer and what to do about it.
    pub fn open(options: &Options) -> Result<Self, SourceError> {
        let cgroup = host::cgroup(options.cgroup.as_deref())?;
        if options.cgroup.is_none() && host::is_own_part(&cgroup) {
            tracing::warn!(
                "{} shows this container alone, so that nothing else is watched: {}",
                cgroup.display(),
                host::OWN_PART
            );
        }
        let features = Features::probe();
        let mut programs = load::load(options, features)?;
        let ring = RingBuf::try_from(load::map(&mut programs, "RECORDS")?).map_err(load::unusable)?;
        let sleeping = Array::try_from(load::map(&mut programs, "SLEEPING")?).map_err(load::unusable)?;
        let pressed = Array::try_from(load::map(&mut programs, "PRESSED")?).map_err(load::unusable)?;
        let grants = HashMap::try_from(load::map(&mut programs, "GRANTS")?).map_err(load::unusable)?;
        let response_grants =
            HashMap::try_from(load::map(&mut programs, "RESPONSE_GRANTS")?).map_err(load::unusable)?;
        let counts = Counts::new(load::map(&mut programs, "COUNTS")?)?;
        let diagnostics = Diagnostics::new(&mut programs);
        load::attach(&mut programs, &cgroup)?;
        let clock = BootClock::new();
        Ok(Self {
            programs,
            ring,
            sleeping,
            pressed,
            grants,
            response_grants,
            counts,
            reader: Reader::default(),
            kept_house: clock.boot_ns(),
            busy: clock.boot_ns(),
            clock,
            diagnostics,
            cgroup,
            features,
            pace: Pace::Drowsy { flagged: false },
            crowd: 0,
            in_a_row: 0,
            ring_bytes: usize::try_from(options.ring_bytes).unwrap_or(usize::MAX),
            kept: Kept::default(),
            end: None,
        })
    }

    /// Nanoseconds since boot, as records have them.
    #[must_use]
    pub fn boot_ns(&self) -> u64 {
        self.clock.boot_ns()
    }

    /// Keeps what comes instead of delivering it: the sensor before this one still watches. Waits that long.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn stand_by(&mut self, wait: Duration) -> Result<(), SourceError> {
        self.pace_itself(wait)?;
        let mut found = 0;
        while found < BATCH
            && let Some(record) = self.ring.next()
        {
            found += 1;
            if let Some(boot_ns) = records::boot_ns(&record) {
                self.kept.push(boot_ns, &record);
            }
        }
        self.found(found);
        let now = self.clock.boot_ns();
        self.kept.expire(now);
        self.clock.adjust();
        // What the kernel half could not hand over is the loss of the sensor that watches.
        self.counts.report(self.reader.taken, self.clock.time(now), &mut |_loss| {});
        Ok(())
    }

    /// Takes over from the sensor before, which has handled everything that was made before that time since boot.
    pub fn take_over(&mut self, boot_ns: u64, sink: &mut dyn FnMut(Input<'_>)) {
        let records = self.kept.begin(boot_ns);
        if records > 0 {
            let at = self.clock.time(boot_ns);
            sink(Input::Loss(Loss { at, reason: "handover_full", records, kind: LossKind::Request }));
        }
        self.pace = Pace::Busy;
    }

    /// Delivers nothing any more that is made from now on, so that another sensor may. Gives this time since boot.
    pub fn end(&mut self) -> u64 {
        let now = self.clock.boot_ns();
        self.end = Some(now);
        now
    }

    /// The cgroup that is watched with all below it.
    #[must_use]
    pub fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// What this kernel offers beyond the least that is needed.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// What each program cost so far; run counts stay 0 unless `kernel.bpf_stats_enabled` is set.
    #[must_use]
    pub fn costs(&self) -> Vec<Cost> {
        self.programs.programs().filter_map(|(name, program)| Cost::of(name, program)).collect()
    }

    /// What the kernel half counted, by label.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counts.read(self.reader.taken)
    }

    /// The same for another thread, at most half a second old, with the reader's own figures.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.counts.gauges()
    }

    /// Waits until there is, or may be, something in the ring.
    fn pace_itself(&mut self, wait: Duration) -> Result<(), SourceError> {
        match self.pace {
            Pace::Busy => return Ok(()),
            Pace::Awake => {}
            Pace::Drowsy { flagged } => {
                if !flagged {
                    self.sleeping.set(0, 1, 0).map_err(load::unusable)?;
                }
                let lull = self.kept_house.saturating_sub(self.busy) > nanos(LULL);
                let house = if lull { HOUSEKEEPING_IDLE } else { HOUSEKEEPING };
                let woken = readable(&self.ring, wait.min(house))?;
                self.pace = Pace::Drowsy { flagged: !woken };
                if !woken {
                    return Ok(());
                }
            }
        }
        nap(LINGER);
        Ok(())
    }

    /// Decides how to wait for the next look, as this one found so many records.
    fn found(&mut self, records: usize) {
        self.crowd = records;
        if records > 0 {
            self.busy = self.clock.boot_ns();
        }
        self.pace = match records {
            BATCH => Pace::Busy,
            1.. => Pace::Awake,
            0 if matches!(self.pace, Pace::Drowsy { .. }) => self.pace,
            0 => Pace::Drowsy { flagged: false },
        };
    }

    /// Delivers up to [`BATCH`] records.
    fn drain(&mut self, sink: &mut dyn FnMut(Input<'_>)) -> usize {
        let mut bytes = 0;
        let mut delivered = 0;
        while delivered < BATCH
            && let Some(record) = self.kept.pop()
        {
            delivered += 1;
            self.reader.deliver(&record, &self.clock, sink);
        }
        while delivered < BATCH
            && let Some(record) = self.ring.next()
        {
            bytes += record.len();
            delivered += 1;
            if self.end.is_none_or(|end| records::boot_ns(&record).is_none_or(|at| at < end)) {
                self.reader.deliver(&record, &self.clock, sink);
            }
        }
        self.in_a_row = if self.pace == Pace::Busy { self.in_a_row.saturating_add(bytes) } else { bytes };
        self.counts.found(self.in_a_row.min(self.ring_bytes));
        delivered
    }

    /// Says that time has passed: up to now if everything was read, else up to what was read last.
    fn pass_time(&mut self, delivered: usize, sink: &mut dyn FnMut(Input<'_>)) {
        let kept = self.keep_house(sink);
        if delivered == 0 {
            sink(Input::Tick(self.clock.time(self.clock.boot_ns())));
        } else if kept {
            sink(Input::Tick(self.clock.time(self.reader.newest)));
        }
    }

    /// Hands on that the kernel half has found the ring nearly full, if it has since the last look.
    fn feel_pressure(&mut self, sink: &mut dyn FnMut(Input<'_>)) -> Result<(), SourceError> {
        // A ring that fills up was not empty at the last look.
        if self.crowd < CROWD || self.pressed.get(&0, 0).map_err(load::unusable)? == 0 {
            return Ok(());
        }
        self.pressed.set(0, 0, 0).map_err(load::unusable)?;
        sink(Input::Pressed(self.clock.time(self.clock.boot_ns())));
        Ok(())
    }

    /// Does what is due every [`HOUSEKEEPING`]. Says whether it was.
    fn keep_house(&mut self, sink: &mut dyn FnMut(Input<'_>)) -> bool {
        let now = self.clock.boot_ns();
        if now.saturating_sub(self.kept_house) < nanos(HOUSEKEEPING) {
            return false;
        }
        self.kept_house = now;
        self.clock.adjust();
        let at = self.clock.time(now);
        self.counts.report(self.reader.taken, at, sink);
        self.reader.expire(at, sink);
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.flush();
        }
        true
    }
}

impl Source for EbpfSource {
    fn poll(&mut self, wait: Duration, sink: &mut dyn FnMut(Input<'_>)) -> Result<Progress, SourceError> {
        self.pace_itself(wait)?;
        self.feel_pressure(sink)?;
        let delivered = self.drain(sink);
        self.found(delivered);
        self.pass_time(delivered, sink);
        Ok(if delivered == BATCH { Progress::More } else { Progress::Idle })
    }

    /// A grant that does not reach the kernel costs bytes and nothing else, so failure is only counted.
    fn grant(&mut self, grant: Grant) {
        let map = match grant.side {
            Side::Request => &mut self.grants,
            Side::Response => &mut self.response_grants,
        };
        if map.insert(grant.socket.0, grant.skip_until, 0).is_err() {
            self.counts.grant_failed();
        }
    }
}

/// Waits until the ring holds a record, or `wait` is over, or a signal came.
fn readable(ring: &RingBuf<MapData>, wait: Duration) -> Result<bool, SourceError> {
    let mut ready = [PollFd::new(ring, PollFlags::IN)];
    match poll(&mut ready, Some(&timespec(wait))) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => {
            Err(SourceError::Io { what: "wait for the kernel half".to_owned(), cause: errno.into() })
        }
    }
}

/// Lets records gather; a signal may cut it short.
fn nap(time: Duration) {
    let _ = rustix::thread::nanosleep(&timespec(time));
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
