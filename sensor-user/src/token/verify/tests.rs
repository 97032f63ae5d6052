//! No token that a strict verifier refuses gets a valid verdict; every proof is found in every form.

use proptest::prelude::*;

use super::*;
use crate::token::forge::{self, Signer, claims};
use crate::token::jose::base64;
use crate::token::keys::{KeySet, Public};

const AT: Time = Time::from_secs(1_750_000_000);
const MAX: usize = 16 * 1024;

fn judged(text: &str, judge: &Judge, ring: &KeyRing) -> Judgement {
    let parts = Parts::of(text.as_bytes(), MAX);
    judge.judge(&parts, &parts.read(), ring, AT)
}

fn judged_by(text: &str, signer: &Signer) -> Judgement {
    judged(text, &Judge::new(vec![signer.issuer()]), &signer.ring())
}

fn is_verified(text: &str, signer: &Signer) -> bool {
    judged_by(text, signer).signature == Signature::Verified
}

/// Whether the library that we do not use to verify agrees: an oracle of our own strictness.
fn library_accepts(text: &str, signer: &Signer) -> bool {
    use jsonwebtoken as jwt;
    let key: jwt::jwk::Jwk = serde_json::from_str(&signer.jwk()).unwrap();
    let mut validation = jwt::Validation::new(signer.algorithm.as_str().parse().unwrap());
    validation.set_audience(&["orders-api"]);
    jwt::decode::<serde_json::Value>(text, &jwt::DecodingKey::from_jwk(&key).unwrap(), &validation).is_ok()
}

#[test]
fn verifies_every_algorithm_and_no_other_key() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::shared(algorithm);
        let text = signer.token("alice");
        let judgement = judged_by(&text, signer);
        assert_eq!(judgement.signature, Signature::Verified, "{algorithm:?}");
        let policy = judgement.policy.unwrap();
        assert!(policy.issuer_known && policy.audience_ok && policy.algorithm_ok && policy.type_ok);
        assert!(policy.key_url_ok && policy.embedded_key_ok);
        assert_eq!(policy.issuer_asymmetric, !algorithm.is_symmetric());
        let stranger = Signer::new(algorithm);
        assert_eq!(judged_by(&text, &stranger).signature, Signature::Invalid, "{algorithm:?}");
        if algorithm != Algorithm::ES512 {
            assert!(library_accepts(&text, signer), "{algorithm:?}");
        }
    }
}

#[test]
fn a_key_of_another_kind_refutes_and_a_disallowed_algorithm_does_not() {
    let signer = Signer::shared(Algorithm::RS256);
    let judge = Judge::new(vec![signer.issuer()]);
    for (alg, kid, expected) in [
        ("ES256", &*signer.kid, Some(Proof::OtherKindOfKey)),
        ("EdDSA", &*signer.kid, Some(Proof::OtherKindOfKey)),
        ("PS256", &*signer.kid, None),
        ("RS512", &*signer.kid, None),
        ("ES256", "another", None),
    ] {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        let judgement = judged(&signer.token_with(&header, &claims("alice")), &judge, &signer.ring());
        assert_eq!(judgement.proof, expected, "{alg} {kid}");
        assert!(judgement.policy.is_some_and(|policy| !policy.algorithm_ok));
    }
}

#[test]
fn what_a_token_is_for_is_part_of_the_policy() {
    let signer = Signer::shared(Algorithm::ES256);
    let type_ok = |types: &[&str], typ: &str, more: &str| {
        let token_types = types.iter().map(|name| (*name).to_owned()).collect();
        let judge = Judge::new(vec![Issuer { token_types, ..signer.issuer() }]);
        let header = format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#, signer.kid);
        let claims = claims("alice").replace('}', &format!("{more}}}"));
        let judgement = judged(&signer.token_with(&header, &claims), &judge, &signer.ring());
        assert_eq!(judgement.signature, Signature::Verified);
        judgement.policy.unwrap().type_ok
    };
    let id = r#","at_hash":"x""#;
    assert!(type_ok(&["JWT"], "JWT", "") && type_ok(&[], "JWT", "") && type_ok(&[], "at+jwt", ""));
    assert!(!type_ok(&["JWT"], "at+jwt", "") && !type_ok(&["at+jwt"], "JWT", ""));
    assert!(!type_ok(&["JWT"], "JWT", id) && !type_ok(&[], "JWT", id));
    assert!(type_ok(&["JWT", "ID"], "JWT", id));
    assert!(!type_ok(&["JWT", "ID"], "JWT", r#","token_use":"refresh""#));
    assert!(!type_ok(&[], "logout+jwt", "") && type_ok(&["logout+jwt"], "logout+jwt", ""));
}

#[test]
fn an_algorithm_that_the_issuer_does_not_use_is_invalid() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::shared(algorithm);
        for other in Algorithm::ALL {
            if other == algorithm {
                continue;
            }
            let header = signer.header().replace(algorithm.as_str(), other.as_str());
            let header = header.replace(&format!("kid-{}", other.as_str()), &signer.kid);
            let text = signer.token_with(&header, &claims("alice"));
            assert!(!is_verified(&text, signer), "{algorithm:?} as {other:?}");
            // Even when the issuer may use both: the key is not for it.
            let judge = Judge::new(vec![forge::issuer(&Algorithm::ALL)]);
            let set = KeySet::read(signer.jwks().as_bytes(), &Algorithm::ALL).unwrap();
            let ring = KeyRing::empty(1).with_keys(0, set.keys, None);
            assert_ne!(
                judged(&text, &judge, &ring).signature,
                Signature::Verified,
                "{algorithm:?} as {other:?}"
            );
        }
    }
}

#[test]
fn a_key_is_used_for_its_own_alg_only() {
    let signer = Signer::shared(Algorithm::RS256);
    let narrow = signer.jwk().replace(r#""use":"sig""#, r#""alg":"PS256""#);
    let set = KeySet::read(narrow.as_bytes(), &[Algorithm::RS256, Algorithm::PS256]).unwrap();
    let ring = KeyRing::empty(1).with_keys(0, set.keys, None);
    let judge = Judge::new(vec![forge::issuer(&[Algorithm::RS256, Algorithm::PS256])]);
    assert_eq!(judged(&signer.token("alice"), &judge, &ring).signature, Signature::Invalid);
}

#[test]
fn every_flipped_bit_of_a_signature_refutes_it() {
    for algorithm in
        [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256, Algorithm::RS256, Algorithm::PS256]
    {
        let signer = Signer::shared(algorithm);
        let (judge, ring) = (Judge::new(vec![signer.issuer()]), signer.ring());
        let text = signer.token("alice");
        let (input, signature) = text.rsplit_once('.').unwrap();
        let signature = base64::strict(signature.as_bytes()).unwrap();
        for at in 0..signature.len() {
            let mut flipped = signature.clone();
            flipped[at] ^= 1 << (at % 8);
            let forged = format!("{input}.{}", base64::encode(&flipped));
            assert_ne!(
                judged(&forged, &judge, &ring).signature,
                Signature::Verified,
                "{algorithm:?} byte {at}"
            );
        }
    }
}

#[test]
fn every_changed_character_refutes_a_token() {
    let signer = Signer::shared(Algorithm::ES256);
    let (judge, ring) = (Judge::new(vec![signer.issuer()]), signer.ring());
    let text = signer.token("alice");
    for at in 0..text.len() {
        for change in ["A", "_", ".", "=", " ", "\n", "\0", "+", ""] {
            if text[at..].starts_with(change) && !change.is_empty() {
                continue;
            }
            let changed = format!("{}{change}{}", &text[..at], &text[at + 1..]);
            assert_ne!(judged(&changed, &judge, &ring).signature, Signature::Verified, "{change:?} at {at}");
            let inserted = format!("{}{change}{}", &text[..at], &text[at..]);
            if inserted != text {
                assert_ne!(
                    judged(&inserted, &judge, &ring).signature,
                    Signature::Verified,
                    "{change:?} before {at}"
                );
            }
        }
    }
}

/// The order of P-256, to make `s + n` of.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn der_of(signature: &[u8]) -> Vec<u8> {
    use crate::token::keys::der::{tag, write, write_integer};
    let (r, s) = signature.split_at(signature.len() / 2);
    write(tag::SEQUENCE, &[&write_integer(r), &write_integer(s)])
}

#[test]
fn signatures_in_another_form_are_refused() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::shared(algorithm);
        let text = signer.token("alice");
        let (input, signature) = text.rsplit_once('.').unwrap();
        let good = base64::strict(signature.as_bytes()).unwrap();
        let swapped: Vec<u8> =
            good[good.len() / 2..].iter().chain(&good[..good.len() / 2]).copied().collect();
        let mut forms: Vec<Vec<u8>> = vec![
            vec![],
            good[1..].to_vec(),
            good[..good.len() - 1].to_vec(),
            good[..good.len() / 2].to_vec(),
            [&[0], &good[..]].concat(),
            [&good[..], &[0]].concat(),
            [&good[..], &good[..]].concat(),
            vec![0; good.len()],
            vec![0xff; good.len()],
            swapped,
            der_of(&good),
        ];
        if algorithm == Algorithm::ES256 {
            let mut carry = 0;
            let mut s_plus_n = good.clone();
            for at in (0..32).rev() {
                let sum = u16::from(good[32 + at]) + u16::from(P256_ORDER[at]) + carry;
                s_plus_n[32 + at] = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            forms.push(s_plus_n);
            forms.push([&P256_ORDER[..], &P256_ORDER[..]].concat());
            // Halves padded to the width of the next larger curve.
            forms.push([&[0; 16], &good[..32], &[0; 16], &good[32..]].concat());
        }
        for form in forms {
            let forged = format!("{input}.{}", base64::encode(&form));
            assert!(!is_verified(&forged, signer), "{algorithm:?} {} bytes", form.len());
        }
    }
}

#[test]
fn correctly_signed_but_not_strict_is_not_verified() {
    let signer = Signer::shared(Algorithm::RS256);
    let headers = [
        r#"{"alg":"RS256","alg":"RS256","kid":"kid-RS256"}"#,
        r#"{"alg":"RS256","kid":"kid-RS256","crit":["x"],"x":1}"#,
        r#"{"alg":"RS256","kid":"kid-RS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"RS256","kid":"kid-RS256",}"#,
        "\u{feff}{\"alg\":\"RS256\",\"kid\":\"kid-RS256\"}",
        r#"{"alg":"RS256","kid":"kid-RS256"}x"#,
        r#"{"alg":"RS256","kid":"kid-RS256","typ":5}"#,
        r#"{"alg":"rs256","kid":"kid-RS256"}"#,
        r#"{"alg":"RS256 ","kid":"kid-RS256"}"#,
        r#"{"alg":["RS256"],"kid":"kid-RS256"}"#,
        r#"{"kid":"kid-RS256"}"#,
    ];
    for header in headers {
        assert!(!is_verified(&signer.token_with(header, &claims("alice")), signer), "{header}");
    }
    let iss = forge::ISSUER;
    for payload in [
        format!(r#"{{"iss":"{iss}","sub":"a","sub":"b"}}"#),
        format!(r#"{{"iss":"{iss}","exp":"1"}}"#),
        format!(r#"{{"iss":"{iss}","exp":1e999}}"#),
        format!(r#"{{"iss":"{iss}","sub":["a"]}}"#),
        format!(r#"{{"iss":["{iss}"],"sub":"a"}}"#),
        format!(r#"{{"iss":"{iss}","x":{{"a":1,"a":2}}}}"#),
        format!(r#"{{"iss":"{iss}","sub":"a"}} {{}}"#),
        format!(r#"["{iss}"]"#),
    ] {
        assert!(!is_verified(&signer.token_with(&signer.header(), &payload), signer), "{payload}");
    }
    let long = format!(r#"{{"iss":"{iss}","sub":"{}"}}"#, "x".repeat(MAX));
    assert!(!is_verified(&signer.token_with(&signer.header(), &long), signer));
}

#[test]
fn good_tokens_of_other_shapes_are_verified() {
    let signer = Signer::shared(Algorithm::RS256);
    let iss = forge::ISSUER;
    for payload in [
        format!(r#"{{"iss":"{iss}","exp":1.5e9,"nbf":-1,"iat":0.25}}"#),
        format!(r#" {{ "iss" : "{iss}" , "aud" : [ "a", "orders-api" ] }} "#),
        format!(r#"{{"iss":"{iss}","nested":{{"a":[1,{{"b":null}}]}},"\u0073ub":"\u00e9"}}"#),
    ] {
        assert!(is_verified(&signer.token_with(&signer.header(), &payload), signer), "{payload}");
    }
    let without_kid = signer.token_with(r#"{"alg":"RS256"}"#, &claims("alice"));
    let judgement = judged_by(&without_kid, signer);
    assert_eq!(judgement.signature, Signature::Verified);
    assert!(!judgement.policy.unwrap().type_ok, "typ is absent");
}

#[test]
fn waits_for_keys_and_tells_unknown_ones() {
    let signer = Signer::shared(Algorithm::ES256);
    let judge = Judge::new(vec![signer.issuer()]);
    let unchecked = |text: &str, ring: &KeyRing| judged(text, &judge, ring).signature;
    let text = signer.token("alice");
    assert_eq!(unchecked(&text, &KeyRing::empty(1)), Signature::Unchecked(Unchecked::KeysPending));
    let failed = KeyRing::empty(1).with_failure(0);
    assert_eq!(unchecked(&text, &failed), Signature::Unchecked(Unchecked::KeysPending));
    let other = signer.token_with(r#"{"alg":"ES256","kid":"new"}"#, &claims("alice"));
    assert_eq!(unchecked(&other, &signer.ring()), Signature::Unchecked(Unchecked::KeyUnknown));
    let injected = signer.token_with(r#"{"alg":"ES256","kid":"a' or 1"}"#, &claims("alice"));
    assert_eq!(unchecked(&injected, &signer.ring()), Signature::Invalid);
    let stranger = signer.token_with(&signer.header(), r#"{"iss":"https://idp.example"}"#);
    assert_eq!(unchecked(&stranger, &signer.ring()), Signature::Unchecked(Unchecked::NoIssuer));
    assert!(!judged(&stranger, &judge, &signer.ring()).policy.unwrap().issuer_known);
    assert_eq!(judged(&text, &Judge::new(vec![]), &KeyRing::empty(0)).policy, None);
}

#[test]
fn refutes_tokens_by_their_form_alone() {
    let signer = Signer::shared(Algorithm::ES256);
    let input = |header: &str| {
        format!("{}.{}", base64::encode(header.as_bytes()), base64::encode(claims("a").as_bytes()))
    };
    let zeros = base64::encode(&[0; 64]);
    for text in [
        format!("{}.", input(r#"{"alg":"none"}"#)),
        format!("{}.{zeros}", input(r#"{"alg":"NoNe"}"#)),
        format!("{}.", input(&signer.header())),
        format!("{}.{zeros}", input(&signer.header())),
    ] {
        assert_eq!(judged_by(&text, signer).signature, Signature::Absent, "{text}");
    }
}

#[test]
fn proves_alg_confusion_in_every_form() {
    for algorithm in
        [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::ES512, Algorithm::EdDSA]
    {
        let signer = Signer::shared(algorithm);
        let ring = signer.ring();
        let forms = &ring.issuer(0).unwrap().keys[0].forms;
        assert!(forms.len() >= 8, "{}", forms.len());
        for (name, form) in forms {
            for mac in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forger = Signer::hmac(mac, form).named(&signer.kid);
                for header in [forger.header(), forger.header().replace(&signer.kid, "elsewhere")] {
                    let judgement = judged_by(&forger.token_with(&header, &claims("admin")), signer);
                    assert_eq!(judgement.signature, Signature::Invalid);
                    let Some(Proof::HmacUnderPublicKey(found)) = judgement.proof else {
                        panic!("{name}: {judgement:?}")
                    };
                    let (_, same) = forms.iter().find(|(name, _)| *name == found).unwrap();
                    assert_eq!(same, form);
                }
            }
        }
        let honest = Signer::hmac(Algorithm::HS256, b"none of these");
        assert_eq!(judged_by(&honest.token("a"), signer).proof, None);
    }
}

#[test]
fn public_key_forms_are_what_the_library_writes() {
    for algorithm in
        [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::ES512, Algorithm::EdDSA]
    {
        let signer = Signer::shared(algorithm);
        let spki = forge::library_spki(signer);
        assert_eq!(signer.public().to_spki(), spki, "{algorithm:?}");
        assert_eq!(Public::from_spki(&spki), Some(signer.public()));
        let pem = pem::write("PUBLIC KEY", &spki);
        let set = KeySet::read(pem.as_bytes(), &[algorithm]).unwrap();
        assert!(set.keys[0].forms.iter().any(|(name, form)| *name == "PEM" && **form == *pem.as_bytes()));
        let ring = KeyRing::empty(1).with_keys(0, set.keys, None);
        let judge = Judge::new(vec![signer.issuer()]);
        assert_eq!(judged(&signer.token("alice"), &judge, &ring).signature, Signature::Verified);
    }
}

#[test]
fn proves_kid_injection() {
    let signer = Signer::shared(Algorithm::RS256);
    for (kid, secret) in [
        ("../../../../dev/null", &b""[..]),
        ("/dev/null", b"\0"),
        ("x' UNION SELECT 'own-word' -- ", b"own-word"),
        ("|cat /proc/sys/kernel/randomize_va_space", b"2\n"),
    ] {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let text = Signer::hmac(Algorithm::HS256, secret).token_with(&header, &claims("admin"));
        for judgement in [judged_by(&text, signer), judged(&text, &Judge::new(vec![]), &KeyRing::empty(0))] {
            let proven = matches!(judgement.proof, Some(Proof::HmacUnderInjectedKey(_)));
            assert!(proven, "{kid}: {judgement:?}");
        }
    }
}

#[test]
fn proves_embedded_keys_but_not_the_issuers_own() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
        let issuer = Signer::shared(algorithm);
        let forger = Signer::new(algorithm);
        let header =
            |kid: &str, jwk: &str| format!(r#"{{"alg":"{}","kid":"{kid}","jwk":{jwk}}}"#, algorithm.as_str());
        for kid in [issuer.kid.as_str(), "unknown"] {
            let judgement =
                judged_by(&forger.token_with(&header(kid, &forger.jwk()), &claims("admin")), issuer);
            assert_eq!(judgement.proof, Some(Proof::OwnKey), "{algorithm:?}");
            assert_eq!(judgement.signature, Signature::Invalid, "{algorithm:?} {kid}");
            assert!(!judgement.policy.unwrap().embedded_key_ok);
        }
        let own =
            judged_by(&issuer.token_with(&header(&issuer.kid, &issuer.jwk()), &claims("alice")), issuer);
        assert_eq!((own.signature, own.proof), (Signature::Verified, None));
        assert!(own.policy.unwrap().embedded_key_ok);
    }
}

#[test]
fn judges_key_urls() {
    let signer = Signer::shared(Algorithm::RS256);
    let header = |url: &str| format!(r#"{{"alg":"RS256","kid":"kid-RS256","jku":"{url}"}}"#);
    let policy =
        |url: &str| judged_by(&signer.token_with(&header(url), &claims("a")), signer).policy.unwrap();
    assert!(policy("https://idp.example/jwks.json").key_url_ok);
    assert!(!policy("https://idp.example/redirect?to=https://evil.example/").key_url_ok);
    assert!(!policy("https://evil.example/jwks.json").key_url_ok);
}

#[test]
fn finds_weak_secrets_once_a_minute_and_remembers_them() {
    let judge = Judge::new(vec![]);
    let ring = KeyRing::empty(0);
    let ask = |text: &str, at: Time| {
        let parts = Parts::of(text.as_bytes(), MAX);
        judge.judge(&parts, &parts.read(), &ring, at).proof
    };
    let strong = Signer::new(Algorithm::HS256);
    let weak = Signer::hmac(Algorithm::HS256, b"changeme").named(&strong.kid);
    assert_eq!(ask(&strong.token("forger asks first"), AT), None);
    assert_eq!(ask(&weak.token("a"), AT), None, "asked less than a minute ago");
    let later = AT.plus(std::time::Duration::from_mins(1));
    let found = ask(&weak.token("b"), later);
    assert_eq!(found, secrets::position(b"changeme").map(Proof::WeakSecret));
    assert_eq!(ask(&weak.token("c"), later), found, "remembered, no list needed");
    assert_eq!(ask(&strong.token("d"), later), None);
}

#[test]
fn an_issuers_own_weak_secret_is_reported_and_guesses_are_not() {
    let weak = Signer::hmac(Algorithm::HS256, b"secret");
    let judgement = judged_by(&weak.token("a"), &weak);
    assert_eq!(judgement.signature, Signature::Verified);
    assert!(matches!(judgement.proof, Some(Proof::WeakSecret(_))));
    let strong = Signer::shared(Algorithm::HS256);
    let guess = Signer::hmac(Algorithm::HS256, b"secret").named(&strong.kid);
    assert_eq!(
        judged_by(&guess.token("a"), strong),
        Judgement { proof: None, ..judged_by(&guess.token("a"), strong) }
    );
    assert_eq!(judged_by(&guess.token("a"), strong).signature, Signature::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_mutated_token_is_never_verified_and_never_panics(
        which in 0usize..13,
        cuts in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let signer = Signer::shared(Algorithm::ALL[which]);
        let good = signer.token("alice").into_bytes();
        let mut text = good.clone();
        for (at, byte, what) in cuts {
            let at = at.index(text.len().max(1));
            match what {
                0 => text.insert(at, byte),
                1 if at < text.len() => { text.remove(at); }
                2 if at < text.len() => text[at] = byte,
                _ => text.rotate_left(at),
            }
        }
        let parts = Parts::of(&text, MAX);
        let judge = Judge::new(vec![signer.issuer()]);
        let judgement = judge.judge(&parts, &parts.read(), &signer.ring(), AT);
        prop_assert!(text == good || judgement.signature != Signature::Verified);
    }

    /// The oracle: whatever we verify, the library verifies too.
    #[test]
    fn verified_tokens_are_accepted_by_the_library(
        header in r#"\{"alg":"(ES256|RS256|none)"(,"kid":"kid-ES256")?(,"typ":"JWT")?(,"x":[01])?\}"#,
        payload in r#"\{"iss":"https://idp.example/","aud":"orders-api"(,"exp":(4000000000|4e9|"1"))(,"sub":"a")?(,"sub":"b")?\}"#,
    ) {
        let signer = Signer::shared(Algorithm::ES256);
        let text = signer.token_with(&header, &payload);
        prop_assert!(!is_verified(&text, signer) || library_accepts(&text, signer));
    }
}
