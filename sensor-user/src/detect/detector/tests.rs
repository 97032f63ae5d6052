//! The detector as a whole: who names a forgery, when, and how often.

use proptest::prelude::*;

use super::*;
use crate::capture::LossKind;
use crate::detect::staging::{NOW_S, Stage, policy, token, uses};
use crate::detect::{RuleSettings, Thresholds};
use crate::token::facts::{Flaws, Proof};
use crate::token::{Policy, Purpose, Signature, Standing, Token, Unchecked};

fn judged(
    detector: &mut Detector,
    stage: &Stage,
    tokens: impl IntoIterator<Item = Token>,
) -> Vec<&'static str> {
    let mut found = Vec::new();
    detector.judge(&stage.exchange, &uses(tokens), stage.exchange.ended_at, &mut found);
    found.iter().map(|f| f.rule.id).collect()
}

fn detector() -> Detector {
    Detector::new(DetectSettings::default())
}

/// A forgery of every kind, with the one rule that names it.
fn forgeries() -> Vec<(&'static str, Token)> {
    let bad = || Token { signature: Signature::Invalid, subject: Some("mallory".into()), ..token(77) };
    let hmac = || Token {
        policy: Some(Policy { algorithm_ok: false, ..policy() }),
        ..bad().of_profile(|p| p.alg = Some("HS256".into()))
    };
    let unknown = Policy { issuer_known: false, audience_ok: true, algorithm_ok: true, ..Policy::default() };
    let kid = || Token {
        flaws: Flaws::KID_INJECTION,
        ..hmac().of_profile(|p| p.kid = Some("../../dev/null".into()))
    };
    let jwk = || Token {
        flaws: Flaws::EMBEDDED_KEY,
        policy: Some(Policy { embedded_key_ok: false, ..policy() }),
        ..bad()
    };
    let now = i64::try_from(NOW_S).unwrap();
    vec![
        (
            "alg-none",
            Token {
                flaws: Flaws::ALG_NONE,
                signature: Signature::Absent,
                expires: Some(1).into(),
                policy: Some(unknown),
                ..bad().of_profile(|p| p.alg = Some("none".into()))
            },
        ),
        (
            "psychic-signature",
            Token {
                flaws: Flaws::PSYCHIC,
                signature: Signature::Absent,
                ..bad().of_profile(|p| p.alg = Some("ES256".into()))
            },
        ),
        ("signature-invalid", bad()),
        ("alg-confusion", hmac().with_extras(|e| e.proof = Some(Proof::HmacUnderPublicKey("PEM")))),
        ("kid-injection", kid()),
        ("kid-injection", kid().with_extras(|e| e.proof = Some(Proof::HmacUnderInjectedKey("empty")))),
        ("embedded-key", jwk().with_extras(|e| e.proof = Some(Proof::OwnKey))),
        (
            "key-url",
            Token { flaws: Flaws::KEY_URL, policy: Some(Policy { key_url_ok: false, ..policy() }), ..bad() },
        ),
        (
            "weak-secret",
            Token {
                signature: Signature::Unchecked(Unchecked::NoIssuer),
                policy: None,
                ..bad()
                    .of_profile(|p| p.alg = Some("HS256".into()))
                    .with_extras(|e| e.proof = Some(Proof::WeakSecret(3)))
            },
        ),
        (
            "malformed-token",
            Token {
                flaws: Flaws::DUPLICATE_MEMBERS,
                signature: Signature::Unchecked(Unchecked::Unreadable),
                ..bad()
            },
        ),
        (
            "issuer-unknown",
            Token { policy: Some(unknown), signature: Signature::Unchecked(Unchecked::NoIssuer), ..bad() },
        ),
        ("audience-mismatch", Token { policy: Some(Policy { audience_ok: false, ..policy() }), ..token(77) }),
        ("expired-token", Token { expires: Some(now - 3600).into(), ..token(77) }),
        ("not-yet-valid", Token { not_before: Some(now + 3600).into(), ..token(77) }),
    ]
    .into_iter()
    .chain(misfits())
    .collect()
}

/// Tokens that break a rule of their making, and may be their issuer's all the same.
fn misfits() -> Vec<(&'static str, Token)> {
    let bad = || Token { signature: Signature::Invalid, subject: Some("mallory".into()), ..token(77) };
    vec![
        (
            "alg-not-allowed",
            Token {
                policy: Some(Policy { algorithm_ok: false, ..policy() }),
                ..bad().of_profile(|p| p.alg = Some("ES512".into()))
            },
        ),
        (
            "unknown-critical",
            Token {
                flaws: Flaws::UNKNOWN_CRITICAL,
                signature: Signature::Unchecked(Unchecked::Unreadable),
                ..bad()
            },
        ),
        (
            "costly-token",
            Token { flaws: Flaws::COSTLY, signature: Signature::Unchecked(Unchecked::Unreadable), ..bad() },
        ),
        (
            "type-confusion",
            Token {
                purpose: Some(Purpose::Id),
                policy: Some(Policy { type_ok: false, ..policy() }),
                ..token(77)
            },
        ),
    ]
}

#[test]
fn one_rule_names_each_forgery() {
    for (rule, token) in forgeries() {
        assert_eq!(judged(&mut detector(), &Stage::new().status(401), [token]), [rule]);
    }
}

#[test]
fn accepting_what_must_be_refused_is_told_besides() {
    for (rule, token) in forgeries() {
        let mut detector = detector();
        judged(&mut detector, &Stage::new().status(401), []);
        let found = judged(&mut detector, &Stage::new().status(200), [token]);
        let deniable = [
            "weak-secret",
            "malformed-token",
            "issuer-unknown",
            "audience-mismatch",
            "alg-not-allowed",
            "unknown-critical",
            "costly-token",
            "type-confusion",
        ]
        .contains(&rule);
        let expected = if deniable { vec![rule] } else { vec![rule, "forged-token-accepted"] };
        assert_eq!(found, expected);
    }
}

#[test]
fn a_stranger_who_comes_later_reveals_the_acceptance() {
    let (_, forged) = forgeries().swap_remove(2);
    let mut detector = detector();
    assert_eq!(judged(&mut detector, &Stage::new().status(200), [forged]), ["signature-invalid"]);
    assert_eq!(
        judged(&mut detector, &Stage::to("GET", "/orders/8").status(401), []),
        ["forged-token-accepted"]
    );
}

#[test]
fn a_changed_token_is_told_once() {
    let mut detector = detector();
    let good = token(1);
    let changed = Token { signature: Signature::Invalid, signature_hash: good.signature_hash, ..token(2) };
    judged(&mut detector, &Stage::new().status(200), [good]);
    assert_eq!(judged(&mut detector, &Stage::new().status(401), [changed]), ["claims-tampered"]);
}

#[test]
fn benign_traffic_gives_nothing() {
    let mut detector = detector();
    for n in 0..20_000_u32 {
        let user = n % 97;
        let stage = Stage::to("GET", &format!("/orders/{}", user * 10 + n / 97 % 5))
            .after_ms(u64::from(n) * 7)
            .header("User-Agent", "okhttp/4.12");
        let client = format!("10.1.{}.{}", n % 2, n % 97);
        let stage = stage.client(&client).status([200, 200, 404, 201, 304, 204][(n % 6) as usize]);
        let held = Token { subject: Some(format!("user-{user}").into()), ..token(u64::from(user)) };
        assert_eq!(judged(&mut detector, &stage, [held]), [""; 0], "{n}");
        detector.tick(stage.exchange.at, &mut Vec::new());
    }
}

#[test]
fn a_late_verdict_says_what_an_early_one_would() {
    for (_, forged) in forgeries() {
        let pending = Token {
            signature: Signature::Unchecked(Unchecked::Pending),
            ..forged.clone().with_extras(|e| e.proof = None)
        };
        let stage = Stage::new().status(401);
        let early: Vec<_> = judged(&mut detector(), &stage, [forged.clone()]);
        let mut detector = detector();
        let mut late = Vec::new();
        detector.judge(&stage.exchange, &uses([pending]), stage.exchange.ended_at, &mut late);
        let fingerprint = forged.fingerprint;
        let much_later = stage.exchange.ended_at.plus(std::time::Duration::from_mins(5));
        if !late.iter().any(|f| early.contains(&f.rule.id)) {
            detector.judge_late(&stage.exchange, &uses([forged]), fingerprint, much_later, &mut late);
        }
        assert_eq!(late.iter().map(|f| f.rule.id).collect::<Vec<_>>(), early);
        assert!(late.iter().all(|f| f.at == stage.exchange.ended_at), "time is the exchange's");
    }
}

#[test]
fn a_late_forgery_beside_a_good_token_was_not_accepted() {
    let mut detector = detector();
    judged(&mut detector, &Stage::new().status(401), []);
    let stage = Stage::new().status(200);
    let forged = Token { signature: Signature::Invalid, ..token(2) };
    let mut found = Vec::new();
    detector.judge_late(
        &stage.exchange,
        &uses([token(1), forged.clone()]),
        forged.fingerprint,
        stage.exchange.at,
        &mut found,
    );
    assert_eq!(
        found.iter().map(|f| (f.rule.id, f.severity)).collect::<Vec<_>>(),
        [("signature-invalid", Severity::High)]
    );
}

#[test]
fn configuration_turns_rules_off_and_fixes_severities() {
    let set = |enabled, severity| RuleSettings { enabled, severity, thresholds: Thresholds::default() };
    let rules = [("alg-none", set(false, None)), ("signature-invalid", set(true, Some(Severity::Low)))];
    let rules = rules.map(|(id, own)| (id.to_owned(), own)).into();
    let mut detector = Detector::new(DetectSettings { rules, ..DetectSettings::default() });
    let mut found = Vec::new();
    for (_, token) in
        forgeries().into_iter().filter(|(id, _)| matches!(*id, "alg-none" | "signature-invalid"))
    {
        let stage = Stage::new().status(200);
        detector.judge(&stage.exchange, &uses([token]), stage.exchange.at, &mut found);
    }
    assert_eq!(
        found.iter().map(|f| (f.rule.id, f.severity)).collect::<Vec<_>>(),
        [("signature-invalid", Severity::Low)]
    );
    assert_eq!(detector.findings().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [("signature-invalid", 1)]);
}

#[test]
fn other_knowledge_counts_from_the_next_exchange() {
    let mut detector = detector();
    let stage = Stage::new().status(200);
    assert_eq!(judged(&mut detector, &stage, [token(1)]), [""; 0]);
    let bad = || ["10.0.3.0/24".parse().unwrap()].into_iter().collect();
    let known = Knowledge { revision: 1, bad_addresses: bad(), ..Knowledge::default() };
    detector.know(Arc::new(known));
    assert_eq!(judged(&mut detector, &stage, [token(1)]), ["known-bad-address"]);
    let denied_accounts = ["alice".into()].into();
    detector.know(Arc::new(Knowledge { revision: 2, denied_accounts, ..Knowledge::default() }));
    assert_eq!(judged(&mut detector, &stage, [token(1)]), ["listed-account"]);
    detector.know(Arc::new(Knowledge { revision: 3, ..Knowledge::default() }));
    assert_eq!(judged(&mut detector, &stage.clone().after_ms(90_000), [token(1)]), [""; 0]);
}

#[test]
fn time_is_told_once_a_second() {
    let mut detector = detector();
    let mut found = Vec::new();
    let loss =
        |secs| Loss { at: Time::from_secs(secs), reason: "ring_full", records: 1, kind: LossKind::Request };
    detector.lost(&loss(100), &mut found);
    detector.lost(&loss(101), &mut found);
    detector.tick(Time::from_secs(130), &mut found);
    assert_eq!(found.len(), 1);
    detector.finish(Time::from_secs(131), &mut found);
    assert_eq!(found.len(), 2, "the end tells what was held back");
}

prop_compose! {
    /// A token that its issuer's keys verify and every policy takes, however odd its claims are.
    fn valid_token()(
        number in 0..1000_u64,
        age in 0..500_i64,
        left in prop::option::of(1..400_000_000_i64),
        issued in any::<bool>(),
        id in any::<bool>(),
        alg in prop::sample::select(vec!["RS256", "PS256", "ES256", "EdDSA", "HS256"]),
        purpose in prop::sample::select(vec![None, Some(Purpose::Access), Some(Purpose::Id)]),
        standing in prop::sample::select(vec![Standing::Unknown, Standing::Asked, Standing::Good]),
    ) -> Token {
        let now = i64::try_from(NOW_S).unwrap();
        Token { expires: left.map(|left| now + left).into(), issued: issued.then_some(now - age).into(), not_before: Some(now - age).into(), id: id.then(|| "j".into()), policy: Some(Policy { issuer_asymmetric: alg != "HS256", ..policy() }), purpose, standing, ..token(number).of_profile(|p| p.alg = Some(alg.into())) }
    }
}

proptest! {
    /// A token that is valid under its policy is at most worth a remark, wherever and however it is answered.
    #[test]
    fn a_valid_token_is_never_worth_more_than_a_remark(
        token in valid_token(),
        status in prop::sample::select(vec![200_u16, 204, 302, 401, 403, 404, 500]),
        strangers in prop::sample::select(vec![200_u16, 401]),
    ) {
        let mut detector = detector();
        let mut found = Vec::new();
        let stranger = Stage::new().status(strangers);
        detector.judge(&stranger.exchange, &[], stranger.exchange.ended_at, &mut found);
        let stage = Stage::new().status(status);
        detector.judge(&stage.exchange, &uses([token]), stage.exchange.ended_at, &mut found);
        let worst: Vec<_> =
            found.iter().filter(|f| f.severity >= Severity::Medium).map(|f| f.rule.id).collect();
        prop_assert!(worst.is_empty(), "{worst:?}");
    }

    /// Leaving out what repeats leaves out no finding.
    #[test]
    fn what_repeats_tells_nothing(
        uses in prop::collection::vec((0..40_usize, 0..3_u8, 0..4_u8, 0..6_u8, 0..1500_u64), 1..60),
    ) {
        let kinds: Vec<Token> = forgeries().into_iter().map(|(_, token)| token).collect();
        let (mut gated, mut every) = (detector(), detector());
        every.seats_mut().iter_mut().for_each(|seat| seat.when = When::EVERY);
        let mut ms = 0;
        for (number, client, route, status, gap) in uses {
            ms += gap;
            let token = kinds.get(number).cloned().unwrap_or_else(|| token(number as u64 % 4));
            let stage = Stage::to("GET", ["/orders/7", "/orders/8", "/me", "/admin"][usize::from(route)])
                .client(["10.0.3.7", "10.0.3.8", "192.0.2.1"][usize::from(client)])
                .status([200, 200, 200, 204, 401, 500][usize::from(status)])
                .after_ms(ms);
            prop_assert_eq!(
                judged(&mut gated, &stage, [token.clone()]),
                judged(&mut every, &stage, [token])
            );
        }
    }

    /// Facts about one token do not depend on what came before; and two runs say the same.
    #[test]
    fn order_does_not_matter_where_there_is_no_history(order in Just((0..18_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let forgeries = forgeries();
        let mut detector = detector();
        for number in order {
            let (rule, token) = &forgeries[number];
            let mut token = token.clone();
            token.fingerprint.0[15] = u8::try_from(number).unwrap();
            token.signature_hash = number as u64 + 1000;
            token.input_hash = number as u64 + 2000;
            let stage = Stage::new().status(404);
            prop_assert_eq!(judged(&mut detector, &stage, [token]), [*rule]);
        }
    }
}
