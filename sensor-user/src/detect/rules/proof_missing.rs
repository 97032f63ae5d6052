//! `proof-missing`: a token that is bound to a key or certificate, shown without a proof of it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::detect::cause::cause;
use crate::detect::challenge::asks_for_nonce;
use crate::detect::roster::stable_hash;
use crate::detect::statement::{Statement, Subject};
use crate::detect::table::Table;
use crate::detect::{
    About, Case, Column, DetectSettings, Memory, Needs, Report, Rule, Severity, Slot, Threshold, When,
};
use crate::token::TokenUse;
use crate::token::certificate::{self, Shown};
use crate::token::dpop::{self, Demand, Fault, Proof};
use crate::token::facts::KeyBound;

/// The card.
pub static ABOUT: About = About {
    id: "proof-missing",
    title: "Bound token without its proof",
    version: "1.1.0",
    severity: Severity::High,
    accepted: None,
    attack: &["T1550.001"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token that is bound to a key (`cnf.jkt`) comes without a `DPoP` header, or with a proof that \
is for another key, token, method or URL, is not signed by its key, was used before at the same service, or is out of \
date (medium). Also fires when a token that is bound to a certificate (`cnf.x5t#S256`, RFC 8705) comes with another \
one, as `http.certificate_headers` tell.\n\nA bound token is worth nothing without its key: whoever shows it alone \
has stolen it, and a service that takes it does not check (RFC 9449 section 7).\n\nBenign source: a gateway that \
checks proofs and does not pass them on. So a missing proof is high only at a service that was seen to get good ones, \
and medium elsewhere. Prefixes that gateways put before paths are allowed for; another host counts only after 20 good \
proofs in a row whose host was right. A server that wants a nonce of its own in the proof answers the first one with \
401 and `use_dpop_nonce`, or 400: that is no failure, such a proof may come again, and where a server gives nonces a \
proof with one may bear any date (RFC 9449 section 11.1).\n\nThe certificate is seen only where the proxy that ends \
TLS passes it on in clear text, and is believed there as the application believes it. Without the header there is no \
verdict: the proxy may not have been in between. So a thief who brings no certificate at all is not seen here.\n\nAt \
most 200 signatures a second are verified (a tenth of a millisecond each); beyond it, proofs are read and not \
verified. Remembers the ids of 65,536 proofs (40 bytes), 8 bytes a service, and 12 a token where certificates are \
looked at.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "window_s",
            default: 300.0,
            min: 1.0,
            max: 86_400.0,
            doc: "Seconds that a proof's `iat` may be off.",
        },
        Threshold {
            key: "verifications_per_s",
            default: 200.0,
            min: 0.0,
            max: 100_000.0,
            doc: "Signatures of proofs that are verified in a second of the data's time.",
        },
    ],
};

/// Ids of proofs remembered: five minutes of 200 bound requests a second. A flood can only push out older ids.
const MAX_IDS: usize = 65_536;

/// Proofs in a row after which a service is known to be called by the name that clients use.
const HOSTS_AGREE: u8 = 20;

/// Shortest `jti`, in bytes, that tells proofs apart; RFC 9449 section 4.2 asks for 96 random bits.
const MIN_ID: usize = 4;

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(ProofMissing {
        window_s: i64::from(settings.count(&ABOUT, "window_s")),
        per_s: settings.count(&ABOUT, "verifications_per_s"),
        second: 0,
        spent: 0,
        used: Table::new(MAX_IDS),
        customs: Column::default(),
        certificates: Certificates {
            headers: settings.certificate_headers.clone(),
            same: Column::default(),
            seed: foldhash::fast::RandomState::default(),
        },
    })
}

/// What a service was seen to get.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Custom {
    proofs: bool,
    /// It gives nonces.
    nonces: bool,
    /// Good proofs in a row whose host was that of `Host`; saturates.
    same_host: u8,
}

struct ProofMissing {
    window_s: i64,
    per_s: u32,
    second: u32,
    spent: u32,
    /// Ids of proofs, with the service that got them. Not kept over a restart: the window is short.
    used: Table<u64, ()>,
    customs: Column<Custom>,
    certificates: Certificates,
}

/// Looks at the certificates that proxies pass on.
struct Certificates {
    headers: Vec<String>,
    /// Of each token the header that held its certificate, by a hash that differs from run to run.
    same: Column<u64>,
    seed: foldhash::fast::RandomState,
}

impl Certificates {
    /// Whether the request came with another certificate than this.
    fn differ(&mut self, case: &Case<'_>, token: Slot, wanted: &[u8; 32]) -> bool {
        let request = &case.exchange.request;
        let mut differ = false;
        for value in self.headers.iter().flat_map(|name| request.values(name)) {
            let hash = self.seed.hash_one(value).max(1);
            if *self.same.of(token) == hash {
                return false;
            }
            match certificate::look(value, wanted) {
                Shown::Same => {
                    *self.same.of(token) = hash;
                    return false;
                }
                Shown::Other => differ = true,
                Shown::Nothing => {}
            }
        }
        differ
    }
}

/// What is wrong with a use of a bound token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Missing,
    Faulty(Fault),
    OtherCertificate,
}

impl ProofMissing {
    fn look(&mut self, case: &Case<'_>, bound: &KeyBound) -> Option<Wrong> {
        let request = &case.exchange.request;
        let mut proofs = request.values("dpop");
        let Some(text) = proofs.next() else { return Some(Wrong::Missing) };
        if proofs.next().is_some() {
            return Some(Wrong::Faulty(Fault::NoProof)); // RFC 9449 section 4.3: exactly one.
        }
        let nonces = self.customs.peek(case.who.service.slot).is_some_and(|custom| custom.nonces);
        let demand = Demand { bound, request, at: case.exchange.at, window_s: self.window_s, nonces };
        let parts = dpop::parts(text);
        match Proof::read(&parts, &demand) {
            Ok(proof) => self.weigh(case, &proof).map(Wrong::Faulty),
            // A server gives nonces because it does not trust its clients' clocks.
            Err(Fault::Stale) if asks_for_nonce(case.exchange) => None,
            Err(fault) => Some(Wrong::Faulty(fault)),
        }
    }

    fn judge_one(&mut self, case: &Case<'_>, held: &TokenUse, bound: &KeyBound) -> Option<Wrong> {
        if bound.thumbprint.is_some()
            && let Some(wrong) = self.look(case, bound)
        {
            return Some(wrong);
        }
        let token = case.who.token(held.token.fingerprint)?.slot;
        let wanted = bound.certificate.as_ref()?;
        self.certificates.differ(case, token, wanted).then_some(Wrong::OtherCertificate)
    }

    /// A proof that reads well: its signature, its host, and whether it is new.
    fn weigh(&mut self, case: &Case<'_>, proof: &Proof<'_>) -> Option<Fault> {
        if self.may_verify(case.second()) && !proof.is_signed() {
            return Some(Fault::Forged);
        }
        let service = case.who.service.slot;
        if asks_for_nonce(case.exchange) {
            return None; // It was not taken, so it may come again.
        }
        let custom = self.customs.of(service);
        let agreed = std::mem::take(&mut custom.same_host);
        if agreed >= HOSTS_AGREE && !proof.same_host {
            return Some(Fault::OtherUrl);
        }
        if !self.is_new(service, &proof.id) {
            return Some(Fault::Replayed);
        }
        if case.exchange.is_success() {
            let same_host = if proof.same_host { agreed.saturating_add(1) } else { 0 };
            let custom = self.customs.of(service);
            (custom.proofs, custom.same_host) = (true, same_host);
        }
        None
    }

    fn is_new(&mut self, service: Slot, id: &str) -> bool {
        let name = stable_hash(&(service, id));
        if self.used.get(&name).is_some() {
            return id.len() < MIN_ID;
        }
        self.used.get_or(name, || ());
        true
    }

    fn may_verify(&mut self, second: u32) -> bool {
        if second != self.second {
            (self.second, self.spent) = (second, 0);
        }
        let may = self.spent < self.per_s;
        self.spent += u32::from(may);
        may
    }
}

impl Rule for ProofMissing {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::TOKEN
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.customs)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let Some(bound) = held.token.bound() else { continue };
            if cause(&held.token).is_some() {
                continue;
            }
            if case.exchange.response.as_ref().is_some_and(|answer| answer.value("dpop-nonce").is_some()) {
                self.customs.of(case.who.service.slot).nonces = true;
            }
            let Some(wrong) = self.judge_one(case, held, bound) else { continue };
            let custom = self.customs.peek(case.who.service.slot).copied().unwrap_or_default();
            let subject = Subject::new(case, held);
            report.push(statement(&subject, wrong, custom).into_finding(&ABOUT, &subject));
        }
    }
}

fn statement(subject: &Subject<'_>, wrong: Wrong, custom: Custom) -> Statement {
    let (what, severity) = match wrong {
        Wrong::Missing if custom.proofs => ("there is no proof", Severity::High),
        Wrong::Missing => ("there is no proof", Severity::Medium),
        Wrong::Faulty(fault @ Fault::Stale) => (fault.as_str(), Severity::Medium),
        Wrong::Faulty(fault) => (fault.as_str(), Severity::High),
        Wrong::OtherCertificate => ("the client has another certificate", Severity::High),
    };
    let to = if wrong == Wrong::OtherCertificate { "certificate" } else { "key" };
    Statement {
        severity,
        confidence: if wrong == Wrong::Missing && !custom.proofs { 50 } else { 90 },
        message: format!("A token that is bound to a {to} {}, but {what}.", subject.told()),
        brief: format!("bound token, {what}"),
        facts: vec![("proof", what.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::dpop::tests::{bound, proof};
    use crate::token::forge::Signer;
    use crate::token::settings::Algorithm;
    use crate::token::{Signature, Token};

    fn signer() -> &'static Signer {
        Signer::shared(Algorithm::ES256)
    }

    fn held() -> Token {
        token(1).with_extras(|e| e.bound = Some(bound(signer())))
    }

    fn with(proof: &str) -> Stage {
        Stage::new().status(200).header("DPoP", proof)
    }

    fn severities(play: &mut Play, stage: &Stage) -> Vec<(Severity, String)> {
        play.ask(stage, [held()]).iter().map(|f| (f.severity, f.brief.clone())).collect()
    }

    #[test]
    fn good_proofs_and_unbound_tokens_are_benign() {
        let mut play = Play::new(rule(&Arc::default()));
        for id in ["first", "second", "third"] {
            assert!(severities(&mut play, &with(&proof(signer(), id, NOW_S, &[]))).is_empty());
        }
        assert!(play.ask(&Stage::new().status(200), [token(2)]).is_empty());
    }

    #[test]
    fn a_missing_proof_is_high_where_proofs_are_the_custom() {
        let mut play = Play::new(rule(&Arc::default()));
        let bare = Stage::new().status(200);
        assert_eq!(severities(&mut play, &bare)[0].0, Severity::Medium, "perhaps a gateway checks them");
        severities(&mut play, &with(&proof(signer(), "first", NOW_S, &[])));
        play.restart(rule(&Arc::default()));
        assert_eq!(severities(&mut play, &bare)[0].0, Severity::High);
    }

    #[test]
    fn a_proof_serves_once_at_a_service() {
        let mut play = Play::new(rule(&Arc::default()));
        let stage = with(&proof(signer(), "first", NOW_S, &[]));
        assert!(severities(&mut play, &stage).is_empty());
        let mut behind = stage.clone();
        behind.exchange.endpoints.server = "10.0.0.9:9090".parse().unwrap();
        assert!(severities(&mut play, &behind).is_empty(), "passed on by a gateway");
        let again = severities(&mut play, &stage);
        assert_eq!(again, [(Severity::High, "bound token, the proof was used before".to_owned())]);
    }

    #[test]
    fn faulty_proofs_are_named() {
        let mut play = Play::new(rule(&Arc::default()));
        let other = Signer::new(Algorithm::ES256);
        let good = proof(signer(), "x", NOW_S, &[]);
        let forged = format!("{}AAAA", &good[..good.len() - 4]);
        let mut brief = |text: &str| severities(&mut play, &with(text)).remove(0);
        assert_eq!(brief(&proof(&other, "a", NOW_S, &[])).1, "bound token, the proof is for another key");
        assert_eq!(brief(&forged).1, "bound token, the proof is not signed by its key");
        assert_eq!(brief("nonsense").1, "bound token, the proof cannot be read");
        assert_eq!(brief(&proof(signer(), "b", NOW_S - 301, &[])).0, Severity::Medium);
        let twice = with(&good).header("DPoP", &good);
        assert_eq!(severities(&mut play, &twice)[0].1, "bound token, the proof cannot be read");
    }

    #[test]
    fn another_host_counts_only_where_hosts_agreed_before() {
        let elsewhere =
            |id| proof(signer(), id, NOW_S, &[("htu", "https://public.example/api/orders/7".into())]);
        let mut play = Play::new(rule(&Arc::default()));
        assert!(severities(&mut play, &with(&elsewhere("first"))).is_empty());
        for n in 0..20 {
            let id = format!("good-{n}");
            assert!(severities(&mut play, &with(&proof(signer(), &id, NOW_S, &[]))).is_empty());
        }
        assert_eq!(severities(&mut play, &with(&elsewhere("third"))).len(), 1);
    }

    const NONCE: (&str, &str) = ("DPoP-Nonce", "eyJ7S_zG");
    const WHY: (&str, &str) = ("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"");

    #[test]
    fn a_server_that_asks_for_a_nonce_is_answered_with_another_proof() {
        for again in ["first", "second"] {
            let mut play = Play::new(rule(&Arc::default()));
            let bare = with(&proof(signer(), "first", NOW_S, &[])).status(401).answer_headers(&[NONCE, WHY]);
            assert!(severities(&mut play, &bare).is_empty());
            let retry = with(&proof(signer(), again, NOW_S, &[("nonce", "eyJ7S_zG".into())]));
            assert!(severities(&mut play, &retry).is_empty(), "{again}");
            assert_eq!(severities(&mut play, &retry).len(), 1, "a thief repeats it");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_no_fault_where_nonces_tell_the_time() {
        let mut play = Play::new(rule(&Arc::default()));
        let late = |id: &str, nonce: serde_json::Value| {
            with(&proof(signer(), id, NOW_S - 9000, &[("nonce", nonce)]))
        };
        assert_eq!(severities(&mut play, &late("late-a", "n".into()))[0].0, Severity::Medium, "who gave it?");
        let asked = late("late-b", serde_json::Value::Null).status(401).answer_headers(&[NONCE, WHY]);
        assert!(severities(&mut play, &asked).is_empty());
        assert!(severities(&mut play, &late("late-c", "n".into())).is_empty());
        assert_eq!(
            severities(&mut play, &late("late-d", serde_json::Value::Null)).len(),
            1,
            "without a nonce"
        );
        assert_eq!(severities(&mut play, &late("late-c", "n".into())).len(), 1, "replayed");
    }

    fn certified(own: &[u8]) -> Token {
        let hash = crate::token::hash::sha256(own);
        let bound = KeyBound { thumbprint: None, certificate: Some(hash), token_hash: [0; 32] };
        token(1).with_extras(|e| e.bound = Some(bound))
    }

    fn hex(certificate: &[u8]) -> String {
        let bytes = crate::token::hash::sha256(certificate).map(|b| format!("{b:02x}"));
        bytes.concat()
    }

    #[test]
    fn another_certificate_is_high_and_none_is_no_verdict() {
        let settings = DetectSettings {
            certificate_headers: vec!["X-Forwarded-Client-Cert".to_owned(), "X-Client-Cert".to_owned()],
            ..DetectSettings::default()
        };
        let mut play = Play::new(rule(&Arc::new(settings)));
        let mut told = |name: &str, value: &str| {
            let found = play.ask(&Stage::new().status(200).header(name, value), [certified(b"own")]);
            found.first().map(|f| (f.severity, f.brief.clone()))
        };
        let (own, other) =
            (format!("By=x;Hash={};URI=y", hex(b"own")), format!("By=x;Hash={}", hex(b"other")));
        let high = Some((Severity::High, "bound token, the client has another certificate".to_owned()));
        for _ in 0..2 {
            assert_eq!(told("x-forwarded-client-cert", &own), None);
            assert_eq!(told("X-Forwarded-Client-Cert", &other), high);
        }
        assert_eq!(told("X-Forwarded-Client-Cert", &format!("{other},{own}")), None, "two proxies");
        assert_eq!(told("X-Client-Cert", &hex(b"other")), high);
        for (name, value) in [("Accept", "*/*"), ("X-Client-Cert", "-"), ("X-Client-Cert", "")] {
            assert_eq!(told(name, value), None, "{name}: {value}");
        }
        play.restart(rule(&Arc::default()));
        let unseen = Stage::new().status(200).header("X-Client-Cert", &hex(b"other"));
        assert!(play.ask(&unseen, [certified(b"own")]).is_empty(), "not configured");
    }

    #[test]
    fn beyond_the_budget_proofs_are_read_and_not_verified() {
        let own = crate::detect::settings::RuleSettings {
            thresholds: crate::detect::Thresholds(vec![("verifications_per_s", 0.0)]),
            ..Default::default()
        };
        let settings =
            Arc::new(DetectSettings { rules: [(ABOUT.id.to_owned(), own)].into(), ..Default::default() });
        let mut play = Play::new(rule(&settings));
        let good = proof(signer(), "first", NOW_S, &[]);
        let forged = format!("{}AAAA", &good[..good.len() - 4]);
        assert!(severities(&mut play, &with(&forged)).is_empty());
    }

    #[test]
    fn leaves_forged_tokens_to_their_rules() {
        let forged = Token { signature: Signature::Invalid, ..held() };
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [forged]).is_empty());
    }
}
