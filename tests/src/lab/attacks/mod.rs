//! The attackers: one small function for each detection of the catalogue, one table of them all.
//!
//! Speed, number and spelling are drawn anew for every attack, always on the wrong side of the shipped thresholds.

mod data;
mod logins;
mod sessions;
mod tokens;
mod volume;

use anyhow::Result;

use super::label::Label;
use super::places::{self, City, HOSTING};
use super::rng::Rng;
use super::script::{Answer, Call, Caller, Script};
use super::world::{Job, LIFE_S, PEOPLE, Person, World, agent};
use super::{MS, S, Service};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The rule that must alert.
    pub rule: &'static str,
    /// The section of the catalogue: its other rules may alert on the same attacker.
    pub section: char,
    /// Longest time that it takes, in seconds.
    pub span_s: u64,
    /// Does it.
    pub run: fn(&mut Attack<'_>) -> Result<()>,
}

const fn entry(
    rule: &'static str,
    section: char,
    span_s: u64,
    run: fn(&mut Attack<'_>) -> Result<()>,
) -> Entry {
    Entry { rule, section, span_s, run }
}

/// Every attack.
#[rustfmt::skip]
pub const TABLE: &[Entry] = &[
    entry("alg-none", 'A', 120, tokens::alg_none),
    entry("signature-invalid", 'A', 120, tokens::signature_invalid),
    entry("alg-confusion", 'A', 120, tokens::alg_confusion),
    entry("alg-not-allowed", 'A', 120, tokens::alg_not_allowed),
    entry("embedded-key", 'A', 120, tokens::embedded_key),
    entry("key-url", 'A', 120, tokens::key_url),
    entry("kid-injection", 'A', 120, tokens::kid_injection),
    entry("weak-secret", 'A', 120, tokens::weak_secret),
    entry("psychic-signature", 'A', 120, tokens::psychic_signature),
    entry("claims-tampered", 'A', 300, tokens::claims_tampered),
    entry("unknown-critical", 'A', 120, tokens::unknown_critical),
    entry("malformed-token", 'A', 120, tokens::malformed_token),
    entry("costly-token", 'A', 120, tokens::costly_token),
    entry("type-confusion", 'A', 120, tokens::type_confusion),
    entry("issuer-unknown", 'A', 120, tokens::issuer_unknown),
    entry("audience-mismatch", 'A', 120, tokens::audience_mismatch),
    entry("expired-token", 'A', 120, tokens::expired_token),
    entry("not-yet-valid", 'A', 120, tokens::not_yet_valid),
    entry("issued-in-future", 'A', 120, tokens::issued_in_future),
    entry("missing-expiry", 'A', 120, tokens::missing_expiry),
    entry("missing-id", 'A', 120, tokens::missing_id),
    entry("lifetime-unusual", 'A', 120, tokens::lifetime_unusual),
    entry("token-in-url", 'A', 120, tokens::token_in_url),
    entry("token-in-clear", 'A', 120, tokens::token_in_clear),
    entry("proof-missing", 'A', 120, tokens::proof_missing),
    entry("guessable-token", 'A', 600, tokens::guessable_token),
    entry("revoked-token", 'A', 600, tokens::revoked_token),
    entry("refresh-reuse", 'A', 900, tokens::refresh_reuse),
    entry("forged-token-accepted", 'A', 120, tokens::forged_token_accepted),
    entry("token-many-sources", 'B', 600, sessions::token_many_sources),
    entry("device-change", 'B', 1_200, sessions::device_change),
    entry("impossible-travel", 'B', 3600, sessions::impossible_travel),
    entry("new-country", 'B', 600, sessions::new_country),
    entry("disallowed-region", 'B', 600, sessions::disallowed_region),
    entry("workload-token-abroad", 'B', 600, sessions::workload_token_abroad),
    entry("subject-switch", 'B', 1_200, sessions::subject_switch),
    entry("privilege-change", 'B', 600, sessions::privilege_change),
    entry("known-bad-address", 'B', 600, sessions::known_bad_address),
    entry("brute-force", 'C', 900, logins::brute_force),
    entry("password-spray", 'C', 1800, logins::password_spray),
    entry("credential-stuffing", 'C', 900, logins::credential_stuffing),
    entry("account-guessing", 'C', 1800, logins::account_guessing),
    entry("login-failure-rate", 'C', 900, logins::login_failure_rate),
    entry("token-failure-rate", 'C', 900, logins::token_failure_rate),
    entry("frequent-login", 'C', 600, logins::frequent_login),
    entry("many-failing-accounts", 'C', 28_800, logins::many_failing_accounts),
    entry("off-hours", 'C', 115_200, logins::off_hours),
    entry("dormant-account", 'C', 600, logins::dormant_account),
    entry("departed-account", 'C', 600, logins::departed_account),
    entry("listed-account", 'C', 600, logins::listed_account),
    entry("new-device-sensitive", 'C', 600, logins::new_device_sensitive),
    entry("denied-rate", 'D', 300, data::denied_rate),
    entry("object-enumeration", 'D', 3600, data::object_enumeration),
    entry("foreign-object", 'D', 900, data::foreign_object),
    entry("function-escalation", 'D', 300, data::function_escalation),
    entry("bulk-access", 'D', 600, data::bulk_access),
    entry("data-exfiltration", 'D', 900, data::data_exfiltration),
    entry("endpoint-recon", 'D', 300, data::endpoint_recon),
    entry("injection", 'D', 300, data::injection),
    entry("unusual-endpoint", 'D', 600, data::unusual_endpoint),
    entry("unusual-sequence", 'D', 600, data::unusual_sequence),
    entry("token-rate", 'E', 120, volume::token_rate),
    entry("address-rate", 'E', 300, volume::address_rate),
    entry("traffic-spike", 'E', 1200, volume::traffic_spike),
    entry("error-rate", 'E', 1200, volume::error_rate),
    entry("slow-responses", 'E', 1200, volume::slow_responses),
    entry("signal-missing", 'E', 21_600, volume::signal_missing),
    entry("request-smuggling", 'E', 120, volume::request_smuggling),
    entry("coverage-gap", 'E', 300, volume::coverage_gap),
];

/// Rules that speak about a service as a whole: the client that an alert shows is only the last one.
pub const ABOUT_SERVICES: &[&str] = &[
    "login-failure-rate",
    "token-failure-rate",
    "many-failing-accounts",
    "credential-stuffing",
    "traffic-spike",
    "error-rate",
    "slow-responses",
    "signal-missing",
    "coverage-gap",
];

/// An attack in the making.
pub struct Attack<'a> {
    /// The shop.
    pub world: &'a mut World,
    /// Its own draws.
    pub rng: Rng,
    /// Its clock, nanoseconds since the epoch.
    pub at: u64,
    /// What is sent.
    pub script: Script,
    /// What must be said.
    pub label: Label,
    /// Which attack of its kind, from 0.
    pub number: u64,
    /// When the token of a person was issued that is used now.
    issued: u64,
}

/// Plays one attack.
///
/// # Errors
/// When signing fails.
pub fn play(world: &mut World, entry: &Entry, number: u64, at: u64, rng: Rng) -> Result<Script> {
    let id = format!("{}/{number}", entry.rule);
    let also = TABLE.iter().filter(|e| e.section == entry.section && e.rule != entry.rule).map(|e| e.rule);
    let label = Label { id, rules: vec![entry.rule], also: also.collect(), ..Label::default() };
    let mut attack = Attack { world, rng, at, script: Script::default(), label, number, issued: at };
    (entry.run)(&mut attack)?;
    let Attack { mut script, mut label, .. } = attack;
    // Rules over windows may speak when their window closes.
    label.last += 900 * S;
    // The owner of a stolen account comes home; failures and objects are counted for a while.
    label.echo = label.last
        + match entry.section {
            'B' => 3 * 3600 * S,
            'C' => 1_800 * S,
            'D' => super::DAY,
            _ => 0,
        };
    // Weak evidence that any attack may be.
    label.also.extend(["unusual-endpoint", "unusual-sequence"]);
    script.labels.push(label);
    Ok(script)
}

impl Attack<'_> {
    /// Somebody who was never seen, at a hosting provider, behind the ingress.
    pub fn attacker(&mut self) -> Caller {
        self.attacker_from(HOSTING)
    }

    /// The same from another city.
    pub fn attacker_from(&mut self, city: City) -> Caller {
        self.world.attackers += 1;
        let address = places::address(city.homes, (self.world.attackers * 3 + 7) as u16);
        self.label.addresses.push(address);
        let tools = ["python-requests/2.32", "curl/8.11.1", "Go-http-client/1.1", "okhttp/4.12.0"];
        Caller {
            address,
            ingress: Some(self.rng.between(1, 3) as u8),
            agent: self.rng.pick(&tools).into(),
            lane: 0,
        }
    }

    /// A name of an account of the attacker's own.
    pub fn mallory(&mut self) -> String {
        self.world.attackers += 1;
        let name = format!("mallory.{:05}", self.world.attackers);
        self.label.principals.push(name.clone());
        name
    }

    /// Claims of a good token for somebody.
    pub fn claims(&mut self, subject: &str) -> serde_json::Value {
        let at = self.at.saturating_sub(self.rng.between(5, 60) * S);
        let mut claims = self.world.claims(PEOPLE, subject, at, LIFE_S);
        crate::mint::set(&mut claims, "roles", serde_json::json!(["USER"]));
        claims
    }

    /// A good token of the attacker's own account.
    ///
    /// # Errors
    /// When signing fails.
    pub fn own_token(&mut self) -> Result<String> {
        let name = self.mallory();
        let claims = self.claims(&name);
        self.world.sign(&claims)
    }

    /// A person with a history, who stays out of this until it is over, named in the label.
    pub fn victim(&mut self, fits: impl Fn(&Person) -> bool) -> usize {
        let person = self.world.victim(self.at, self.at + 3600 * S, fits);
        let name = self.world.name(person);
        self.label.principals.push(name);
        person
    }

    /// Another token of a person in place of one that is nearly over.
    ///
    /// # Errors
    /// When signing fails.
    pub fn renew(&mut self, person: usize, token: &mut String) -> Result<()> {
        if self.at > self.issued + 700 * S {
            self.issued = self.at;
            *token = self.world.token_of(person, self.at)?;
        }
        Ok(())
    }

    /// A customer as [`Self::victim`].
    pub fn customer(&mut self) -> usize {
        self.victim(|p| p.job == Job::Customer)
    }

    /// A malicious call; time passes.
    pub fn hit(&mut self, who: &Caller, to: Service, call: Call, status: u16) {
        let latency = self.rng.between(4, 60);
        self.hit_with(who, to, call, &Answer::of(status, latency));
    }

    /// The same with an answer of one's own.
    pub fn hit_with(&mut self, who: &Caller, to: Service, call: Call, answer: &Answer) {
        if self.label.first == 0 {
            self.label.first = self.at;
        }
        let done = self.script.call(self.at, who, to, call, answer);
        self.label.deciding.get_or_insert(self.at);
        self.label.last = self.label.last.max(done);
        self.label.service = Some(to.address());
        self.at = done + 3 * MS;
    }

    /// What happens before and is no attack; time passes.
    pub fn prepare(&mut self, who: &Caller, to: Service, call: Call, status: u16) {
        let latency = self.rng.between(4, 60);
        self.at = self.script.call(self.at, who, to, call, &Answer::of(status, latency)) + 3 * MS;
    }

    /// A login that succeeds, and so many pages of orders, with pauses of at most so long.
    pub fn log_in(&mut self, who: &Caller, name: &str, token: &str, pages: (u64, u64), pause_ms: u64) {
        let body = format!(r#"{{"username":"{name}","password":"Right-{}"}}"#, self.rng.hex(6));
        let granted = format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#);
        self.hit_with(who, Service::Idp, Call::post("/login", body), &Answer::of(200, 70).with(granted));
        for page in 1..=self.rng.between(pages.0, pages.1) {
            self.wait_ms(500, pause_ms);
            self.hit(who, Service::Orders, Call::get(format!("/orders?page={page}")).token(token), 200);
        }
    }

    /// Lets time pass.
    pub fn wait_ms(&mut self, low: u64, high: u64) {
        self.at += self.rng.between(low, high) * MS;
    }

    /// The rule counts: no single packet decides it.
    pub fn counts(&mut self) {
        self.label.deciding = None;
    }

    /// These rules may alert as well.
    pub fn may(&mut self, rules: &[&'static str]) {
        self.label.also.extend_from_slice(rules);
    }

    /// A person's agent today, with the first of his devices.
    #[must_use]
    pub fn home(&self, person: usize) -> Caller {
        self.world.caller(person, 0, self.at)
    }

    /// The agent of a device today.
    #[must_use]
    pub fn agent(&self, device: usize) -> String {
        agent(device, self.world.day(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_each_rule_once() {
        let mut names: Vec<&str> = TABLE.iter().map(|e| e.rule).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(ABOUT_SERVICES.iter().all(|rule| names.contains(rule)));
    }
}
