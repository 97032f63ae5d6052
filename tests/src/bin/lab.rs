//! `lab`: what `cargo xtask demo` and `cargo xtask bench` run, and the makers of the tests' fixed data.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tests::bench::floor::Floor;
use tests::lab::quality;
use tests::pressure::crowd;
use tests::{bench, demo, golden, guest, lab, mint};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["demo"] => demo::run(None),
        ["demo", "--cast", file] => demo::run(Some(Path::new(file))),
        // The least that reading a capture costs: what `bench` runs beside the sensor.
        ["floor", file] => floor(file, Floor::Trivial),
        ["floor", "--decode", file] => floor(file, Floor::Decoding),
        ["floor", "--careful", file] => floor(file, Floor::Careful),
        ["bench", flags @ ..] => {
            let has = |flag: &str| flags.contains(&flag);
            let parts = ["--live", "--latency", "--offline", "--memory", "--pressure"];
            // All but the last, if none is named.
            let is_part = |part: &str| has(part) || !parts.iter().any(|part| has(part));
            let svg = flags.iter().skip_while(|flag| **flag != "--svg").nth(1).map(Into::into);
            let sizes = if has("--quick") { bench::Options::quick() } else { bench::Options::default() };
            bench::run(&bench::Options {
                json: has("--json"),
                svg,
                live: is_part("--live"),
                latency: is_part("--latency") || has("--live"),
                offline: is_part("--offline"),
                memory: is_part("--memory") || has("--offline"),
                pressure: has("--pressure").then_some(if has("--quick") { 10_000 } else { 100_000 }),
                ..sizes
            })
        }
        // What has too many connections for one process is done by partners of the tests and of the benchmark.
        ["pressure", arguments @ ..] => crowd::partner(arguments),
        ["quality", flags @ ..] => quality::run(&quality_options(flags)?),
        // What `cargo xtask vm` runs in a machine, and on this host.
        ["guest"] => guest::run(guest::Place::Machine),
        ["guest", "--native"] => guest::run(guest::Place::Host),
        ["guest", "--systemd"] => guest::run(guest::Place::Systemd),
        ["serve-at", port] => guest::serve_at(port.parse()?),
        ["serve", cgroup, user] => guest::serve(Path::new(cgroup), user.parse()?),
        ["only", capabilities, program @ ..] => guest::become_only(capabilities, program),
        // Writes one seed's capture, its labels and the sensor's configuration.
        ["record", dir, seed, exchanges, attacks @ ..] => {
            let attacks = attacks.first().map_or(Ok(2), |attacks| attacks.parse())?;
            let plan = lab::Plan { seed: seed.parse()?, exchanges: exchanges.parse()?, attacks };
            quality::record(plan, Path::new(dir))
        }
        // Makes new keys: every golden fingerprint changes with them.
        ["keys"] => {
            for (name, document) in mint::generate_keys()? {
                fs::write(tests::data("keys").join(name), document)?;
            }
            Ok(())
        }
        // Writes what a newcomer replays first.
        ["samples", dir] => {
            let dir = Path::new(dir);
            fs::create_dir_all(dir)?;
            let keys = mint::Mint::at(mint::GOLDEN_NOW)?.jwks()?;
            fs::write(dir.join("jwks.json"), serde_json::to_string_pretty(&keys)? + "\n")?;
            fs::write(dir.join("shop.pcap"), golden::sample()?.bytes())?;
            Ok(())
        }
        // Writes the golden captures out, for a look with other tools; those of rules with the configuration they need.
        ["captures", dir] => {
            fs::create_dir_all(dir)?;
            for (name, capture) in golden::cases()? {
                fs::write(Path::new(dir).join(format!("{name}.pcap")), capture.bytes())?;
            }
            for case in golden::rules::CASES {
                let dir = Path::new(dir).join(case.rule);
                fs::create_dir_all(&dir)?;
                let (config, capture) = case.make(&dir)?;
                config.write(&dir)?;
                fs::write(dir.join("capture.pcap"), capture)?;
            }
            Ok(())
        }
        _ => bail!(
            "usage: lab demo [--cast FILE] | bench [--json] [--quick] [--live|--latency|--offline|--memory|--pressure] [--svg DIR] | floor [--decode|--careful] FILE | samples DIR | captures DIR | keys \
             | quality [--json] [--tuning] [--seed N] [--seeds N] [--attacks N] [--million N] \
             | guest [--native|--systemd] | serve CGROUP USER | serve-at PORT | only CAPABILITIES PROGRAM... | record DIR SEED EXCHANGES [ATTACKS]"
        ),
    }
}

fn floor(file: &str, floor: Floor) -> Result<()> {
    tests::print(&bench::floor::read(Path::new(file), floor)?.json().to_string());
    Ok(())
}

fn quality_options(flags: &[&str]) -> Result<quality::Options> {
    let mut options = quality::Options::default();
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let mut number = || flags.next().copied().unwrap_or_default();
        match *flag {
            "--json" => options.json = true,
            "--tuning" => options.tuning = true,
            "--seed" => options.seed = number().parse()?,
            "--seeds" => options.seeds = number().parse()?,
            "--attacks" => options.attacks = number().parse()?,
            "--million" => {
                let millions: f64 = number().parse()?;
                if !(0.001..=100.0).contains(&millions) {
                    bail!("--million is from 0.001 to 100");
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
                let exchanges = (millions * 1e6) as u64;
                options.exchanges = exchanges;
            }
            other => bail!("lab quality does not know {other}"),
        }
    }
    Ok(options)
}
