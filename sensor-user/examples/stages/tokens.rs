//! The cache of verdicts, and the token stage as a whole.

use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sensor_user::http::Exchange;
use sensor_user::token::cache::Cache;
use sensor_user::token::hash::TextHash;
use sensor_user::token::settings::{Algorithm, TokenSettings};
use sensor_user::token::{InStep, Token, TokenUse, Tokens};
use smallvec::SmallVec;

use crate::forge::{RS256, Signer, USUAL};
use crate::traffic::{address, curl, exchange, time, token};
use crate::{QUICK, SLOW};

/// The keyed hash that finds a token again.
#[divan::bench(sample_size = QUICK)]
fn hash(bencher: Bencher<'_, '_>) {
    let (text, hash) = (RS256.token("alice", USUAL), TextHash::random().unwrap());
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| hash.of(black_box(text.as_bytes())));
}

/// A key as a hash would be.
const fn key(n: u64) -> u128 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) as u128) << 64 | n as u128
}

/// A cache that is full of so many verified tokens.
fn full(count: u64) -> (Cache, Arc<Token>) {
    let (mut cache, shared) = (Cache::new(count as usize), token(1, "alice").token);
    for n in 0..count {
        // Each its own memory, as in life.
        cache.insert(key(n), Arc::new(Token::clone(&shared)), 0);
    }
    (cache, shared)
}

/// Finds tokens that are there, in turn.
#[divan::bench(args = [1, 2_000, 100_000], sample_size = QUICK)]
fn cache_hit(bencher: Bencher<'_, '_>, count: u64) {
    let (mut cache, _) = full(count.max(4));
    let mut n = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n = (n + 1) % count;
        assert!(cache.find(black_box(key(n))).is_some());
    });
}

/// Does not find one, and puts it where another has to go.
#[divan::bench(sample_size = QUICK)]
fn cache_miss_and_insert(bencher: Bencher<'_, '_>) {
    let (mut cache, shared) = full(100_000);
    let mut n = 100_000;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        n += 1;
        assert!(cache.find(black_box(key(n))).is_none());
        assert!(cache.insert(key(n), Arc::clone(&shared), 0).is_some());
    });
}

fn stage(signer: &Signer, max_tokens: usize) -> Tokens {
    let settings = TokenSettings { max_tokens, ..signer.settings() };
    let mut tokens = Tokens::new(&settings, Box::new(InStep::new(&settings))).unwrap();
    tokens.keys_changed(signer.ring(), time(0));
    tokens
}

fn found(tokens: &mut Tokens, exchange: &Exchange) -> SmallVec<[TokenUse; 1]> {
    let shown = tokens.read(exchange);
    tokens.find(&shown, exchange, time(0))
}

fn requests(signer: &Signer, count: u64) -> Vec<Exchange> {
    let head = |n| curl(&format!("/orders/{n}"), &signer.token(&format!("user{n}"), USUAL));
    (0..count).map(|n| exchange(n, address(n), &head(n), 200)).collect()
}

/// The whole stage for tokens that it knows.
#[divan::bench(sample_size = QUICK)]
fn stage_known(bencher: Bencher<'_, '_>) {
    let signer = Signer::new(Algorithm::EdDSA);
    let (mut tokens, all) = (stage(&signer, 100_000), requests(&signer, 2_000));
    let mut next = all.iter().cycle();
    for exchange in &all {
        found(&mut tokens, exchange);
    }
    let before = tokens.counters().misses;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let uses = found(&mut tokens, next.next().unwrap());
        assert!(uses[0].token.is_verified());
    });
    assert_eq!(tokens.counters().misses, before, "all were known");
}

/// The whole stage for tokens that it does not know: read, verified in step and described.
#[divan::bench(args = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA], sample_size = SLOW)]
fn stage_new(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let signer = Signer::new(algorithm);
    // Of 64 in turn the cache holds four.
    let (mut tokens, all) = (stage(&signer, 4), requests(&signer, 64));
    let mut next = all.iter().cycle();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let uses = found(&mut tokens, next.next().unwrap());
        assert!(uses[0].token.is_verified());
    });
    let counters = tokens.counters();
    assert_eq!(counters.misses, counters.uses, "all were new");
}
