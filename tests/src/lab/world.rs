//! The shop: its services, its people, the tokens that they get.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::{Value, json};

use super::places::{self, City, HOMES};
use super::rng::Rng;
use super::script::{Answer, Caller};
use super::{DAY, S};
use crate::mint::{Mint, set};

/// The issuer of people's tokens: RS256.
pub const PEOPLE: &str = "https://idp.example/";
/// The issuer of machines' and partners' tokens: ES256.
pub const MACHINES: &str = "https://machines.example/";
/// The cluster, which issues tokens to its pods: RS256.
pub const CLUSTER: &str = "https://kubernetes.default.svc";
/// The audience of all of them.
pub const AUDIENCE: &str = "shop-api";
/// How long an access token lives, in seconds.
pub const LIFE_S: i64 = 900;

/// The services, each at an address of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Logs people in and refreshes their tokens.
    #[default]
    Idp,
    /// Products, orders, search.
    Orders,
    /// Invoices and payments.
    Billing,
    /// People's data, and administration.
    Accounts,
    /// Stock, asked by machines only.
    Stock,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Idp, Self::Orders, Self::Billing, Self::Accounts, Self::Stock];

    /// Where it listens.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        let last = match self {
            Self::Idp => 1,
            Self::Orders => 2,
            Self::Billing => 3,
            Self::Accounts => 4,
            Self::Stock => 5,
        };
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last)), 8080)
    }

    /// Its name in `Host`.
    #[must_use]
    pub const fn host(self) -> &'static str {
        match self {
            Self::Idp => "idp.shop.test",
            Self::Orders => "orders.shop.test",
            Self::Billing => "billing.shop.test",
            Self::Accounts => "accounts.shop.test",
            Self::Stock => "stock.shop.test",
        }
    }
}

/// What people do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Job {
    /// Buys.
    #[default]
    Customer,
    /// Answers the telephone: reads many customers' data, from an office.
    Support,
    /// Administers, in office hours.
    Admin,
}

/// One person.
#[derive(Clone, Debug)]
pub struct Person {
    /// The account and the subject.
    pub name: String,
    /// What he does.
    pub job: Job,
    /// Where he lives.
    pub city: City,
    /// His address at home or in the office.
    pub home: IpAddr,
    /// The host part of his telephone's address when it is not at home.
    pub cell: u16,
    /// Client families: the first is used mostly.
    pub devices: [usize; 2],
    /// How often each was used.
    pub used: [u32; 2],
    /// The first day.
    pub joined: u64,
    /// Not before: one person is in one place.
    pub busy_until: u64,
    /// Sessions so far.
    pub sessions: u32,
    /// Never used by the benign model after the second day, until an attack does.
    pub dormant: bool,
    /// Was a victim already: an attack teaches rules what is usual for him.
    pub attacked: bool,
    /// Which objects are his: `base * 40 + 0..40`.
    pub base: u64,
}

/// The families of clients by name; versions move on with the calendar.
pub const DEVICES: usize = 6;
/// What a device says it is, on a day.
#[must_use]
pub fn agent(device: usize, day: u64) -> String {
    let major = 138 + day / 28;
    match device {
        0 => format!(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"
        ),
        1 => format!("Mozilla/5.0 (X11; Linux x86_64; rv:{major}.0) Gecko/20100101 Firefox/{major}.0"),
        2 => format!(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.{} Safari/605.1.15",
            day / 40
        ),
        3 => format!(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36 Edg/{major}.0.0.0"
        ),
        4 => format!("ShopApp/4.{} okhttp/4.12.0", day / 14),
        _ => format!("Shop/4.{} CFNetwork/1568.200.51 Darwin/24.1.0", day / 14),
    }
}

/// Everything that is there.
#[derive(Debug)]
pub struct World {
    /// When it begins, nanoseconds since the epoch: a Monday, midnight UTC.
    pub start: u64,
    /// The people; those reserved for attacks are among them.
    pub people: Vec<Person>,
    /// Deploys: service, from, to.
    pub deploys: Vec<(Service, u64, u64)>,
    /// When a service is silent, by an attack.
    pub silences: Vec<(Service, u64, u64)>,
    /// Signs.
    pub mint: Mint,
    /// Draws.
    pub rng: Rng,
    /// Attackers so far: each has an address and a name of his own.
    pub attackers: u64,
    issued: u64,
}

impl World {
    /// A world of so many people.
    ///
    /// # Errors
    /// When the fixed keys are not readable.
    pub fn new(start: u64, people: usize, days: u64, mut rng: Rng) -> Result<Self> {
        let mint = Mint::at((start / S) as i64)?;
        let mut list = Vec::new();
        for number in 0..people as u64 {
            list.push(person(number, people as u64, days, &mut rng));
        }
        Ok(Self {
            start,
            people: list,
            deploys: Vec::new(),
            silences: Vec::new(),
            mint,
            rng,
            attackers: 0,
            issued: 0,
        })
    }

    /// The day of a time, from 0.
    #[must_use]
    pub const fn day(&self, at: u64) -> u64 {
        at.saturating_sub(self.start) / DAY
    }

    /// Claims of a good token, issued at `at` (nanoseconds).
    pub fn claims(&mut self, issuer: &str, subject: &str, at: u64, life_s: i64) -> Value {
        self.issued += 1;
        let iat = (at / S) as i64;
        let id = format!("{}{:08x}", self.rng.hex(12), self.issued);
        json!({
            "iss": issuer, "aud": AUDIENCE, "sub": subject, "iat": iat, "nbf": iat, "exp": iat + life_s,
            "jti": id, "client_id": "shop", "scope": "shop",
        })
    }

    /// Signs claims as their issuer does.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        match claims.get("iss").and_then(Value::as_str) {
            Some(MACHINES) => {
                self.mint.es256_of(&json!({"alg": "ES256", "typ": "JWT", "kid": "ec-1"}), claims)
            }
            Some(CLUSTER) => self.mint.rs256(&json!({"alg": "RS256", "kid": "rsa-1"}), claims),
            _ => self.mint.rs256(&people_header(), claims),
        }
    }

    /// A person's access token.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token_of(&mut self, person: usize, at: u64) -> Result<String> {
        let (name, job) = self.people.get(person).map(|p| (p.name.clone(), p.job)).unwrap_or_default();
        let mut claims = self.claims(PEOPLE, &name, at, LIFE_S);
        set(&mut claims, "roles", json!(roles(job)));
        self.sign(&claims)
    }

    /// A machine's access token: an hour.
    ///
    /// # Errors
    /// When signing fails.
    pub fn machine_token(&mut self, name: &str, at: u64) -> Result<String> {
        let claims = self.claims(MACHINES, name, at, 3600);
        self.sign(&claims)
    }

    /// How a service answers now: a deploy turns some answers into 503.
    pub fn answer(&mut self, service: Service, at: u64, status: u16) -> Answer {
        let latency = (self.rng.log_normal(18.0, 0.7) as u64).clamp(1, 1_500);
        let deploys = self.deploys.iter().any(|(s, from, to)| *s == service && (*from..*to).contains(&at));
        if deploys && self.rng.chance(0.4) {
            return Answer::of(503, 5);
        }
        Answer::of(status, latency)
    }

    /// How a person calls from where he lives, with one of his devices.
    #[must_use]
    pub fn caller(&self, person: usize, device: usize, at: u64) -> Caller {
        let day = self.day(at);
        let who = self.people.get(person);
        let kind = who.and_then(|p| p.devices.get(device).copied()).unwrap_or_default();
        Caller {
            address: who.map_or(IpAddr::from([0, 0, 0, 0]), |p| p.home),
            ingress: Some(1 + (person % 3) as u8),
            agent: agent(kind, day),
            lane: 0,
        }
    }

    /// Somebody with a history who is not busy, and will be left alone until `until`.
    pub fn victim(&mut self, at: u64, until: u64, fits: impl Fn(&Person) -> bool) -> usize {
        let number = self.people.len() as u64;
        let from = self.rng.below(number);
        let free = |p: &Person| p.busy_until + 1200 * S < at && !p.dormant && fits(p);
        let ids: Vec<usize> = (0..number).map(|i| ((from + i) % number) as usize).collect();
        let known = |want: u32, fresh: bool| {
            let fits = |p: &Person| p.sessions >= want && !(fresh && p.attacked) && free(p);
            ids.iter().copied().find(|i| self.people.get(*i).is_some_and(fits))
        };
        let wanted = [(20, true), (12, true), (12, false), (5, true), (5, false), (0, false)];
        let chosen = wanted.into_iter().find_map(|(want, fresh)| known(want, fresh)).unwrap_or_default();
        if let Some(person) = self.people.get_mut(chosen) {
            person.busy_until = until;
            person.attacked = true;
        }
        chosen
    }

    /// A person's name.
    #[must_use]
    pub fn name(&self, person: usize) -> String {
        self.people.get(person).map(|p| p.name.clone()).unwrap_or_default()
    }
}

/// The header of people's tokens (RFC 9068).
#[must_use]
pub fn people_header() -> Value {
    json!({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
}

/// The roles of a job.
#[must_use]
pub const fn roles(job: Job) -> &'static [&'static str] {
    match job {
        Job::Customer => &["USER"],
        Job::Support => &["USER", "SUPPORT"],
        Job::Admin => &["USER", "ADMIN"],
    }
}

/// Shares: 88 % customers, 9 % support, 3 % admins; growth brings customers later.
fn person(number: u64, of: u64, days: u64, rng: &mut Rng) -> Person {
    let job = match number % 33 {
        0 => Job::Admin,
        1..4 => Job::Support,
        _ => Job::Customer,
    };
    let city = if job == Job::Customer { rng.pick(&HOMES) } else { places::OFFICE };
    let home = match job {
        // Two offices: one is in the configuration, the other is not.
        Job::Support | Job::Admin => {
            IpAddr::from([198, 51, 100, if number.is_multiple_of(2) { 10 } else { 20 }])
        }
        Job::Customer if rng.chance(0.05) => {
            let net = (0x2a02_0a00_u128 + u128::from(number % 7)) << 96;
            IpAddr::V6(std::net::Ipv6Addr::from_bits(net | u128::from(number) << 64 | u128::from(rng.bits())))
        }
        // Some live behind one address: households, and providers that share addresses.
        Job::Customer => places::address(city.homes, (rng.below(of * 8 + 64) % 60_000) as u16 + 8),
    };
    let first = if job == Job::Customer { rng.below(DEVICES as u64) } else { rng.below(4) } as usize;
    let second =
        if job == Job::Customer && rng.chance(0.4) { rng.below(DEVICES as u64) as usize } else { first };
    // A third is there from the start; the rest comes over the weeks.
    let joined =
        if rng.chance(0.35) || job != Job::Customer { 0 } else { rng.below(days.saturating_sub(20)) };
    Person {
        name: format!(
            "{}.{number:05}",
            rng.pick(&["anna", "bram", "carla", "dirk", "eva", "finn", "gul", "hana"])
        ),
        job,
        city,
        home,
        cell: rng.below(65_000) as u16,
        devices: [first, second],
        used: [0; 2],
        joined,
        busy_until: 0,
        sessions: 0,
        dormant: false,
        attacked: false,
        base: 2_500 + number,
    }
}
