//! The `tokenscope` binary: arguments, configuration, logs, and then the runtime.

use std::process::ExitCode;

fn main() -> ExitCode {
    sensor_user::cli::main()
}
