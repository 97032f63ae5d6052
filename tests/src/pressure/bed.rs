//! Where pressure is put on: two hosts of their own, a server that takes in everybody, and a sensor that watches it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::gauge::{Page, Reading};
use super::hall::{BACKLOG, Hall};
use super::visitor::Visitor;
use crate::attack::Attack;
use crate::client::{Client, get};
use crate::clock::Deadline;
use crate::mint::Mint;
use crate::netns::{Host, Network, SERVER};
use crate::sensor::{Alert, Config, Sensor, alerts};
use crate::{clock, sensor};

/// Tokens that go round.
const TOKENS: usize = 50;

/// How long the sensor may take to see what there was, once the load is over.
const SETTLE: Duration = Duration::from_secs(15);

/// How often somebody with an unsigned token comes at most.
const ATTEMPTS: u8 = 6;

/// How long an alert may take before they come again.
const WHILE: Duration = Duration::from_secs(10);

/// Which way the load comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the loopback of the server's host.
    Loopback,
    /// From the client's host, over a pair of interfaces.
    Wire,
}

/// Everything but the load.
#[derive(Debug)]
pub struct Bed {
    /// The hosts.
    pub network: Network,
    /// The server.
    pub hall: Hall,
    /// Makes tokens.
    pub mint: Mint,
    /// Good ones, each of somebody else.
    pub tokens: Vec<String>,
    way: Way,
}

/// An alert that came.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    /// How long it took from the first request on.
    pub took: Duration,
    /// Requests that it took.
    pub requests: u64,
}

/// Requests that were sent, those that the sensor has seen, and what it says it lost.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Sent and answered.
    pub sent: u64,
    /// Seen.
    pub seen: f64,
    /// Records lost, or connections that had to be forgotten, by reason.
    pub lost: Vec<(String, f64)>,
    /// What it left out on purpose: no request, but its answer or its place in history.
    pub shed: Vec<(String, f64)>,
}

impl Balance {
    /// Whether every request was seen once, or something is counted for it.
    #[must_use]
    pub fn is_even(&self) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
        let missing = self.sent as f64 - self.seen;
        (0.0..=self.lost()).contains(&missing)
    }

    /// All that was lost.
    #[must_use]
    pub fn lost(&self) -> f64 {
        self.lost.iter().map(|(_, many)| many).sum()
    }
}

impl Bed {
    /// Why there can be none here; none if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        sensor::missing().or_else(Network::missing)
    }

    /// Makes both hosts and starts the server.
    ///
    /// # Errors
    /// When a namespace cannot be made.
    pub fn make(way: Way) -> Result<Self> {
        let network = Network::direct()?;
        for (name, value) in [
            ("net.core.somaxconn", BACKLOG.to_string()),
            ("net.ipv4.ip_local_port_range", "1024 65535".into()),
        ] {
            network.sysctl(Host::Server, name, &value)?;
        }
        let at = if way == Way::Wire { SERVER } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let hall = network.on(Host::Server, || Hall::open(at))?;
        let mint = Mint::at(clock::now())?;
        let tokens = (0..TOKENS).map(|one| mint.eddsa(&format!("visitor{one}"))).collect();
        Ok(Self { network, hall, mint, tokens, way })
    }

    /// Which host the load comes from.
    #[must_use]
    pub const fn from(&self) -> Host {
        match self.way {
            Way::Loopback => Host::Server,
            Way::Wire => Host::Client,
        }
    }

    /// A configuration that watches the server and nothing else.
    ///
    /// # Errors
    /// When the mint has no public keys.
    pub fn config(&self) -> Result<Config> {
        self.config_with([])
    }

    /// The same, and these ports.
    ///
    /// # Errors
    /// As there.
    pub fn config_with(&self, ports: impl IntoIterator<Item = u16>) -> Result<Config> {
        let ports: Vec<u16> = ports.into_iter().chain([self.hall.address.port()]).collect();
        let mut config = Config::new(&self.mint)?.ports(&ports);
        // Loads are far above ten requests a second a token, and what they cut and leave is meant to look odd.
        for rule in ["token-rate", "request-smuggling"] {
            config.set(&format!("/rules/{rule}"), json!({"enabled": false}));
        }
        Ok(config)
    }

    /// Somebody who comes on business, on one connection or each time on another.
    #[must_use]
    pub fn visitor(&self, afresh: bool, pause: Duration) -> Visitor<'_> {
        Visitor { to: self.hall.address, tokens: &self.tokens, afresh, pause }
    }

    /// Waits until the sensor has seen `sent` requests more than before, or has had the time to.
    ///
    /// # Errors
    /// When the sensor is gone.
    pub fn balance(&self, sensor: &Sensor, before: &Reading, sent: u64) -> Result<(Balance, Reading)> {
        let seen = |page: &Page| more(before, page, "tokenscope_exchanges_total", "");
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds fit a double")]
        let after = Reading::once(sensor, SETTLE, |page| seen(page) >= sent as f64)?;
        let mut lost = since(&before.page.lost(), after.page.lost());
        let shed = since(&before.page.shed(), after.page.shed());
        for event in ["evicted_flows", "evicted_bytes", "refused_segments"] {
            let many = more(before, &after.page, "tokenscope_flow_events_total", &format!("\"{event}\""));
            if many > 0.0 {
                lost.push((event.to_owned(), many));
            }
        }
        Ok((Balance { sent, seen: seen(&after.page), lost, shed }, after))
    }

    /// Comes with an unsigned token and waits for the alert; comes again if there is none after a while, since the
    /// request may be among what was lost.
    ///
    /// # Errors
    /// When none comes of several.
    pub fn alarm(&self, sensor: &Sensor, name: &str) -> Result<Alarm> {
        let began = clock::instant();
        let mut ports = Vec::new();
        for attempt in 0..ATTEMPTS {
            let token = Attack::AlgNone.token(&self.mint, &format!("{name}{attempt}"))?;
            ports.push(self.network.on(self.from(), || {
                let mut client = Client::connect(self.hall.address)?;
                let status = client.ask(&get("/orders/7", Some(&token)))?.status;
                ensure!(status == 200, "answered {status}");
                Ok(u64::from(client.local()?.port()))
            })?);
            let deadline = Deadline::after(WHILE);
            while let Some(line) = sensor.line(deadline.left()) {
                let told = alerts(&line)?;
                if told.iter().filter_map(Alert::client_port).any(|port| ports.contains(&port)) {
                    return Ok(Alarm { took: began.elapsed(), requests: u64::from(attempt) + 1 });
                }
            }
        }
        bail!("no alert about {name}; lost: {:?}", Page::of(sensor.metrics)?.lost())
    }
}

/// What has grown, and by how much.
fn since(before: &BTreeMap<String, f64>, after: BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let grown = |(label, many): (String, f64)| {
        let new = many - before.get(&label).copied().unwrap_or_default();
        (new > 0.0).then_some((label, new))
    };
    after.into_iter().filter_map(grown).collect()
}

/// By how much a metric has grown since a reading.
#[must_use]
pub fn more(before: &Reading, now: &Page, name: &str, label: &str) -> f64 {
    now.value(name, label) - before.page.value(name, label)
}
