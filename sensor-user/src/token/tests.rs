//! The stage as a whole: caching, floods, keys that come late, verdicts that come late.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::facts::{Fingerprint, Form, Proof};
use super::forge::{self, Signer, claims};
use super::keys::KeyRing;
use super::settings::Algorithm;
use super::*;
use crate::capture::{Endpoints, Origin, SocketId, Time};
use crate::http::exchange::{Exchange, Header, RequestHead};

const AT: Time = Time::from_secs(1_750_000_000);

/// A request with these headers, from a client whose address ends in `client`.
pub(super) fn exchange(client: u8, headers: &[(&str, &str)]) -> Exchange {
    let mut request = RequestHead { minor_version: 1, ..RequestHead::default() };
    let put = |bytes: &mut Vec<u8>, text: &str| {
        let from = u32::try_from(bytes.len()).unwrap();
        bytes.extend_from_slice(text.as_bytes());
        from..u32::try_from(bytes.len()).unwrap()
    };
    request.method = put(&mut request.bytes, "GET");
    request.target = put(&mut request.bytes, "/orders/1");
    for (name, value) in headers {
        let (name, value) = (put(&mut request.bytes, name), put(&mut request.bytes, value));
        request.headers.push(Header { name, value });
    }
    let client = Ipv4Addr::new(10, 0, 0, client);
    let endpoints = Endpoints { client: (client, 40_000).into(), server: ([10, 0, 1, 1], 80).into() };
    Exchange::begun(AT, SocketId(1), endpoints, Origin::default(), request)
}

fn bearer(token: &str) -> Exchange {
    exchange(1, &[("Authorization", &format!("Bearer {token}"))])
}

fn in_step(settings: &TokenSettings) -> Tokens {
    Tokens::new(settings, Box::new(InStep::new(settings))).unwrap()
}

fn found(tokens: &mut Tokens, exchange: &Exchange, at: Time) -> SmallVec<[TokenUse; 1]> {
    let shown = tokens.read(exchange);
    tokens.find(&shown, exchange, at)
}

fn one(tokens: &mut Tokens, token: &str, at: Time) -> Arc<Token> {
    let uses = found(tokens, &bearer(token), at);
    assert_eq!(uses.len(), 1);
    Arc::clone(&uses[0].token)
}

#[test]
fn judges_a_token_once_and_hands_it_out_again() {
    let signer = Signer::shared(Algorithm::RS256);
    let mut tokens = in_step(&forge::settings(vec![signer.issuer()]));
    tokens.keys_changed(signer.ring(), AT);
    let text = signer.token("alice");
    let first = one(&mut tokens, &text, AT);
    let again = one(&mut tokens, &text, AT);
    assert!(Arc::ptr_eq(&first, &again));
    assert!(first.is_verified());
    assert_eq!(first.subject.as_deref(), Some("alice"));
    assert_eq!(first.id.as_ref().map(facts::Id::text).as_deref(), Some("j-alice"));
    assert_eq!(first.issuer.as_deref(), Some(forge::ISSUER));
    assert_eq!(
        (first.form, first.length as usize, first.expires.get()),
        (Form::Jws, text.len(), Some(4_000_000_000))
    );
    let counters = tokens.counters();
    assert_eq!((counters.uses, counters.hits, counters.misses, counters.verified), (2, 1, 1, 1));
    assert_eq!((counters.cached, counters.issuers_ready, counters.pending_bytes), (1, 1, 0));
}

#[test]
fn one_input_with_two_signatures_and_one_signature_with_two_inputs_can_be_told() {
    let signer = Signer::shared(Algorithm::RS256);
    let mut tokens = in_step(&forge::settings(vec![signer.issuer()]));
    let text = signer.token("alice");
    let (input, signature) = text.rsplit_once('.').unwrap();
    let (head, _) = input.split_once('.').unwrap();
    let payload = jose::base64::encode(claims("admin").as_bytes());
    let good = one(&mut tokens, &text, AT);
    let tampered = one(&mut tokens, &format!("{head}.{payload}.{signature}"), AT);
    assert_eq!(good.signature_hash, tampered.signature_hash);
    assert_ne!(good.input_hash, tampered.input_hash);
    let resigned = one(&mut tokens, &format!("{input}.{}", jose::base64::encode(&[1; 256])), AT);
    assert_eq!(good.input_hash, resigned.input_hash);
    assert_ne!(good.signature_hash, resigned.signature_hash);
    assert_eq!(one(&mut tokens, "opaque-reference", AT).signature_hash, 0);
}

#[test]
fn fingerprints_depend_on_the_configured_key_only() {
    let settings =
        |key: &[u8]| TokenSettings { fingerprint_key: Some(key.to_vec().into()), ..TokenSettings::default() };
    let name = |key: &[u8]| one(&mut in_step(&settings(key)), "abc", AT).fingerprint;
    assert_eq!(name(b"key"), name(b"key"));
    assert_ne!(name(b"key"), name(b"other"));
    assert_ne!(name(b"key"), Fingerprint::default());
}

#[test]
fn ambiguous_requests_mark_the_use_and_not_the_token() {
    let mut tokens = in_step(&TokenSettings::default());
    let both = exchange(1, &[("Authorization", "Bearer a"), ("Authorization", "Bearer b")]);
    let uses = found(&mut tokens, &both, AT);
    assert_eq!(uses.len(), 2);
    assert!(uses.iter().all(|u| u.token.flaws.intersects(facts::Flaws::AMBIGUOUS_CARRIER)));
    assert!(one(&mut tokens, "a", AT).flaws.is_empty());
    assert_eq!(tokens.counters().ambiguous, 1);
}

#[test]
fn tokens_before_keys_are_judged_when_the_keys_come() {
    let signer = Signer::shared(Algorithm::ES256);
    let mut tokens = in_step(&forge::settings(vec![signer.issuer()]));
    let (good, text) = (signer.token("alice"), signer.token("bob"));
    let forged = format!("{}AAAA", &text[..text.len() - 4]);
    assert_eq!(one(&mut tokens, &good, AT).signature, Signature::Unchecked(Unchecked::KeysPending));
    assert_eq!(one(&mut tokens, &forged, AT).signature, Signature::Unchecked(Unchecked::KeysPending));
    assert!(tokens.counters().pending_bytes > 0);
    let settled = tokens.keys_changed(signer.ring(), AT);
    let verdicts: Vec<_> =
        settled.iter().map(|token| (token.subject.as_deref().unwrap(), token.signature)).collect();
    assert_eq!(verdicts, [("alice", Signature::Verified), ("bob", Signature::Invalid)]);
    assert!(one(&mut tokens, &good, AT).is_verified());
    assert_eq!(tokens.counters().pending_bytes, 0);
}

#[test]
fn an_unknown_key_is_asked_for_and_judged_after_rotation() {
    let (old, new) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let new = new.named("rotated");
    let mut tokens = in_step(&forge::settings(vec![old.issuer()]));
    tokens.keys_changed(old.ring(), AT);
    let old_text = old.token("old");
    assert!(one(&mut tokens, &old_text, AT).is_verified());
    let text = new.token("alice");
    assert_eq!(one(&mut tokens, &text, AT).signature, Signature::Unchecked(Unchecked::KeyUnknown));
    let wanted: Vec<_> = tokens.take_wanted().collect();
    assert_eq!(wanted, [Wanted { issuer: 0, kid: "rotated".into() }]);
    let settled = tokens.keys_changed(new.ring(), AT);
    assert!(settled.len() == 1 && settled[0].is_verified());
    assert!(one(&mut tokens, &old_text, AT).is_verified(), "a verdict outlives the key's withdrawal");
    let later = one(&mut tokens, &old.token("later"), AT);
    assert_eq!(
        later.signature,
        Signature::Unchecked(Unchecked::KeyWithdrawn),
        "applications may hold on to it"
    );
}

#[test]
fn a_key_id_that_nobody_has_refutes_the_token_once_keys_were_looked_at() {
    let (signer, forger) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let forger = forger.named("made-up");
    let mut tokens = in_step(&forge::settings(vec![signer.issuer()]));
    tokens.keys_changed(signer.ring(), AT);
    let text = forger.token("alice");
    assert_eq!(one(&mut tokens, &text, AT).signature, Signature::Unchecked(Unchecked::KeyUnknown));
    let settled = tokens.keys_changed(Arc::new(signer.ring().with_look(0)), AT);
    assert_eq!(settled.iter().map(|token| token.signature).collect::<Vec<_>>(), [Signature::Invalid]);
    assert_eq!(one(&mut tokens, &text, AT).signature, Signature::Invalid);
    assert_eq!(
        one(&mut tokens, &forger.token("bob"), AT).signature,
        Signature::Invalid,
        "known to be absent"
    );
    assert!(one(&mut tokens, &signer.token("carol"), AT).is_verified());
}

#[test]
fn a_run_with_one_set_of_keys_waits_for_no_other() {
    let (signer, forger) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let mut tokens = in_step(&forge::settings(vec![signer.issuer()]));
    tokens.keys_changed(Arc::new(KeyRing::clone(&signer.ring()).for_good()), AT);
    assert_eq!(one(&mut tokens, &forger.named("made-up").token("x"), AT).signature, Signature::Invalid);
}

#[test]
fn what_an_issuer_published_before_a_restart_is_not_refuted_after_it() {
    let (old, new) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let new = new.named("rotated");
    let mut first = in_step(&forge::settings(vec![old.issuer()]));
    first.keys_changed(old.ring(), AT);
    let mut second = in_step(&forge::settings(vec![old.issuer()]));
    second.resume_published(&first.published_keys());
    second.keys_changed(Arc::new(KeyRing::clone(&new.ring()).for_good()), AT);
    let verdict = one(&mut second, &old.token("alice"), AT).signature;
    assert_eq!(verdict, Signature::Unchecked(Unchecked::KeyWithdrawn));
}

#[test]
fn an_invalid_verdict_is_taken_again_after_rotation() {
    let (old, new) = (Signer::shared(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let mut tokens = in_step(&forge::settings(vec![old.issuer()]));
    tokens.keys_changed(old.ring(), AT);
    let text = new.token("alice");
    assert_eq!(one(&mut tokens, &text, AT).signature, Signature::Invalid, "same kid, other key");
    tokens.keys_changed(new.ring(), AT);
    assert!(one(&mut tokens, &text, AT).is_verified());
}

#[test]
fn made_up_key_ids_cannot_crowd_out_tokens_that_wait_for_keys() {
    let signer = Signer::shared(Algorithm::HS256);
    let mut issuers = vec![signer.issuer(), signer.issuer()];
    issuers[1].issuer = "https://other.example/".into();
    let settings = TokenSettings { max_pending_bytes: 20_000, ..forge::settings(issuers) };
    let mut tokens = in_step(&settings);
    let ring = KeyRing::empty(2).with_keys(
        0,
        keys::KeySet::read(signer.jwks().as_bytes(), &[Algorithm::HS256]).unwrap().keys,
        None,
    );
    tokens.keys_changed(Arc::new(ring), AT);
    for at in 0..1000 {
        let header = format!(r#"{{"alg":"HS256","kid":"made-up-{at}"}}"#);
        one(&mut tokens, &signer.token_with(&header, &claims("x")), AT);
    }
    assert!(tokens.counters().pending_bytes <= 10_000 && tokens.counters().over_budget > 900);
    assert!(tokens.take_wanted().count() <= 64);
    let waiting = signer.token_with(&signer.header(), r#"{"iss":"https://other.example/"}"#);
    assert_eq!(one(&mut tokens, &waiting, AT).signature, Signature::Unchecked(Unchecked::KeysPending));
    // After a quarter of an hour nobody waits any more.
    let later = AT.plus(Duration::from_mins(16));
    one(&mut tokens, &signer.token_with(r#"{"alg":"HS256","kid":"n"}"#, &claims("x")), later);
    assert!(tokens.counters().pending_bytes < 1_000);
}

#[test]
fn a_flood_of_forgeries_leaves_memory_bounded_and_verified_tokens_cached() {
    // A million in release, where it takes seconds.
    let flood = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let signer = Signer::shared(Algorithm::HS256);
    let settings = TokenSettings { max_tokens: 2_000, ..forge::settings(vec![signer.issuer()]) };
    let mut tokens = in_step(&settings);
    tokens.keys_changed(signer.ring(), AT);
    let good = signer.token("alice");
    assert!(one(&mut tokens, &good, AT).is_verified());
    let (input, _) = good.rsplit_once('.').unwrap();
    for forgery in 0u64..flood {
        let signature = jose::base64::encode(&[&[7; 24][..], &forgery.to_be_bytes()].concat());
        assert_eq!(one(&mut tokens, &format!("{input}.{signature}"), AT).signature, Signature::Invalid);
    }
    let before = tokens.counters();
    assert!(before.cached <= 2_000 && before.pending_bytes == 0);
    assert!(one(&mut tokens, &good, AT).is_verified());
    assert_eq!(tokens.counters().hits, before.hits + 1);
}

/// Runs what the pool has queued, in this thread.
fn work_off(workers: &Workers, count: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if count > 0 {
        workers.run(|verdict| {
            verdicts.push(verdict);
            verdicts.len() < count
        });
    }
    verdicts
}

#[test]
fn pooled_verdicts_come_later() {
    let signer = Signer::shared(Algorithm::ES256);
    let settings = forge::settings(vec![signer.issuer()]);
    let (pooled, workers) = pool(&settings, 16);
    let mut tokens = Tokens::new(&settings, Box::new(pooled)).unwrap();
    tokens.keys_changed(signer.ring(), AT);
    let text = signer.token("alice");
    let first = one(&mut tokens, &text, AT);
    assert_eq!(first.signature, Signature::Unchecked(Unchecked::Pending));
    assert!(first.policy.is_some_and(|policy| policy.issuer_known));
    assert!(Arc::ptr_eq(&first, &one(&mut tokens, &text, AT)), "queued once");
    let verdicts = work_off(&workers, 1);
    let settled: Vec<_> = verdicts.into_iter().filter_map(|verdict| tokens.settle(verdict, AT)).collect();
    assert!(settled.len() == 1 && settled[0].is_verified());
    assert_eq!(settled[0].fingerprint, first.fingerprint);
    assert!(one(&mut tokens, &text, AT).is_verified());
    let unasked = Verdict::new(
        Fingerprint([9; 16]),
        verify::Judgement { signature: Signature::Verified, policy: None, proof: None },
    );
    assert!(tokens.settle(unasked, AT).is_none());
}

#[test]
fn pooled_work_beyond_the_budget_is_counted_and_tried_again() {
    let signer = Signer::shared(Algorithm::HS256);
    let settings = TokenSettings { verifications_per_s: 40, ..forge::settings(vec![signer.issuer()]) };
    let (pooled, workers) = pool(&settings, 16);
    let mut tokens = Tokens::new(&settings, Box::new(pooled)).unwrap();
    tokens.keys_changed(signer.ring(), AT);
    let texts: Vec<_> = (0..30).map(|at| signer.token(&format!("s{at}"))).collect();
    for text in &texts {
        one(&mut tokens, text, AT);
    }
    let counters = tokens.counters();
    assert_eq!((counters.queued, counters.over_budget), (10, 20), "a quarter for one client");
    assert_eq!(one(&mut tokens, &texts[29], AT).signature, Signature::Unchecked(Unchecked::OverBudget));
    for verdict in work_off(&workers, 10) {
        assert!(tokens.settle(verdict, AT).is_some_and(|token| token.is_verified()));
    }
    let later = AT.plus(Duration::from_secs(2));
    assert_eq!(one(&mut tokens, &texts[29], later).signature, Signature::Unchecked(Unchecked::Pending));
}

#[test]
fn pooled_tokens_before_keys_are_worked_off_as_the_budget_allows() {
    let signer = Signer::shared(Algorithm::HS256);
    let settings = TokenSettings { verifications_per_s: 40, ..forge::settings(vec![signer.issuer()]) };
    let (pooled, workers) = pool(&settings, 100);
    let mut tokens = Tokens::new(&settings, Box::new(pooled)).unwrap();
    for at in 0..30 {
        one(&mut tokens, &signer.token(&format!("s{at}")), AT);
    }
    assert!(tokens.keys_changed(signer.ring(), AT).is_empty());
    let mut settled = 0;
    for second in 0..10 {
        let now = AT.plus(Duration::from_secs(second));
        tokens.resume(now);
        let queued = usize::try_from(tokens.counters().queued).unwrap();
        for verdict in work_off(&workers, queued - settled) {
            assert!(tokens.settle(verdict, now).is_some_and(|token| token.is_verified()));
            settled += 1;
        }
    }
    assert_eq!((settled, tokens.counters().pending_bytes), (30, 0));
}

#[test]
fn tokens_of_nobody_are_still_examined() {
    let mut tokens = in_step(&TokenSettings::default());
    let weak = Signer::hmac(Algorithm::HS256, b"secret");
    let token = one(&mut tokens, &weak.token("alice"), AT);
    assert_eq!(token.signature, Signature::Unchecked(Unchecked::NoIssuer));
    assert!(matches!(token.proof(), Some(Proof::WeakSecret(_))));
    assert_eq!(token.policy, None);
    let opaque = one(&mut tokens, "d41d8cd98f00b204e9800998ecf8427e", AT);
    assert_eq!((opaque.form, opaque.signature), (Form::Opaque, Signature::Unchecked(Unchecked::Unreadable)));
}

/// A stage that asks a deny list, and the issuer of `signer`.
fn asking(signer: &Signer) -> Tokens {
    let mut issuer = signer.issuer();
    let url = "https://idp.example/introspect".to_owned();
    issuer.introspection = Some(settings::Introspection { url, client: String::new(), secret: None });
    let address = "127.0.0.1:6379".to_owned();
    let pattern = "blacklist:{jti}".to_owned();
    let list = settings::DenyList { address, user: None, password: None, database: 0, pattern };
    let revocation = settings::RevocationSettings {
        list: Some(list),
        per_s: 5,
        ..settings::RevocationSettings::default()
    };
    let mut tokens = in_step(&TokenSettings { revocation, ..forge::settings(vec![issuer]) });
    tokens.keys_changed(signer.ring(), AT);
    tokens
}

fn at(token: &str, secs: u64) -> Exchange {
    Exchange { at: AT.plus(Duration::from_secs(secs)), ..bearer(token) }
}

fn standing(tokens: &mut Tokens, text: &str, secs: u64) -> Standing {
    let exchange = at(text, secs);
    found(tokens, &exchange, exchange.at)[0].token.standing
}

fn answer(fingerprint: Fingerprint, standing: Option<Standing>) -> Answer {
    Answer { fingerprint, standing, expires: None }
}

#[test]
fn a_token_is_asked_about_once_and_again_when_the_answer_is_old() {
    let signer = Signer::shared(Algorithm::ES256);
    let mut tokens = asking(signer);
    let text = signer.token("alice");
    assert_eq!(standing(&mut tokens, &text, 0), Standing::Asked);
    assert_eq!(standing(&mut tokens, &text, 1), Standing::Asked);
    let inquiry = tokens.next_inquiry().unwrap();
    assert!(tokens.next_inquiry().is_none(), "asked once");
    assert_eq!(inquiry.id.as_deref(), Some("j-alice"));
    assert_eq!(inquiry.introspect.as_ref().map(|(_, text)| text.len()), Some(text.len()));
    assert!(!format!("{inquiry:?}").contains(&text[..20]));
    let name = inquiry.fingerprint;
    assert_eq!(tokens.answered(&answer(name, Some(Standing::Good))).unwrap().standing, Standing::Good);
    assert!(tokens.answered(&answer(name, Some(Standing::Listed))).is_none(), "nobody asked");
    assert_eq!(standing(&mut tokens, &text, 59), Standing::Good);
    assert_eq!(standing(&mut tokens, &text, 60), Standing::Good, "the old answer holds until the new one");
    let again = tokens.next_inquiry().unwrap();
    tokens.answered(&answer(again.fingerprint, Some(Standing::Listed)));
    let exchange = at(&text, 61);
    let token = &found(&mut tokens, &exchange, exchange.at)[0].token;
    assert!(token.standing == Standing::Listed && token.was_good);
    let counted = tokens.inquiries();
    assert_eq!((counted.asked, counted.good, counted.bad), (2, 1, 1));
}

#[test]
fn silence_is_no_answer_and_is_asked_again_later() {
    let signer = Signer::shared(Algorithm::ES256);
    let mut tokens = asking(signer);
    let text = signer.token("alice");
    standing(&mut tokens, &text, 0);
    let name = tokens.next_inquiry().unwrap().fingerprint;
    assert_eq!(tokens.answered(&answer(name, None)).unwrap().standing, Standing::Unknown);
    assert_eq!(standing(&mut tokens, &text, 30), Standing::Unknown);
    assert_eq!(standing(&mut tokens, &text, 60), Standing::Asked);
    assert_eq!(tokens.inquiries().unanswered, 1);
}

#[test]
fn forged_and_foreign_tokens_are_not_worth_a_question_and_floods_are_bounded() {
    let signer = Signer::shared(Algorithm::ES256);
    let mut tokens = asking(signer);
    let text = signer.token("alice");
    let forged = format!("{}AAAA", &text[..text.len() - 4]);
    for nothing in [&*forged, "an-opaque-reference", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."] {
        assert_eq!(standing(&mut tokens, nothing, 0), Standing::Unknown, "{nothing}");
    }
    let asked =
        (0..100).filter(|n| standing(&mut tokens, &signer.token(&format!("s{n}")), 1) == Standing::Asked);
    assert_eq!(asked.count(), 5, "as many as the budget allows");
    assert!(tokens.inquiries().skipped >= 95);
}

#[test]
fn replay_asks_nobody() {
    let signer = Signer::shared(Algorithm::ES256);
    let mut issuer = signer.issuer();
    let url = "https://idp.example/introspect".to_owned();
    issuer.introspection = Some(settings::Introspection { url, client: String::new(), secret: None });
    let settings = forge::settings(vec![issuer]).without_inquiries();
    let mut tokens = in_step(&settings);
    tokens.keys_changed(signer.ring(), AT);
    assert_eq!(standing(&mut tokens, &signer.token("alice"), 0), Standing::Unknown);
    assert!(tokens.next_inquiry().is_none() && ask::Asker::new(&settings).unwrap().is_none());
}

#[test]
fn a_token_is_at_most_as_large_as_its_parts_must_be() {
    assert!(size_of::<Token>() <= 384, "{}", size_of::<Token>());
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let signer = Signer::shared(Algorithm::HS256);
    let settings = forge::settings(vec![signer.issuer()]);
    let mut tokens = in_step(&settings);
    let text = signer.token("alice");
    let token = one(&mut tokens, &text, AT);
    let shown = format!("{token:?} {tokens:?} {:?}", signer.ring());
    for part in text.split('.') {
        assert!(!shown.contains(part));
    }
}

#[test]
fn the_status_of_verified_tokens_is_asked_where_their_issuer_publishes_lists() {
    let signer = Signer::shared(Algorithm::ES256);
    let claims = |status: &str| {
        format!(
            r#"{{"iss":"{}","sub":"a","aud":"orders-api","exp":4000000000,"status":{status}}}"#,
            forge::ISSUER
        )
    };
    let place = r#"{"status_list":{"idx":7,"uri":"https://idp.example/lists/1"}}"#;
    let text = signer.token_with(&signer.header(), &claims(place));
    let stage = |places: &[&str]| {
        let status_lists =
            places.iter().map(|place| settings::StatusSource::Below((*place).to_owned())).collect();
        let mut tokens =
            in_step(&forge::settings(vec![settings::Issuer { status_lists, ..signer.issuer() }]));
        tokens.keys_changed(signer.ring(), AT);
        tokens
    };
    let mut tokens = stage(&["https://idp.example/lists/"]);
    assert_eq!(standing(&mut tokens, &text, 0), Standing::Asked);
    let inquiry = tokens.next_inquiry().unwrap();
    let asked = inquiry.status.unwrap();
    assert_eq!((asked.issuer, &*asked.status.uri, asked.status.index), (0, "https://idp.example/lists/1", 7));
    assert!(inquiry.introspect.is_none(), "the token stays here");
    let revoked = answer(inquiry.fingerprint, Some(Standing::Inactive));
    assert_eq!(tokens.answered(&revoked).unwrap().standing, Standing::Inactive);
    let forged = format!("{}AAAA", &text[..text.len() - 4]);
    assert_eq!(standing(&mut tokens, &forged, 1), Standing::Unknown);
    for odd in [
        "5",
        "{}",
        r#"{"status_list":[]}"#,
        r#"{"status_list":{"idx":-1,"uri":"https://idp.example/lists/1"}}"#,
        r#"{"status_list":{"idx":1.5,"uri":"https://idp.example/lists/1"}}"#,
        r#"{"status_list":{"idx":1}}"#,
        &format!(r#"{{"status_list":{{"idx":1,"uri":"https://idp.example/lists/{}"}}}}"#, "x".repeat(300)),
    ] {
        let text = signer.token_with(&signer.header(), &claims(odd));
        assert_eq!(standing(&mut tokens, &text, 2), Standing::Unknown, "{odd}");
    }
    assert_eq!(standing(&mut stage(&[]), &text, 0), Standing::Unknown, "not configured");
    let mut tokens = stage(&["https://idp.example/lists/"]);
    let many = (0..300).filter(|n| {
        let place = place.replace("\"idx\":7", &format!("\"idx\":{n}"));
        let text = signer.token_with(&signer.header(), &claims(&place));
        standing(&mut tokens, &text, 1) == Standing::Asked
    });
    assert_eq!(many.count(), 300, "the budget of those who are far away does not count");
}
