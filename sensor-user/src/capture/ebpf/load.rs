//! Loading and attaching: one object, fitted to the running kernel.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use aya::maps::{HashMap, Map, MapError};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, ProgramType, SockOps,
};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::blame::{self, Act, Standing};
use super::{MAX_PORTS, Options, host};
use crate::capture::SourceError;

/// The kernel half; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tokenscope.bpf.o"));

/// The first kernel on which the process behind an egress packet is the right one: 157,761 of 157,761 there.
pub(super) const TELLS_PROCESS: (u32, u32) = (6, 12);

/// Lines of the verifier's log that go into an error: its end says what it did not like.
const LOG_LINES: usize = 12;

/// What older kernels lack, as the kernel half's flags. Nothing else depends on the version: without one of them a
/// detail is missing, and capture goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The process behind a response is told at once (>= 6.12); else it is looked up among those that listen.
    pub pid: bool,
    /// The network namespace of connections that are accepted from now on (>= 5.15); else it is 0.
    pub netns_sockets: bool,
    /// The same of connections that are older than the sensor (>= 6.14); else it is 0.
    pub netns_packets: bool,
}

impl Features {
    /// Asks the kernel.
    #[must_use]
    pub fn probe() -> Self {
        let skb = ProgramType::CgroupSkb;
        let recent = host::version(&host::release()).is_some_and(|version| version >= TELLS_PROCESS);
        Self {
            pid: recent && has(skb, BpfHelper::BPF_FUNC_get_current_pid_tgid),
            netns_sockets: has(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie),
            netns_packets: has(skb, BpfHelper::BPF_FUNC_get_netns_cookie),
        }
    }
}

/// Whether the kernel offers `helper` to programs of `kind`; a probe that fails says no, and costs a detail.
fn has(kind: ProgramType, helper: BpfHelper) -> bool {
    is_helper_supported(kind, helper).unwrap_or(false)
}

/// Loads maps and programs, with the settings that `options` and the kernel ask for.
pub(super) fn load(options: &Options, features: Features) -> Result<Ebpf, SourceError> {
    if OBJECT.is_empty() {
        return Err(SourceError::Kernel {
            step: "load the kernel half".to_owned(),
            problem: "this build holds none (TOKENSCOPE_SKIP_EBPF was set)".to_owned(),
            remedy: "build without it, or use `tokenscope replay`".to_owned(),
        });
    }
    lift_memlock();
    let ring_bytes = u64::from(options.ring_bytes);
    let ports_on = u8::from(!options.ports.is_empty());
    let answers_on = u8::from(options.answers);
    let mut programs = EbpfLoader::new()
        .override_global("PID_TRUE", &u8::from(features.pid), true)
        .override_global("NETNS_SOCKETS", &u8::from(features.netns_sockets), true)
        .override_global("NETNS_PACKETS", &u8::from(features.netns_packets), true)
        .override_global("PORTS_ON", &ports_on, true)
        .override_global("ANSWERS_ON", &answers_on, true)
        .override_global("RING_BYTES", &ring_bytes, true)
        .map_max_entries("RECORDS", options.ring_bytes)
        .load(OBJECT)
        .map_err(|error| refused("load the maps of the kernel half", &error, &Act::Map))?;
    for (name, program) in programs.programs_mut() {
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => Ok(()),
        };
        loaded.map_err(|error| rejected(&format!("load program {name}"), &error))?;
    }
    watch_ports(&mut programs, &options.ports)?;
    Ok(programs)
}

fn watch_ports(programs: &mut Ebpf, ports: &[u16]) -> Result<(), SourceError> {
    if ports.len() > MAX_PORTS {
        let problem = format!("{} ports are too many for the kernel half", ports.len());
        let remedy = format!("name at most {MAX_PORTS} in capture.ports, or none to watch all");
        return Err(SourceError::Kernel { step: "set the ports".to_owned(), problem, remedy });
    }
    let mut watched: HashMap<_, u16, u8> = HashMap::try_from(map(programs, "PORTS")?).map_err(unusable)?;
    for port in ports {
        watched.insert(port, 1, 0).map_err(unusable)?;
    }
    Ok(())
}

/// Attaches the three programs to `cgroup`, beside whatever is attached there already. Each link ends with
/// this process, so a crash leaves nothing behind.
pub(super) fn attach(programs: &mut Ebpf, cgroup: &Path) -> Result<(), SourceError> {
    let dir = File::open(cgroup)
        .map_err(|cause| SourceError::Io { what: format!("open cgroup {}", cgroup.display()), cause })?;
    // Links live beside each other by nature; the flag for several is refused with them.
    let mode = CgroupAttachMode::Single;
    for (name, direction) in [
        ("tokenscope_ingress", CgroupSkbAttachType::Ingress),
        ("tokenscope_egress", CgroupSkbAttachType::Egress),
    ] {
        let program: &mut CgroupSkb = program(programs, name)?;
        program.attach(&dir, direction, mode).map_err(|error| not_attached(name, cgroup, &error))?;
    }
    let name = "tokenscope_sockets";
    let program: &mut SockOps = program(programs, name)?;
    program.attach(&dir, mode).map_err(|error| not_attached(name, cgroup, &error))?;
    Ok(())
}

fn program<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P, SourceError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = programs.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_other: ProgramError| missing(name))
}

/// Takes a map out of the loaded object.
pub(super) fn map(programs: &mut Ebpf, name: &str) -> Result<Map, SourceError> {
    programs.take_map(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> SourceError {
    SourceError::Kernel {
        step: "open the kernel half".to_owned(),
        problem: format!("it has no `{name}`"),
        remedy: "the agent and its kernel half do not belong together: build again".to_owned(),
    }
}

/// A map that cannot be used.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unusable(error: MapError) -> SourceError {
    refused("use a map of the kernel half", &error, &Act::Map)
}

fn rejected(step: &str, error: &ProgramError) -> SourceError {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return refused(step, error, &Act::Load);
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    let errno = io_error.raw_os_error().map(Errno::from_raw_os_error);
    explained(step, format!("{io_error}\n{}", end.join("\n")), &Act::Load, errno)
}

fn not_attached(program: &str, cgroup: &Path, error: &ProgramError) -> SourceError {
    refused(&format!("attach {program} to {}", cgroup.display()), error, &Act::Attach(cgroup.to_owned()))
}

fn refused(step: &str, error: &(dyn Error + 'static), act: &Act) -> SourceError {
    explained(step, chain(error), act, errno(error))
}

fn explained(step: &str, problem: String, act: &Act, errno: Option<Errno>) -> SourceError {
    let remedy = blame::remedy(act, errno, &Standing::now());
    SourceError::Kernel { step: step.to_owned(), problem, remedy }
}

/// What the system said, somewhere among the causes.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    let system = causes
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .find_map(std::io::Error::raw_os_error);
    system.map(Errno::from_raw_os_error)
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Before 5.11 maps counted against this limit. It is lifted, or raised as far as it may be; if that is not enough, it
/// shows when the maps are made.
fn lift_memlock() {
    if setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err() {
        let limit = getrlimit(Resource::Memlock);
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    }
}
