//! What reading alone tells of a token: everything but whether it is good.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Tokens;
use crate::token::facts::{
    Fingerprint, Flaws, Form, KeyBound, MAX_TEXT, Seat, Signature, Standing, StatusRef, Token, Unchecked,
};
use crate::token::hash::sha256;
use crate::token::jose::text::printable;
use crate::token::jose::{Parts, Reading};

/// Most `aud` values kept for show; all of them count for the policy.
const MAX_AUDIENCES: usize = 8;

impl Tokens {
    /// Everything that reading alone tells.
    pub(super) fn describe(&mut self, text: &[u8], parts: &Parts<'_>, reading: &Reading<'_>) -> Token {
        let show = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(printable);
        let names = &mut self.names;
        let mut shared = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(|t| names.of(t));
        let (header, claims) = (&reading.header, &reading.claims);
        // What is compared across tokens are the parts of signed ones only.
        let signed = matches!(reading.form, Form::Jws | Form::Malformed);
        let part = |text: &[u8]| if text.is_empty() || !signed { 0 } else { self.hash.short(text) };
        Token {
            fingerprint: self.namer.name(text),
            length: u32::try_from(text.len()).unwrap_or(u32::MAX),
            alg: shared(&header.alg),
            kid: shared(&header.kid),
            typ: shared(&header.typ),
            key_url: header
                .key_url
                .as_deref()
                .map(|url| printable(url.split(['?', '#']).next().unwrap_or_default())),
            issuer: shared(&claims.issuer),
            subject: show(&claims.subject).or_else(|| show(&claims.client)),
            audiences: claims
                .audiences
                .iter()
                .take(MAX_AUDIENCES)
                .map(|audience| self.names.of(audience))
                .collect(),
            id: show(&claims.id),
            roles: self.names.roles(claims.roles()),
            purpose: reading.purpose(),
            session: claims.session.as_deref().map_or(0, |sid| session(claims.issuer.as_deref(), sid)),
            bound: (claims.bound_to.is_some() || claims.certificate.is_some()).then(|| {
                let (thumbprint, certificate) = (claims.bound_to, claims.certificate);
                Box::new(KeyBound { thumbprint, certificate, token_hash: sha256(text) })
            }),
            status: claims
                .status
                .as_ref()
                .filter(|(uri, _)| uri.len() <= MAX_TEXT)
                .map(|(uri, index)| Box::new(StatusRef { uri: self.names.of(uri), index: *index })),
            expires: claims.expires,
            not_before: claims.not_before,
            issued: claims.issued,
            flaws: reading.flaws,
            flaw_detail: reading.detail,
            input_hash: part(parts.signing_input),
            signature_hash: part(&parts.signature),
            seat: Seat::default(),
            ..blank(reading.form)
        }
    }
}

/// Shortest `sid` that can be a session's own: 64 bits in hexadecimal digits. Shorter ones name shops and stores.
const MIN_SID: usize = 16;

/// The hash of a session, the same in every run; never 0.
fn session(issuer: Option<&str>, sid: &str) -> u64 {
    if sid.len() < MIN_SID {
        return 0;
    }
    foldhash::quality::FixedState::with_seed(0x7369_6420_6f66_2074).hash_one((issuer, sid)).max(1)
}

/// A token of which nothing is known but its form.
pub(crate) fn blank(form: Form) -> Token {
    Token {
        fingerprint: Fingerprint::default(),
        form,
        length: 0,
        alg: None,
        kid: None,
        typ: None,
        key_url: None,
        issuer: None,
        subject: None,
        audiences: SmallVec::new(),
        id: None,
        roles: Arc::default(),
        session: 0,
        purpose: None,
        bound: None,
        opaque: None,
        status: None,
        standing: Standing::Unknown,
        was_good: false,
        asked_s: 0,
        expires: None,
        not_before: None,
        issued: None,
        flaws: Flaws::default(),
        flaw_detail: None,
        signature: Signature::Unchecked(Unchecked::Unreadable),
        policy: None,
        proof: None,
        key_asked: None,
        input_hash: 0,
        signature_hash: 0,
        seat: Seat::default(),
    }
}
