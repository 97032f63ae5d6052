//! `cargo xtask docs`: writes the generated pages anew.
//!
//! The pages are held to the code by tests of the agent, which rewrite them when `BLESS` is set.

use anyhow::{Result, bail};

use crate::step::{cargo, step};

/// Rewrites docs/rules.md, docs/config.md and their like.
///
/// # Errors
/// When the agent does not build, or a page cannot be made.
pub(crate) fn run() -> Result<()> {
    let mut tests = cargo(&["test", "--quiet", "-p", "sensor-user", "docs"]);
    if !step("generated pages", tests.env("BLESS", "1"))?.ok {
        bail!("the pages could not be made");
    }
    Ok(())
}
