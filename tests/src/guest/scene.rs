//! What every measurement looks at: two services, a sensor under some restriction, an attack on each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::serve::Service;
use crate::attack::Attack;
use crate::client::{Client, get};
use crate::clock;
use crate::mint::Mint;
use crate::sensor::{Alert, Config, Sensor};

/// A container, as containerd under the cgroupfs driver calls its cgroup.
const CONTAINER: &str = "4d1e2f708192a3b4c5d6e7f80913f2a1b4c5d6e7f80913f2a1b4c5d6e7f80913";
/// Its pod.
const POD: &str = "kubepods/besteffort/pod0f3c2a1e-9b7d-4c55-8f10-2f6f1c9d7a42";

/// A user who is nobody here.
const NOBODY: u32 = 65_534;

/// Two services: one of root's in a container, one of another user's in a cgroup of its own.
pub(super) struct Scene {
    mint: Mint,
    inside: Service,
    foreign: Service,
    cgroups: Vec<PathBuf>,
}

/// Whom a sensor named when it told of both attacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The container was named.
    pub(super) container: bool,
    /// Root's process was named.
    pub(super) process_of_root: bool,
    /// The other user's process was named.
    pub(super) process_of_others: bool,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        let root = cgroup_root()?;
        let outer = root.join(format!("tokenscope-guest-{}", std::process::id()));
        let container = outer.join(POD).join(CONTAINER);
        let other = outer.join("other");
        let lab = std::env::current_exe()?;
        let inside = Service::start(&lab, &container, 0)?;
        let foreign = Service::start(&lab, &other, NOBODY)?;
        // Innermost first, as they must be removed.
        let above = container.ancestors().take_while(|dir| *dir != root).map(Path::to_owned);
        let cgroups = [other].into_iter().chain(above).collect();
        Ok(Self { mint: Mint::at(clock::now())?, inside, foreign, cgroups })
    }

    /// A configuration that watches both services.
    pub(super) fn config(&self) -> Result<Config> {
        let mut config = Config::new(&self.mint)?;
        config.set("/capture/ports", json!([self.inside.address.port(), self.foreign.address.port()]));
        Ok(config)
    }

    /// Starts a sensor by this command and shows it an attack on each service.
    ///
    /// # Errors
    /// When it does not start; then with what it said.
    pub(super) fn play(&self, sensor: Command) -> Result<Seen> {
        let mut sensor = Sensor::start_by(sensor, &self.config()?, &["-o", "json"])?;
        let seen = self.attack(&mut sensor)?;
        sensor.stop()?;
        Ok(seen)
    }

    /// Attacks both services and says what the sensor told of it.
    pub(super) fn attack(&self, sensor: &mut Sensor) -> Result<Seen> {
        let inside = self.once(sensor, &self.inside, Attack::AlgNone)?;
        let foreign = self.once(sensor, &self.foreign, Attack::Psychic)?;
        let named = |alert: &Alert, service: &Service| -> Result<bool> {
            let name = service.name()?;
            Ok(alert.0.pointer("/evidences/0/process/name").is_some_and(|told| *told == *name))
        };
        Ok(Seen {
            container: inside.0.pointer("/evidences/0/container/uid") == Some(&json!(CONTAINER)),
            process_of_root: named(&inside, &self.inside)?,
            process_of_others: named(&foreign, &self.foreign)?,
        })
    }

    /// Attacks one service and returns the alert.
    pub(super) fn attack_once(&self, sensor: &mut Sensor) -> Result<Alert> {
        self.once(sensor, &self.inside, Attack::AlgNone)
    }

    fn once(&self, sensor: &mut Sensor, service: &Service, attack: Attack) -> Result<Alert> {
        let token = attack.token(&self.mint, "mallory")?;
        Client::connect(service.address)?.ask(&get("/orders/1", Some(&token)))?;
        sensor.until(attack.rule())?.pop().context("an alert")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for service in [&mut self.inside, &mut self.foreign] {
            service.end();
        }
        for cgroup in &self.cgroups {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// Where cgroup v2 is mounted.
///
/// # Errors
/// When it is not.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let at = mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words.get(2) == Some(&"cgroup2")).then(|| words.get(1).map(PathBuf::from))?
    });
    at.context("there is no cgroup v2")
}
