//! Loading and attaching: one object, fitted to the running kernel.

use std::fs::File;
use std::path::Path;

use aya::maps::{HashMap, Map, MapError};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, ProgramType, SockOps,
};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{MAX_PORTS, Options, host};
use crate::capture::SourceError;

/// The kernel half; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tokenscope.bpf.o"));

/// The first kernel on which the process behind an egress packet is the right one: 157,761 of 157,761 there.
pub(super) const TELLS_PROCESS: (u32, u32) = (6, 12);

/// Lines of the verifier's log that go into an error: its end says what it did not like.
const LOG_LINES: usize = 12;

/// Helpers that older kernels lack, as the kernel half's flags.
struct Features {
    pid_true: u8,
    netns_sockets: u8,
    netns_packets: u8,
}

impl Features {
    fn probe() -> Self {
        let skb = ProgramType::CgroupSkb;
        let recent = host::version(&host::release()).is_some_and(|version| version >= TELLS_PROCESS);
        let pid = recent && has(skb, BpfHelper::BPF_FUNC_get_current_pid_tgid);
        Self {
            pid_true: u8::from(pid),
            netns_sockets: u8::from(has(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie)),
            netns_packets: u8::from(has(skb, BpfHelper::BPF_FUNC_get_netns_cookie)),
        }
    }
}

/// Whether the kernel offers `helper` to programs of `kind`; a probe that fails says no, and costs a detail.
fn has(kind: ProgramType, helper: BpfHelper) -> bool {
    is_helper_supported(kind, helper).unwrap_or(false)
}

/// Loads maps and programs, with the settings that `options` and the kernel ask for.
pub(super) fn load(options: &Options) -> Result<Ebpf, SourceError> {
    if OBJECT.is_empty() {
        return Err(SourceError::Kernel {
            step: "load the kernel half".to_owned(),
            problem: "this build holds none (TOKENSCOPE_SKIP_EBPF was set)".to_owned(),
            remedy: "build without it, or use `tokenscope replay`".to_owned(),
        });
    }
    lift_memlock();
    let features = Features::probe();
    let ring_bytes = u64::from(options.ring_bytes);
    let ports_on = u8::from(!options.ports.is_empty());
    let answers_on = u8::from(options.answers);
    let mut programs = EbpfLoader::new()
        .override_global("PID_TRUE", &features.pid_true, true)
        .override_global("NETNS_SOCKETS", &features.netns_sockets, true)
        .override_global("NETNS_PACKETS", &features.netns_packets, true)
        .override_global("PORTS_ON", &ports_on, true)
        .override_global("ANSWERS_ON", &answers_on, true)
        .override_global("RING_BYTES", &ring_bytes, true)
        .map_max_entries("RECORDS", options.ring_bytes)
        .load(OBJECT)
        .map_err(|error| refused("load the maps of the kernel half", &chain(&error)))?;
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
    refused("use a map of the kernel half", &chain(&error))
}

fn rejected(step: &str, error: &ProgramError) -> SourceError {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return refused(step, &chain(error));
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    refused(step, &format!("{io_error}\n{}", end.join("\n")))
}

fn not_attached(program: &str, cgroup: &Path, error: &ProgramError) -> SourceError {
    refused(&format!("attach {program} to {}", cgroup.display()), &chain(error))
}

fn refused(step: &str, problem: &str) -> SourceError {
    let problem = problem.to_owned();
    SourceError::Kernel { step: step.to_owned(), problem, remedy: remedy().to_owned() }
}

/// What most often is wrong, judged by what this process may do.
fn remedy() -> &'static str {
    let held = host::capabilities().unwrap_or(0);
    let may = |bit| host::holds(held, bit);
    if may(host::SYS_ADMIN) || (may(host::BPF) && may(host::NET_ADMIN)) {
        return "`tokenscope doctor` tells what this kernel offers; 5.10 or later is needed";
    }
    "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
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

/// Before 5.11 maps counted against this limit. Failure shows when the maps are made.
fn lift_memlock() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}
