//! The file sink on a disk that is full, and under a reader that follows it by name.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod receivers;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use receivers::{deliver, node, program, run, told, wait_for};
use sensor_user::detect::Severity;
use sensor_user::render::{Format, Told};
use sensor_user::sink::file::name::{Grain, Pattern};
use sensor_user::sink::file::{Packing, Settings, open};
use sensor_user::sink::{Outcome, Sink};

fn sink(path: &Path, max_bytes: Option<u64>) -> Box<dyn Sink> {
    let settings = Settings {
        path: Pattern::new(path).unwrap(),
        format: Format::Ocsf,
        max_bytes,
        every: Grain::None,
        keep: 10,
        packing: Packing::Gzip,
        sync: true,
        zone: jiff::tz::TimeZone::UTC,
    };
    open(&settings, &node()).unwrap()
}

fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["metadata"]["sequence"].as_u64()
    };
    text.lines().map(|line| number(line).unwrap()).collect()
}

/// A small file system of its own.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_full_disk_loses_nothing_and_leaves_no_half_line() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can mount a small file system");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run(
        &program(&["mount"], "mount"),
        &["-t", "tmpfs", "-o", "size=128k", "tmpfs", dir.path().to_str().unwrap()],
    );
    let _small = Small(dir.path());
    let (path, ballast) = (dir.path().join("alerts.jsonl"), dir.path().join("ballast"));
    fs::write(&ballast, vec![0; 64 << 10]).unwrap();
    let mut sink = sink(&path, None);
    let (mut next, mut refused) = (1, 0);
    while next < 100 {
        let batch: Vec<Arc<Told>> = (next..next + 7).map(|n| told(n, Severity::High)).collect();
        match deliver(&mut sink, &batch).await {
            Outcome::Done { .. } => next += 7,
            Outcome::Later { reason, .. } => {
                assert!(reason.as_str().contains("No space left"), "{reason}");
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.ends_with('\n'));
                assert_eq!(numbers(&text), (1..next).collect::<Vec<_>>());
                refused += 1;
                if refused == 3 {
                    fs::remove_file(&ballast).unwrap();
                }
                assert!(refused < 10, "there is room again");
            }
        }
    }
    assert!(refused >= 3, "the disk was full");
    assert_eq!(numbers(&fs::read_to_string(&path).unwrap()), (1..next).collect::<Vec<_>>());
}

struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_follows_by_name_sees_every_line_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (path, seen) = (dir.path().join("alerts.jsonl"), dir.path().join("seen"));
    let mut sink = sink(&path, Some(2_500));
    assert!(matches!(deliver(&mut sink, &[told(1, Severity::High)]).await, Outcome::Done { .. }));
    let mut tail = Command::new(program(&["tail"], "coreutils"));
    tail.args(["-n", "+1", "-F", "-s", "0.05"]).arg(&path);
    tail.stdout(fs::File::create(&seen).unwrap()).stderr(Stdio::null());
    let _follower = Follower(tail.spawn().unwrap());
    for number in 1..=12 {
        if number > 1 {
            assert!(matches!(
                deliver(&mut sink, &[told(number, Severity::High)]).await,
                Outcome::Done { .. }
            ));
        }
        wait_for("line in what tail saw", || {
            let text = fs::read_to_string(&seen).unwrap();
            (text.ends_with('\n') && numbers(&text).last() == Some(&number)).then_some(())
        });
    }
    assert_eq!(numbers(&fs::read_to_string(&seen).unwrap()), (1..=12).collect::<Vec<_>>());
    assert!(dir.path().join("alerts.jsonl.2.gz").exists(), "it was turned over meanwhile");
}
