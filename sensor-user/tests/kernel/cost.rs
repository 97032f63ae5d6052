//! What the kernel half costs. Measures and prints; run on purpose:
//! `sysctl kernel.bpf_stats_enabled=1; cargo test --release --test kernel -- --ignored --nocapture cost`.

use std::thread;
use std::time::Duration;

use sensor_user::capture::ebpf::Options;

use super::lab::{ANSWER, Lab, Pair};

#[test]
#[ignore = "prints figures and judges nothing"]
fn cost_of_a_kept_connection() {
    let ring_bytes = std::env::var("RING_BYTES").map_or(16 << 20, |bytes| bytes.parse().unwrap());
    // With a port that nobody uses, every connection is muted: the floor.
    let ports = std::env::var("PORT").map_or(Vec::new(), |port| vec![port.parse().unwrap()]);
    let answers = std::env::var_os("ANSWERS").is_some();
    let Some(mut lab) = Lab::with(Options { ring_bytes, ports, answers, ..Options::default() }) else {
        return;
    };
    let method = std::env::var("METHOD").unwrap_or_else(|_| "GET".to_owned());
    let ask = format!(
        "{method} /orders/7 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {}\r\n\r\n",
        "t".repeat(900)
    );
    let mut pair = Pair::v4();
    lab.port = pair.port();
    let load = thread::spawn(move || {
        for _ in 0..100_000 {
            pair.ask(ask.as_bytes());
            pair.answer(ANSWER);
        }
    });
    while !load.is_finished() {
        lab.look(Duration::from_millis(100));
        lab.seen.clear();
    }
    load.join().unwrap();
    for cost in lab.source.costs() {
        let each = cost.time.as_nanos().checked_div(u128::from(cost.runs)).unwrap_or(0);
        println!(
            "{:<20} {:>8} runs {each:>5} ns each, {:?} instructions verified",
            cost.name, cost.runs, cost.verified
        );
    }
    for (label, value) in lab.source.counters().into_iter().filter(|(_, value)| *value > 0) {
        println!("{label:<20} {value}");
    }
}
