//! Programs that tests want and no package of the system brings: each by the client of its own registry, below
//! `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::packages;
use crate::step::{cargo, say, step, target};

/// A server that keeps objects as files and speaks S3 (npm, MIT).
const S3RVER: &str = "s3rver@3.7.1";

/// A broker that speaks the protocol of Kafka (crates.io, Apache-2.0).
const TANSU: &str = "tansu@0.6.0";

/// Helm as a library and the schemas of Kubernetes' objects (`PyPI`, MIT and Apache-2.0), with what reads YAML.
const PYTHON: [&str; 3] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0", "PyYAML==6.0.3"];

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    tansu: Option<PathBuf>,
}

impl Tools {
    /// Installs what is missing; with `all`, what takes long to build too. Says what is left out.
    ///
    /// # Errors
    /// When an installer cannot be started.
    pub(crate) fn install(all: bool) -> Result<Self> {
        let home = home();
        std::fs::create_dir_all(&home)?;
        let s3rver = home.join("s3rver");
        if !s3rver.join("node_modules/s3rver").exists() && packages::is_there("npm") {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
            step("install s3rver", npm.arg(&s3rver).arg(S3RVER))?;
        }
        python(&home.join("python"))?;
        if !all {
            return Ok(Self::default());
        }
        let tansu = home.join("bin/tansu");
        if !tansu.exists() {
            let mut install = cargo(&["install", "--locked", "--features", "dynostore", TANSU, "--root"]);
            step("build tansu", install.arg(&home))?;
        }
        if !tansu.exists() {
            say("  SKIPPED tests on a Kafka broker: tansu could not be built");
        }
        Ok(Self { tansu: Some(tansu).filter(|path| path.exists()) })
    }

    /// Tells tests where they are.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(tansu) = &self.tansu {
            command.env("TOKENSCOPE_TEST_TANSU", tansu);
        }
        command.env("TOKENSCOPE_TEST_TOOLS", home())
    }
}

/// A Python of its own with [`PYTHON`]. Tests that need it say so if it could not be made.
fn python(dir: &Path) -> Result<()> {
    let done = dir.join("installed");
    let wanted = PYTHON.join(" ");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let made =
        step("make a Python for Helm", Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir))?;
    let mut pip = Command::new(dir.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON);
    if made.ok && step("install Helm", &mut pip)?.ok {
        std::fs::write(done, wanted)?;
    }
    Ok(())
}

fn home() -> PathBuf {
    target().join("tools")
}
