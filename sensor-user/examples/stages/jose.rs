//! Tokens as texts: found, taken apart, read strictly, verified.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use sensor_user::token::Signature;
use sensor_user::token::extract::Extractor;
use sensor_user::token::jose::{Parts, base64};
use sensor_user::token::settings::{Algorithm, TokenSettings};
use sensor_user::token::verify::Judge;

use crate::forge::{RS256, Signer, USUAL};
use crate::traffic::{browser, curl, request, time};
use crate::{QUICK, SLOW};

/// Longest token that is read: the default.
const MOST: usize = 16 * 1024;

/// Finds the bearer token among the headers.
#[divan::bench(args = ["curl", "browser"], sample_size = QUICK)]
fn extract(bencher: Bencher<'_, '_>, sender: &str) {
    let token = RS256.token("alice", USUAL);
    let head =
        request(&if sender == "curl" { curl("/orders/7", &token) } else { browser("/orders/7", &token) });
    let extractor = Extractor::new(&TokenSettings::default());
    bencher.counter(BytesCount::of_slice(&head.bytes)).bench_local(|| {
        let found = extractor.find(black_box(&head));
        assert_eq!(found.list.len(), 1);
    });
}

/// Takes a token apart: three parts, decoded.
#[divan::bench(sample_size = QUICK)]
fn parts(bencher: Bencher<'_, '_>) {
    let token = RS256.token("alice", USUAL);
    bencher.counter(BytesCount::of_str(&token)).bench_local(|| Parts::of(black_box(token.as_bytes()), MOST));
}

/// Reads header and claims, strictly.
#[divan::bench(sample_size = QUICK)]
fn header_and_claims(bencher: Bencher<'_, '_>) {
    let token = RS256.token("alice", USUAL);
    let parts = Parts::of(token.as_bytes(), MOST);
    bencher.counter(BytesCount::of_slice(parts.payload())).bench_local(|| {
        let reading = black_box(&parts).read();
        assert_eq!(reading.claims.subject.as_deref(), Some("alice"));
        assert!(reading.detail.is_none());
    });
}

/// base64url alone, of one kilobyte.
#[divan::bench(sample_size = QUICK)]
fn base64_strict(bencher: Bencher<'_, '_>) {
    let text = base64::encode(&[0x5a; 768]);
    bencher
        .counter(BytesCount::of_str(&text))
        .bench_local(|| base64::strict(black_box(text.as_bytes())).unwrap());
}

/// Judges a token wholly: its policy and its signature.
#[divan::bench(args = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256], sample_size = SLOW)]
fn verify(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let signer = Signer::new(algorithm);
    let token = signer.token("alice", USUAL);
    let (ring, judge) = (signer.ring(), Judge::new(vec![signer.issuer()]));
    let parts = Parts::of(token.as_bytes(), MOST);
    let reading = parts.read();
    bencher.counter(BytesCount::of_str(&token)).bench_local(|| {
        let judgement = judge.judge(black_box(&parts), &reading, &ring, time(0));
        assert_eq!(judgement.signature, Signature::Verified);
    });
}
