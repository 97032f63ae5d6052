//! `cargo xtask build` and `cargo xtask ebpf`.

use anyhow::{Result, bail};

use crate::step::{cargo, root, say, step, target};
use crate::{setup, toolchain};

/// Builds the optimised agent, kernel half included, and says where it is.
///
/// # Errors
/// When something that is needed is missing, or the build fails.
pub(crate) fn agent() -> Result<()> {
    setup::ensure()?;
    if !step("build the sensor", &mut cargo(&["build", "--release", "--package", "sensor-user"]))?.ok {
        bail!("the build failed");
    }
    say(&target().join("release").join("tokenscope").display().to_string());
    Ok(())
}

/// Builds the kernel half alone, its warnings shown, and says where it is.
///
/// # Errors
/// When something that is needed is missing, or the build fails.
pub(crate) fn kernel_half() -> Result<()> {
    setup::ensure()?;
    let (Some(compiler), Some(linker)) = (toolchain::find(), toolchain::linker()) else {
        bail!("the kernel half cannot be built here: run `cargo xtask setup`");
    };
    let (mut command, object) = toolchain::command(root(), &compiler, &linker, &target().join("ebpf"));
    if !command.status()?.success() {
        bail!("the kernel half does not build");
    }
    say(&object.display().to_string());
    Ok(())
}
