//! What the sensor costs without a load: how soon it is ready, and what it takes while nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::live::Bed;
use super::process::{cpu_ns, wakeups};
use super::{Figure, Options};
use crate::clock;
use crate::sensor::Sensor;

/// How long the sensor may take to come to rest after its start: its first saves and looks at the host are done.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures both.
pub(super) fn measure(bed: &Bed, options: &Options) -> Result<Vec<Figure>> {
    let mut starts = Vec::new();
    for _ in 0..options.pairs {
        let began = clock::instant();
        // From before its configuration is written to when it has said that it watches.
        let sensor = Sensor::start(bed.config())?;
        starts.push(began.elapsed().as_secs_f64() * 1000.0);
        sensor.stop()?;
    }
    let sensor = Sensor::start(bed.config())?;
    std::thread::sleep(SETTLE);
    let (cpu, woken, began) = (cpu_ns(sensor.pid())?, wakeups(sensor.pid())?, clock::instant());
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let seconds = began.elapsed().as_secs_f64();
    let [cpu, woken] = [cpu_ns(sensor.pid())? - cpu, wakeups(sensor.pid())? - woken];
    sensor.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds fit a double")]
    let (cpu, woken) = (cpu as f64 / 1e9, woken as f64);
    Ok(vec![
        Figure::new("start to ready", "ms", starts),
        Figure::new("idle CPU", "% of a core", vec![cpu * 100.0 / seconds]),
        Figure::new("the agent's wakeups, idle", "a second", vec![woken / seconds]),
    ])
}
