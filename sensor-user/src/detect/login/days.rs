//! Days in the life of login services, as all rules about logins see them together: honest ones without an alert, and
//! attacks in the midst of them.

use crate::capture::Time;
use crate::detect::staging::Stage;
use crate::detect::{DetectSettings, Detector, Finding};

/// The rules about logins.
const RULES: [&str; 7] = [
    "brute-force",
    "password-spray",
    "credential-stuffing",
    "account-guessing",
    "login-failure-rate",
    "frequent-login",
    "many-failing-accounts",
];

/// A small generator of numbers, the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct Town {
    detector: Detector,
    dice: Dice,
    people: u64,
    found: Vec<Finding>,
}

impl Town {
    fn new(people: u64, seed: u64) -> Self {
        let detector = Detector::new(DetectSettings::default());
        Self { detector, dice: Dice(seed | 1), people, found: Vec::new() }
    }

    fn login(&mut self, ms: u64, account: &str, address: &str, agent: &str, status: u16) {
        let stage = Stage::to("POST", "/login")
            .status(status)
            .after_ms(ms)
            .account(account)
            .client(address)
            .header("User-Agent", agent);
        self.detector.judge(&stage.exchange, &[], stage.exchange.ended_at, &mut self.found);
        self.detector.tick(Time(stage.exchange.at.0), &mut self.found);
    }

    /// One person comes: usually from home, often from the office, now and then from a mobile network. One in twelve
    /// mistypes, up to three times; one in forty gives up; one in sixty mistypes the name.
    fn person(&mut self, ms: u64, outage: bool) {
        const AGENTS: [&str; 4] = ["Firefox/145", "Chrome/142", "Safari/19", "ShopApp/7"];
        let person = self.dice.below(self.people);
        let home = format!("10.{}.{}.{}", person >> 16 & 127, person >> 8 & 255, person & 255);
        let address = match self.dice.below(10) {
            0..6 => home,
            6..9 => format!("192.0.2.{}", person % 3),
            _ => format!("100.64.{}.{}", self.dice.below(4), self.dice.below(8)),
        };
        let (account, agent) = (format!("user{person}@shop.example"), AGENTS[(person % 4) as usize]);
        if outage {
            for retry in 0..4 {
                self.login(ms + retry * 2000, &account, &address, agent, 401);
            }
            return;
        }
        if self.dice.below(60) == 0 {
            let typo = format!("user{person}{}@shop.example", self.dice.below(1000));
            self.login(ms, &typo, &address, agent, 401);
        }
        if self.dice.below(12) == 0 {
            for slip in 0..=self.dice.below(3) {
                self.login(ms + slip * 4000, &account, &address, agent, 401);
            }
        }
        if self.dice.below(40) == 0 {
            self.login(ms + 20_000, &account, &address, agent, 401);
        } else {
            self.login(ms + 20_000, &account, &address, agent, 200);
        }
    }

    /// So many hours with so many people an hour at noon, and a tenth at night.
    fn live(&mut self, from_h: u64, hours: u64, an_hour: u64) {
        for hour in from_h..from_h + hours {
            let busy = if (7..20).contains(&(hour % 24)) { an_hour } else { an_hour / 10 };
            for n in 0..busy {
                self.person(hour * 3_600_000 + n * 3_600_000 / busy, false);
            }
        }
    }

    fn said(&mut self) -> Vec<(&'static str, String)> {
        let about_logins = |f: &Finding| RULES.contains(&f.rule.id);
        self.found.drain(..).filter(about_logins).map(|f| (f.rule.id, f.message)).collect()
    }

    fn rules_said(&mut self) -> Vec<&'static str> {
        let mut rules: Vec<_> = self.said().into_iter().map(|(rule, _)| rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

#[test]
fn honest_days_of_small_and_large_services_are_silent() {
    for (people, an_hour, seed) in [(30, 12, 1), (400, 60, 2), (20_000, 900, 3)] {
        let mut town = Town::new(people, seed);
        town.live(0, 40, an_hour);
        assert_eq!(town.said(), [], "{people} people");
    }
}

#[test]
fn an_outage_is_one_alert() {
    let mut town = Town::new(400, 7);
    town.live(0, 34, 150);
    assert_eq!(town.said(), []);
    for n in 0..300 {
        town.person(34 * 3_600_000 + n * 2000, true);
    }
    let said = town.said();
    assert_eq!(said.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), ["login-failure-rate"; 1], "{said:?}");
}

#[test]
fn a_slow_botnet_in_the_midst_of_honest_people_is_seen() {
    let mut town = Town::new(2000, 11);
    town.live(0, 34, 150);
    assert_eq!(town.said(), []);
    for n in 0..600_u64 {
        let ms = 34 * 3_600_000 + n * 1000;
        if n % 12 == 0 {
            town.person(ms, false);
        }
        let address = format!("203.0.{}.{}", n % 120, n % 7);
        town.login(ms, &format!("user{}@shop.example", n * 3), &address, "Chrome/142", 401);
    }
    let rules = town.rules_said();
    for rule in ["credential-stuffing", "login-failure-rate", "many-failing-accounts"] {
        assert!(rules.contains(&rule), "{rules:?}");
    }
    assert!(!rules.contains(&"brute-force"), "no address stands out: {rules:?}");
}

#[test]
fn a_sprayer_and_a_guesser_are_seen_and_nobody_else() {
    let mut town = Town::new(2000, 13);
    town.live(0, 30, 150);
    assert_eq!(town.said(), []);
    for n in 0..40_u64 {
        let ms = 30 * 3_600_000 + n * 60_000;
        (0..5).for_each(|k| town.person(ms + k * 10_000, false));
        town.login(ms, &format!("user{}@shop.example", n * 7), "203.0.113.9", "python-requests/2", 401);
    }
    assert_eq!(town.rules_said(), ["brute-force", "password-spray"]);
    for n in 0..40_u64 {
        let ms = 31 * 3_600_000 + n * 60_000;
        (0..5).for_each(|k| town.person(ms + k * 10_000, false));
        town.login(ms, "user4@shop.example", &format!("203.0.113.{n}"), "curl/8", 401);
    }
    assert_eq!(town.rules_said(), ["account-guessing"]);
}
