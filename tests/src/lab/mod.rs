//! The attack lab: a shop with human-like traffic, attackers for every detection among it, labels that say which
//! is which, and the judgement of what the sensor said.
//!
//! A seed decides the traffic: who lives where, when they come, what they mistype, how fast an attacker is. Only the
//! signatures of ES256 differ between two runs of a seed. Time is made up; no socket is opened. The sensor is run
//! as its users run it: `tokenscope replay -` reads the packets while they are made.

#[allow(clippy::unnecessary_wraps, reason = "the table takes functions of one type; most of them sign")]
pub mod attacks;
pub mod label;
pub mod machines;
pub mod people;
pub mod places;
pub mod quality;
pub mod rng;
pub mod score;
pub mod script;
pub mod wire;
pub mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;

use anyhow::Result;

use attacks::TABLE;
use label::Label;
use machines::Pace;
use rng::Rng;
use script::{Script, Shot};
use wire::Wire;
pub use world::Service;
use world::{Job, World};

/// Nanoseconds.
pub const MS: u64 = 1_000_000;
/// Nanoseconds.
pub const S: u64 = 1_000_000_000;
/// Nanoseconds.
pub const DAY: u64 = 86_400 * S;
/// The lab's first day: Monday 2026-09-07, midnight UTC.
pub const START: u64 = 1_788_739_200 * S;
/// How long it lasts: accounts must have slept for two months, and the newest weeks be like each other.
pub const DAYS: u64 = 84;
/// The first day with attacks.
const ATTACKS_FROM: u64 = 65;
/// Revoked token ids in the sensor's list, departed and denied accounts.
pub const REVOKED_IDS: u64 = 64;
/// See [`REVOKED_IDS`].
pub const DEPARTED: u64 = 64;
/// See [`REVOKED_IDS`].
pub const DENIED: u64 = 64;

/// How much of what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Benign exchanges, about.
    pub exchanges: u64,
    /// Attacks of each kind.
    pub attacks: u64,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    /// Benign exchanges.
    pub benign: u64,
    /// Exchanges of attacks.
    pub malicious: u64,
    /// Attacks and benign facts.
    pub labels: Vec<Label>,
}

enum Event {
    Day(u64),
    Session(usize),
    Attack(usize, u64),
    Shot(Box<Shot>),
}

struct Queued(u64, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// The lab at work.
struct Lab {
    plan: Plan,
    world: World,
    queue: BinaryHeap<Reverse<Queued>>,
    serial: u64,
    written: Written,
}

/// Writes a capture.
///
/// # Errors
/// When nobody takes the bytes, or a token cannot be signed.
pub fn write(plan: Plan, out: impl Write) -> Result<Written> {
    let mut rng = Rng::new(plan.seed);
    // A person comes about 0.7 times a day on a full day, and asks about 25 times.
    let people = (plan.exchanges / 900).clamp(60, 40_000) as usize;
    let world = World::new(START, people, DAYS, rng.fork())?;
    let mut lab = Lab { plan, world, queue: BinaryHeap::new(), serial: 0, written: Written::default() };
    lab.prepare(&mut rng);
    let mut wire = Wire::new(out)?;
    while let Some(Reverse(Queued(at, _, event))) = lab.queue.pop() {
        match event {
            Event::Day(day) => lab.day(day)?,
            Event::Session(person) => lab.session(person, at)?,
            Event::Attack(entry, number) => lab.attack(entry, number, at)?,
            // Machines stop at the end of the last day: whoever goes on would make them look silent.
            Event::Shot(_) if at >= START + DAYS * DAY => {}
            Event::Shot(shot) => {
                *(if shot.benign { &mut lab.written.benign } else { &mut lab.written.malicious }) += 1;
                wire.play(&shot)?;
            }
        }
    }
    wire.finish()?;
    Ok(lab.written)
}

/// How busy a day is: weekends are half, and the shop grows to five times what it was.
fn weight(day: u64) -> f64 {
    let growth = (day as f64 / 60.0).min(1.0);
    let week = if day % 7 >= 5 { 0.55 } else { 1.0 };
    (0.2 + 0.8 * growth * growth) * week
}

impl Lab {
    fn push(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse(Queued(at, self.serial, event)));
    }

    fn take(&mut self, script: Script) {
        for shot in script.shots {
            self.push(shot.at, Event::Shot(Box::new(shot)));
        }
        self.written.labels.extend(script.labels);
    }

    /// Days, deploys, sleepers, and when each attack begins.
    fn prepare(&mut self, rng: &mut Rng) {
        let mut deploys = rng.fork();
        for day in 0..DAYS {
            self.push(START + day * DAY, Event::Day(day));
            for service in Service::ALL {
                if day % 7 < 5 && deploys.chance(0.25) {
                    let from = START + day * DAY + deploys.between(9 * 3600, 17 * 3600) * S;
                    self.world.deploys.push((service, from, from + deploys.between(10, 45) * S));
                }
            }
        }
        let sleepers = (self.plan.attacks as usize * 2).min(self.world.people.len() / 6);
        let customers = self.world.people.iter_mut().filter(|p| p.job == Job::Customer && p.joined == 0);
        for person in customers.take(sleepers) {
            person.dormant = true;
        }
        let mut times = rng.fork();
        // Each kind has its share of the days. Its attacks are a day apart where there is room: alerts of one kind merge
        // for a while, and what is true of an issuer or a service is told once a day.
        let span = (DAYS - ATTACKS_FROM) * DAY;
        for (index, entry) in TABLE.iter().enumerate() {
            for number in 0..self.plan.attacks {
                let share = span / self.plan.attacks;
                let room = share.saturating_sub(entry.span_s * S);
                let latest = room.saturating_sub(DAY).max(share / 16).min(room.max(1));
                let at = START + ATTACKS_FROM * DAY + share * number + times.below(latest);
                if entry.rule == "signal-missing" {
                    self.world.silences.push((Service::Stock, at, at + 6 * 3600 * S));
                }
                self.push(at, Event::Attack(index, number));
            }
        }
    }

    fn day(&mut self, day: u64) -> Result<()> {
        let from = START + day * DAY;
        let total: f64 = (0..DAYS).map(weight).sum();
        let today = self.plan.exchanges as f64 * weight(day) / total;
        // Machines do a quarter of the work. Their pace does not follow the week.
        let steady = self.plan.exchanges as f64 / DAYS as f64;
        let pace = Pace {
            probe_s: ((86_400.0 * 6.0 / (steady * 0.08).max(1.0)) as u64).clamp(30, 3_600),
            export: (today * 0.06) as u64,
            // In the last weeks at least a thousand calls a day, however small the shop: a signal that can be missed.
            sync_s: ((86_400.0 / (steady * 0.08).max(1.0)) as u64).clamp(10, if day < 55 { 900 } else { 70 }),
            partner: (today * 0.015) as u64 + 1,
        };
        let script = machines::day(&mut self.world, from, pace)?;
        self.take(script);
        let sessions = (today * 0.75 / SESSION).round() as u64;
        for _ in 0..sessions {
            if let Some(person) = self.somebody(day) {
                let job = self.world.people.get(person).map(|p| p.job).unwrap_or_default();
                // Nobody is at the office at weekends.
                if job != Job::Customer && day % 7 >= 5 {
                    continue;
                }
                let at = from + people::hour(job, &mut self.world);
                self.push(at, Event::Session(person));
            }
        }
        if day == 1 {
            // Everybody who will sleep was here once.
            for person in 0..self.world.people.len() {
                if self.world.people.get(person).is_some_and(|p| p.dormant) {
                    let at = from + people::hour(Job::Customer, &mut self.world);
                    self.push(at, Event::Session(person));
                }
            }
        }
        Ok(())
    }

    /// Somebody who comes on this day: some come often.
    fn somebody(&mut self, day: u64) -> Option<usize> {
        let count = self.world.people.len() as f64;
        for _ in 0..20 {
            let u = self.world.rng.unit();
            let person = (u * u.sqrt() * count) as usize;
            if self.world.people.get(person).is_some_and(|p| p.joined <= day && !p.dormant) {
                return Some(person);
            }
        }
        None
    }

    fn session(&mut self, person: usize, at: u64) -> Result<()> {
        let Some(who) = self.world.people.get(person) else { return Ok(()) };
        if who.busy_until > at {
            return Ok(());
        }
        let mut script = Script::benign();
        people::session(&mut self.world, &mut script, person, at)?;
        self.take(script);
        Ok(())
    }

    fn attack(&mut self, entry: usize, number: u64, at: u64) -> Result<()> {
        let Some(entry) = TABLE.get(entry) else { return Ok(()) };
        let rng = Rng::new(self.plan.seed.wrapping_mul(0x1_0001) ^ at);
        let script = attacks::play(&mut self.world, entry, number, at, rng)?;
        self.take(script);
        Ok(())
    }
}

/// Exchanges of one session, about.
const SESSION: f64 = 16.0;
