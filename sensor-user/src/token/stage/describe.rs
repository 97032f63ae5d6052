//! What reading alone tells of a token: everything but whether it is good.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use super::Tokens;
use crate::token::facts::{Form, KeyBound, MAX_TEXT, Profile, StatusRef, Token};
use crate::token::hash::sha256;
use crate::token::jose::text::printable;
use crate::token::jose::{Parts, Reading};

/// Most `aud` values kept for show; all of them count for the policy.
const MAX_AUDIENCES: usize = 8;

impl Tokens {
    /// Everything that reading alone tells.
    pub(super) fn describe(&mut self, text: &[u8], parts: &Parts<'_>, reading: &Reading<'_>) -> Token {
        let claims = &reading.claims;
        // What is compared across tokens are the parts of signed ones only.
        let signed = matches!(reading.form, Form::Jws | Form::Malformed);
        let part = |text: &[u8]| if text.is_empty() || !signed { 0 } else { self.hash.short(text) };
        let mut token = Token {
            fingerprint: self.namer.name(text),
            length: u32::try_from(text.len()).unwrap_or(u32::MAX),
            subject: claims.subject.as_ref().or(claims.client.as_ref()).map(|name| self.names.subject(name)),
            id: claims.id.as_deref().map(|id| printable(id).into()),
            purpose: reading.purpose(),
            session: claims.session.as_deref().map_or(0, |sid| session(claims.issuer.as_deref(), sid)),
            expires: claims.expires.into(),
            not_before: claims.not_before.into(),
            issued: claims.issued.into(),
            flaws: reading.flaws,
            input_hash: part(parts.signing_input),
            signature_hash: part(&parts.signature),
            profile: self.profile(reading),
            ..Token::blank(reading.form)
        };
        let (thumbprint, certificate) = (claims.bound_to, claims.certificate);
        let status = claims.status.as_ref().filter(|(uri, _)| uri.len() <= MAX_TEXT);
        let status = status.map(|(uri, index)| StatusRef { uri: self.names.of(uri), index: *index });
        token.change_extras(|extras| {
            extras.bound = (thumbprint.is_some() || certificate.is_some()).then(|| KeyBound {
                thumbprint,
                certificate,
                token_hash: sha256(text),
            });
            extras.status = status;
            extras.flaw_detail = reading.detail;
        });
        token
    }

    /// What the token has in common with others, shared with them.
    fn profile(&mut self, reading: &Reading<'_>) -> Arc<Profile> {
        let (header, claims, names) = (&reading.header, &reading.claims, &mut self.names);
        let mut shared = |text: &Option<Cow<'_, str>>| text.as_deref().map(|text| names.of(text));
        let (alg, kid, issuer) = (shared(&header.alg), shared(&header.kid), shared(&claims.issuer));
        let key_url = header.key_url.as_deref();
        let key_url = key_url.map(|url| names.of(url.split(['?', '#']).next().unwrap_or_default()));
        let audiences =
            claims.audiences.iter().take(MAX_AUDIENCES).map(|audience| names.of(audience)).collect();
        let roles = names.roles(claims.roles());
        names.profile(Profile { alg, kid, key_url, issuer, audiences, roles })
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
