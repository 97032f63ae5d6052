//! Keys: known answers of the RFCs, and everything that must not become a key.

use proptest::prelude::*;

use super::der::{tag, write};
use super::ring::Choice;
use super::*;
use crate::token::forge::Signer;
use crate::token::jose::base64::{encode, strict};

/// RFC 7638 section 3.1.
const RFC7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;

/// The claims of RFC 7515 appendix A.
const RFC7515: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn one(jwk: &str, algorithm: Algorithm) -> Result<Key, KeyError> {
    jwk::read(jwk.as_bytes(), &[algorithm])
}

#[test]
fn thumbprint_is_that_of_the_rfc() {
    let key = one(RFC7638, Algorithm::RS256).unwrap();
    assert_eq!(encode(&key.thumbprint), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(jwk::thumbprint_of(RFC7638.as_bytes()), Some(key.thumbprint));
}

#[test]
fn known_answers_of_the_rfcs_verify() {
    let cases = [
        (
            Algorithm::HS256, // RFC 7515 appendix A.1
            r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{RFC7515}"),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            Algorithm::ES256, // RFC 7515 appendix A.3
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
            format!("eyJhbGciOiJFUzI1NiJ9.{RFC7515}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            Algorithm::EdDSA, // RFC 8037 appendix A.4
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ];
    for (algorithm, jwk, input, signature) in cases {
        let key = one(jwk, algorithm).unwrap();
        let signature = strict(signature.as_bytes()).unwrap();
        assert!(key.verifies(algorithm, input.as_bytes(), &signature), "{algorithm:?}");
        assert!(!key.verifies(algorithm, &input.as_bytes()[1..], &signature), "{algorithm:?}");
    }
}

#[test]
fn keys_for_something_else_are_refused() {
    let ec = Signer::shared(Algorithm::ES256).jwk();
    let with = |member: &str| ec.replacen('{', &format!("{{{member},"), 1);
    let cases = [
        (with(r#""use":"enc""#), KeyError::OtherUse),
        (with(r#""key_ops":["sign"]"#), KeyError::OtherUse),
        (with(r#""alg":"ECDH-ES""#), KeyError::OtherUse),
        (with(r#""alg":"ES384""#), KeyError::NoAlgorithm),
        (with(r#""alg":"RS256""#), KeyError::NoAlgorithm),
        (with(r#""kty":"EC""#), KeyError::Json("a member appears twice")),
        (with(r#""use":5"#), KeyError::Json("a member is not a string")),
        (with(r#""key_ops":"verify""#), KeyError::Json("key_ops is not an array of strings")),
        (ec.replace("P-256", "secp256k1"), KeyError::Unsupported),
        (ec.replace("P-256", "P-384"), KeyError::Member("x")),
        (ec.replace(r#""kty":"EC""#, r#""kty":"PQ""#), KeyError::Unsupported),
        (ec.replace(r#""kty":"EC","#, ""), KeyError::Member("kty")),
        (
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}"#.into(),
            KeyError::Member("y"),
        ),
        (r#"{"kty":"oct","k":""}"#.into(), KeyError::Member("k")),
        (r#"{"kty":"oct","k":"AA=="}"#.into(), KeyError::Member("k")),
        ("[]".into(), KeyError::Json("not the JSON kind that belongs there")),
    ];
    for (jwk, error) in cases {
        assert_eq!(one(&jwk, Algorithm::ES256).unwrap_err(), error, "{jwk}");
    }
    assert!(one(&with(r#""alg":"ES256","use":"sig","key_ops":["verify"]"#), Algorithm::ES256).is_ok());
}

#[test]
fn points_off_the_curve_and_of_small_order_are_refused() {
    let off =
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, encode(&[1; 32]), encode(&[2; 32]));
    assert_eq!(one(&off, Algorithm::ES256).unwrap_err(), KeyError::Invalid);
    let mut identity = [0; 32];
    identity[0] = 1;
    for point in [[0; 32], identity] {
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(&point));
        assert_eq!(one(&jwk, Algorithm::EdDSA).unwrap_err(), KeyError::SmallOrder);
    }
}

#[test]
fn rsa_keys_have_2048_to_8192_bits() {
    let key = |bytes: usize, high: u8| {
        let n = [&[high][..], &vec![0xff; bytes - 1]].concat();
        one(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, encode(&n)), Algorithm::RS256).map(|_| ())
    };
    assert_eq!(key(128, 0x80), Err(KeyError::RsaBits(1024)));
    assert_eq!(key(256, 0x7f), Err(KeyError::RsaBits(2047)));
    assert_eq!(key(256, 0x80), Ok(()));
    assert_eq!(key(1024, 0x80), Ok(()));
    assert_eq!(key(1025, 0x01), Err(KeyError::RsaBits(8193)));
    // A zero in front, as Java's BigInteger writes it, is no part of the number.
    assert_eq!(key(257, 0), Ok(()));
}

#[test]
fn one_bad_key_does_not_spoil_the_others_and_a_hundred_are_enough() {
    let good = Signer::shared(Algorithm::ES256);
    let set = format!(r#"{{"keys":[5,{{"kty":"x"}},{}]}}"#, good.jwk());
    let set = KeySet::read(set.as_bytes(), &[Algorithm::ES256]).unwrap();
    assert_eq!((set.keys.len(), set.refused.len()), (1, 2));
    assert_eq!(set.refused[0].0, 0);
    let doubled = format!(r#"{{"keys":[{0},{0}]}}"#, good.jwk());
    assert_eq!(KeySet::read(doubled.as_bytes(), &[Algorithm::ES256]).unwrap().keys.len(), 1);
    let many: Vec<_> = (0..150).map(|at| format!(r#"{{"kty":"oct","kid":"{at}","k":"AAAA"}}"#)).collect();
    let many = format!(r#"{{"keys":[{}]}}"#, many.join(","));
    assert_eq!(KeySet::read(many.as_bytes(), &[Algorithm::HS256]).unwrap().keys.len(), MAX_KEYS);
}

/// A certificate with nothing right about it but its shape.
fn certificate(public: &Public) -> Vec<u8> {
    let sequence = |parts: &[&[u8]]| write(tag::SEQUENCE, parts);
    let empty = sequence(&[]);
    let version = write(tag::CONTEXT_0, &[&write(tag::INTEGER, &[&[2]])]);
    let serial = write(tag::INTEGER, &[&[1]]);
    let tbs = sequence(&[&version, &serial, &empty, &empty, &empty, &empty, &public.to_spki()]);
    sequence(&[&tbs, &empty, &write(tag::BIT_STRING, &[&[0, 1]])])
}

#[test]
fn takes_the_key_out_of_a_certificate() {
    for algorithm in [Algorithm::RS256, Algorithm::ES384, Algorithm::EdDSA] {
        let public = Signer::shared(algorithm).public();
        let der = certificate(&public);
        assert_eq!(Public::from_certificate(&der), Some(public));
        let set = KeySet::read(pem::write("CERTIFICATE", &der).as_bytes(), &[algorithm]).unwrap();
        assert!(set.keys[0].is_public());
        assert_eq!(Public::from_certificate(&[&der[..], &[0]].concat()), None);
    }
}

#[test]
fn kid_picks_the_key() {
    let named = Signer::new(Algorithm::ES256).named("a");
    let other = Signer::new(Algorithm::ES384).named("b");
    let set = |text: &str| KeySet::read(text.as_bytes(), &Algorithm::ALL).unwrap().keys;
    let keys = set(&format!(r#"{{"keys":[{},{}]}}"#, named.jwk(), other.jwk()));
    let ring = KeyRing::empty(1).with_keys(0, keys, None);
    let issuer = ring.issuer(0).unwrap();
    let fits = |kid, algorithm| match issuer.choose(kid, algorithm) {
        Choice::Fit(keys) => Ok(keys.len()),
        Choice::KidUnknown => Err("unknown"),
        Choice::NoneFits => Err("none fits"),
    };
    assert_eq!(fits(Some("a"), Algorithm::ES256), Ok(1));
    assert_eq!(fits(Some("a"), Algorithm::ES384), Err("none fits"));
    assert_eq!(fits(Some("c"), Algorithm::ES256), Err("unknown"));
    assert_eq!(fits(None, Algorithm::ES256), Ok(1));
    assert_eq!(fits(None, Algorithm::RS256), Err("none fits"));
    let nameless = set(&named.jwk().replace(r#""kid":"a","#, ""));
    let ring = KeyRing::empty(1).with_keys(0, nameless, None);
    assert!(matches!(ring.issuer(0).unwrap().choose(Some("c"), Algorithm::ES256), Choice::Fit(_)));
}

#[test]
fn a_failed_fetch_keeps_good_keys() {
    let signer = Signer::shared(Algorithm::ES256);
    let ring = signer.ring().with_failure(0);
    assert_eq!(ring.issuer(0).unwrap().state, KeyState::Ready);
    assert_eq!(ring.issuer(0).unwrap().generation, 1);
    assert_eq!(KeyRing::empty(1).with_failure(0).issuer(0).unwrap().state, KeyState::Failed);
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let key = one(r#"{"kty":"oct","kid":"k","k":"c2VjcmV0"}"#, Algorithm::HS256).unwrap();
    assert_eq!(format!("{key:?}"), r#"Key { kid: Some("k"), algorithms: [HS256], .. }"#);
    assert!(key.weak.is_some());
}

proptest! {
    #[test]
    fn anything_can_be_offered_as_keys(
        text in proptest::collection::vec(any::<u8>(), 0..200),
        words in "(\\{|\\}|\\[|\\]|\"keys\":|\"kty\":|\"RSA\"|\"EC\"|\"n\":|\"AQAB\"|,|-----BEGIN |PUBLIC KEY|-----END |-----|\n|MII){0,20}",
    ) {
        let _ = KeySet::read(&text, &Algorithm::ALL);
        let _ = KeySet::read(words.as_bytes(), &Algorithm::ALL);
        let _ = Public::from_certificate(&text);
        let _ = Public::from_spki(&text);
    }
}
