//! What a kernel lacks costs a detail, and nothing else.

use sensor_user::capture::Side;

use super::lab::{ANSWER, ASK, Lab, Pair, What};

/// The process and the network namespace are there exactly where the kernel tells them, and requests are everywhere.
#[test]
fn what_a_kernel_cannot_tell_is_left_out() {
    let Some(mut lab) = Lab::new() else { return };
    let features = lab.source.features();
    let mut pair = Pair::v4();
    lab.port = pair.port();
    pair.ask(ASK);
    pair.answer(ANSWER);
    lab.expect_request(ASK);
    lab.watch(|lab| lab.records(Side::Response) > 0);
    let answer = lab.seen.iter().find(
        |seen| matches!(&seen.what, What::Bytes { side: Side::Response, payload, .. } if !payload.is_empty()),
    );
    let answer = answer.unwrap();
    assert_eq!(answer.pid, if features.pid { std::process::id() } else { 0 });
    let tells_namespace = features.netns_sockets || features.netns_packets;
    assert!(lab.seen.iter().all(|seen| (seen.netns != 0) == tells_namespace), "{features:?} {:?}", lab.seen);
    assert!(lab.seen.iter().all(|seen| seen.cgroup != 0), "{:?}", lab.seen);
}

/// Each version has what the documentation says it has.
#[test]
fn the_kernel_has_what_its_version_promises() {
    let Some(lab) = Lab::new() else { return };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let features = lab.source.features();
    assert_eq!(features.pid, version >= (6, 12), "{release}");
    assert_eq!(features.netns_sockets, version >= (5, 15), "{release}");
    assert_eq!(features.netns_packets, version >= (6, 14), "{release}");
}
