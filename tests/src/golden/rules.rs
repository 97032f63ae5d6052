//! One capture for each rule that the hand-made attacks do not show: the smallest traffic at which it fires.
//!
//! The lab's script and wire make the packets. `tests/data/golden/rules/ID.jsonl` holds what is said, shortened to what
//! matters: bulk traffic would make it long. A rule that nothing here or in [`super::cases`] shows fails a test.

mod data;
mod logins;
mod sessions;
mod tokens;
mod volume;

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{SECOND, START};
use crate::lab::Service;
use crate::lab::places::{self, City};
use crate::lab::script::{Answer, Call, Caller, Script};
use crate::lab::wire::Wire;
use crate::mint::{GOLDEN_NOW, Mint, set};
use crate::sensor::{Alert, Config};

/// Nanoseconds in a day.
const DAY: u64 = 86_400 * SECOND;
/// A minute, in seconds.
const MINUTE: u64 = 60;

/// What one rule is shown.
#[derive(Clone, Copy, Debug)]
pub struct RuleCase {
    /// The rule that must fire.
    pub rule: &'static str,
    /// Rules that cannot but fire as well.
    pub also: &'static [&'static str],
    play: fn(&mut Scene) -> Result<()>,
}

const fn case(rule: &'static str, play: fn(&mut Scene) -> Result<()>) -> RuleCase {
    RuleCase { rule, also: &[], play }
}

/// Every case, in the order of the catalogue.
#[rustfmt::skip]
pub const CASES: &[RuleCase] = &[
    case("alg-not-allowed", tokens::alg_not_allowed),
    case("unknown-critical", tokens::unknown_critical),
    case("costly-token", tokens::costly_token),
    case("type-confusion", tokens::type_confusion),
    case("issued-in-future", tokens::issued_in_future),
    case("missing-expiry", tokens::missing_expiry),
    case("missing-id", tokens::missing_id),
    case("lifetime-unusual", tokens::lifetime_unusual),
    case("token-in-url", tokens::token_in_url),
    case("token-in-clear", tokens::token_in_clear),
    case("proof-missing", tokens::proof_missing),
    case("guessable-token", tokens::guessable_token),
    case("revoked-token", tokens::revoked_token),
    case("refresh-reuse", tokens::refresh_reuse),
    case("device-change", sessions::device_change),
    case("impossible-travel", sessions::impossible_travel),
    case("new-country", sessions::new_country),
    case("disallowed-region", sessions::disallowed_region),
    case("workload-token-abroad", sessions::workload_token_abroad),
    case("subject-switch", sessions::subject_switch),
    case("privilege-change", sessions::privilege_change),
    case("known-bad-address", sessions::known_bad_address),
    case("off-hours", logins::off_hours),
    case("dormant-account", logins::dormant_account),
    case("departed-account", logins::departed_account),
    case("listed-account", logins::listed_account),
    case("new-device-sensitive", logins::new_device_sensitive),
    case("password-spray", logins::password_spray),
    case("credential-stuffing", logins::credential_stuffing),
    case("account-guessing", logins::account_guessing),
    case("login-failure-rate", logins::login_failure_rate),
    case("token-failure-rate", logins::token_failure_rate),
    case("frequent-login", logins::frequent_login),
    case("many-failing-accounts", logins::many_failing_accounts),
    case("denied-rate", data::denied_rate),
    case("object-enumeration", data::object_enumeration),
    case("foreign-object", data::foreign_object),
    case("function-escalation", data::function_escalation),
    case("bulk-access", data::bulk_access),
    case("data-exfiltration", data::data_exfiltration),
    case("endpoint-recon", data::endpoint_recon),
    case("injection", data::injection),
    case("unusual-endpoint", data::unusual_endpoint),
    case("unusual-sequence", data::unusual_sequence),
    case("address-rate", volume::address_rate),
    case("traffic-spike", volume::traffic_spike),
    case("error-rate", volume::error_rate),
    case("slow-responses", volume::slow_responses),
    case("signal-missing", volume::signal_missing),
    case("request-smuggling", volume::request_smuggling),
    RuleCase {
        rule: "entity-risk",
        // What adds up.
        also: &["alg-none", "signature-invalid", "kid-injection", "key-url"],
        play: volume::entity_risk,
    },
];

impl RuleCase {
    /// Its capture, and the configuration that goes with it. Databases are written into `dir`.
    ///
    /// # Errors
    /// When a token cannot be signed, or `dir` is not writable.
    pub fn make(&self, dir: &Path) -> Result<(Config, Vec<u8>)> {
        let mint = Mint::at(GOLDEN_NOW)?;
        let mut config = Config::new(&mint)?;
        config.set("/http/trusted_proxies", json!(["10.0.9.0/28"]));
        let mut scene =
            Scene { mint, config, at: START, script: Script::default(), serial: 0, dir: dir.into() };
        (self.play)(&mut scene).context(self.rule)?;
        let mut shots = scene.script.shots;
        shots.sort_by_key(|shot| shot.at);
        let mut file = Vec::new();
        let mut wire = Wire::new(&mut file)?;
        for shot in &shots {
            wire.play(shot)?;
        }
        wire.finish()?;
        Ok((scene.config, file))
    }
}

/// What is kept of an alert: times are milliseconds from the capture's begin.
#[must_use]
pub fn shortened(alert: &Alert) -> Value {
    let text = |pointer: &str| alert.0.pointer(pointer).cloned().unwrap_or_default();
    let since = |pointer: &str| {
        let ms = alert.0.pointer(pointer).and_then(Value::as_u64);
        ms.and_then(|ms| ms.checked_sub(START / 1_000_000))
    };
    json!({
        "rule": alert.rule(), "severity": alert.severity(), "new": alert.is_new(), "count": alert.count(),
        "first_ms": since("/finding_info/first_seen_time"), "last_ms": since("/finding_info/last_seen_time"),
        "client": text("/evidences/0/src_endpoint/ip"), "server": text("/evidences/0/dst_endpoint/name"),
        "principal": text("/evidences/0/actor/user/uid"), "verified": text("/unmapped/verified"),
        "route": text("/evidences/0/api/operation"), "status": text("/evidences/0/http_response/code"),
        "says": text("/message"),
    })
}

/// Traffic in the making.
struct Scene {
    mint: Mint,
    config: Config,
    /// Now, in nanoseconds since the epoch.
    at: u64,
    script: Script,
    serial: u32,
    dir: std::path::PathBuf,
}

/// A client behind the ingress, with a browser.
fn client(address: impl Into<IpAddr>) -> Caller {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    Caller { address: address.into(), ingress: Some(1), agent: agent.into(), lane: 0 }
}

/// The same with a tool.
fn tool(address: impl Into<IpAddr>) -> Caller {
    Caller { agent: "python-requests/2.32".into(), ..client(address) }
}

/// Somebody at home in a city.
fn at_home(city: City) -> Caller {
    client(places::address(city.homes, 7))
}

impl Scene {
    /// Lets seconds pass.
    fn wait(&mut self, seconds: u64) {
        self.at += seconds * SECOND;
    }

    /// Goes to an hour of the day that is so many days after today, UTC.
    fn go_to(&mut self, day: u64, hour: u64) {
        self.at = START - START % DAY + day * DAY + hour * 3600 * SECOND;
    }

    /// One exchange with the shop's orders service, answered after 20 ms.
    fn call(&mut self, who: &Caller, call: Call, status: u16) {
        self.call_at(Service::Orders, who, call, &Answer::of(status, 20));
    }

    /// One exchange. Time goes on with its answer.
    fn call_at(&mut self, service: Service, who: &Caller, call: Call, answer: &Answer) {
        self.at = self.script.call(self.at, who, service, call, answer) + SECOND / 100;
    }

    /// `GET` with a token.
    fn get(&mut self, who: &Caller, path: impl Into<String>, token: &str, status: u16) {
        self.call(who, Call::get(path).token(token), status);
    }

    /// `GET` without one.
    fn stranger(&mut self, who: &Caller, path: &str, status: u16) {
        self.call(who, Call::get(path), status);
    }

    /// A login.
    fn login(&mut self, who: &Caller, account: &str, status: u16) {
        let body = format!(r#"{{"username":"{account}","password":"of no importance"}}"#);
        self.call_at(Service::Idp, who, Call::post("/login", body), &Answer::of(status, 20));
    }

    /// Claims of a good token that is issued now and lives for an hour.
    fn claims(&mut self, subject: &str) -> Value {
        self.claims_for(subject, 3600)
    }

    fn claims_for(&mut self, subject: &str, life_s: i64) -> Value {
        self.serial += 1;
        let now = i64::try_from(self.at / SECOND).unwrap_or_default();
        let mut claims = self.mint.claims(subject);
        for (member, value) in [("iat", now), ("nbf", now), ("exp", now + life_s)] {
            set(&mut claims, member, json!(value));
        }
        set(&mut claims, "jti", json!(format!("id-{}", self.serial)));
        claims
    }

    /// Signs claims as the issuer does.
    fn sign(&self, claims: &Value) -> Result<String> {
        self.mint.rs256(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}), claims)
    }

    /// A good token that lives for an hour.
    fn token(&mut self, subject: &str) -> Result<String> {
        let claims = self.claims(subject);
        self.sign(&claims)
    }

    /// A good token that lives for twelve hours.
    fn long_token(&mut self, subject: &str) -> Result<String> {
        let claims = self.claims_for(subject, 12 * 3600);
        self.sign(&claims)
    }

    /// A token that the service refuses, on a route that refuses strangers.
    fn refused(&mut self, token: &str) {
        let who = client([10, 0, 3, 7]);
        self.stranger(&who, "/orders/7", 401);
        self.get(&who, "/orders/7", token, 401);
    }

    /// One that it accepts.
    fn accepted(&mut self, who: &Caller, token: &str) {
        self.stranger(who, "/orders/7", 401);
        self.get(who, "/orders/7", token, 200);
    }

    fn set(&mut self, pointer: &str, value: Value) {
        self.config.set(pointer, value);
    }

    /// What routes of the lab's shop are for.
    fn tag(&mut self, matching: &str, kind: &str) {
        self.set("/routes", json!([{"match": matching, "kind": kind}]));
    }

    /// Places of addresses.
    fn with_places(&mut self) -> Result<()> {
        for (name, bytes) in [("city", places::city_database()), ("asn", places::asn_database())] {
            let file = self.dir.join(name).with_extension("mmdb");
            std::fs::write(&file, bytes)?;
            self.set(&format!("/geo/{name}"), json!(file));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_one_case() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.rule).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn captures_of_rules_are_the_same_every_time() {
        let dir = tempfile::tempdir().unwrap();
        for case in CASES {
            let make = || case.make(dir.path()).unwrap().1;
            assert_eq!(make(), make(), "{}", case.rule);
        }
    }
}
