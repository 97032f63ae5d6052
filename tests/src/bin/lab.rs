//! `lab`: what the demo and the benchmarks run, and the makers of the tests' fixed data.

use std::fs;
use std::process::ExitCode;

use anyhow::{Result, bail};

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
        ["keys"] => {
            for (name, document) in tests::mint::generate_keys()? {
                fs::write(tests::data("keys").join(name), document)?;
            }
            Ok(())
        }
        _ => bail!("usage: lab keys|demo|bench"),
    }
}
