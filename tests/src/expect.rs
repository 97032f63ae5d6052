//! What a run of the sensor must say: a list of alerts, no more and no fewer, in any order.

use anyhow::{Result, ensure};

use crate::sensor::{Alert, Sensor};

/// The part of an alert that a test predicts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// The rule's id.
    pub rule: String,
    /// The severity's name.
    pub severity: String,
    /// The port that the client used: which of the test's requests it was.
    pub client_port: u64,
    /// The answer's status.
    pub status: u64,
}

impl Expected {
    /// An alert about the request from this port.
    #[must_use]
    pub fn new(rule: &str, severity: &str, client_port: u16, status: u16) -> Self {
        Self {
            rule: rule.to_owned(),
            severity: severity.to_owned(),
            client_port: client_port.into(),
            status: status.into(),
        }
    }

    fn of(alert: &Alert) -> Self {
        Self {
            rule: alert.rule().to_owned(),
            severity: alert.severity().to_owned(),
            client_port: alert.client_port().unwrap_or_default(),
            status: alert.status().unwrap_or_default(),
        }
    }
}

/// Waits for as many alerts as are expected, stops the sensor, and compares. Returns the alerts, and what the
/// sensor said on stderr.
///
/// # Errors
/// When alerts are missing, are too many, or differ.
pub fn exactly(mut sensor: Sensor, mut expected: Vec<Expected>) -> Result<(Vec<Alert>, String)> {
    let mut alerts = Vec::new();
    let mut silence = None;
    while alerts.len() < expected.len() && silence.is_none() {
        match sensor.next_alert() {
            Ok(alert) => alerts.push(alert),
            Err(error) => silence = Some(error),
        }
    }
    let ended = sensor.stop()?;
    alerts.extend(ended.alerts.into_iter().filter(Alert::is_new));
    let mut got: Vec<Expected> = alerts.iter().map(Expected::of).collect();
    got.sort();
    expected.sort();
    let missing: Vec<_> = expected.iter().filter(|e| !got.contains(e)).collect();
    let extra: Vec<_> = got.iter().filter(|e| !expected.contains(e)).collect();
    ensure!(
        got == expected,
        "missing: {missing:#?}\ntoo many: {extra:#?}\n{} alerts for {} expected\n{}{}",
        got.len(),
        expected.len(),
        ended.stderr,
        silence.map(|e| e.to_string()).unwrap_or_default(),
    );
    Ok((alerts, ended.stderr))
}
