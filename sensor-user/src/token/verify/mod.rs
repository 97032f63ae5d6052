//! Judges a token with keys and policy. The only place that says [`Signature::Verified`].
//!
//! Bias: towards refusal. A token is verified only if every strict reader would accept it: strict form, an algorithm
//! that its issuer and its key are for, a key of the issuer's own choosing, an exact signature. A token that
//! verifies but reads differently to strict and lax readers is left unchecked, with its flaws.
//!
//! Cryptography is aws-lc's; reading and choosing is ours (docs/decisions/0003-strict-jose.md).

pub mod proof;
pub mod secrets;
#[cfg(test)]
mod tests;

use crate::capture::Time;
use crate::token::facts::{Flaws, Form, Policy, Proof, Purpose, Signature, Unchecked};
use crate::token::jose::{Parts, Reading, purpose};
use crate::token::keys::ring::Choice;
use crate::token::keys::{IssuerKeys, KeyRing, KeyState, Material, Public, jwk, pem};
use crate::token::settings::{Algorithm, Issuer, KeySource};
use proof::WeakSecrets;

/// What keys and policy say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What its signature is worth.
    pub signature: Signature,
    /// How it fits its issuer; none if no issuer is configured, or the token cannot be read.
    pub policy: Option<Policy>,
    /// What was proven against it.
    pub proof: Option<Proof>,
}

impl Judgement {
    /// A judgement without proof.
    const fn of(signature: Signature, policy: Option<Policy>) -> Self {
        Self { signature, policy, proof: None }
    }

    const fn unchecked(why: Unchecked, policy: Option<Policy>) -> Self {
        Self::of(Signature::Unchecked(why), policy)
    }
}

/// What can be said without any cryptography.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// All there is to say, or to say before keys arrive.
    Done(Judgement),
    /// It takes cryptography; this is its policy so far.
    Costly(Option<Policy>),
}

/// Knows every issuer's policy, and which weak secrets were asked when. Shared by the threads that verify.
#[derive(Debug)]
pub struct Judge {
    issuers: Vec<Issuer>,
    weak: WeakSecrets,
}

impl Judge {
    /// The issuers, in the order of the settings.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// A judge for these issuers; key rings must list their keys in the same order.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self { issuers, weak: WeakSecrets::default() }
    }

    /// The place of a token's issuer in the settings: an exact match of `iss` (RFC 7519 section 4.1.1).
    #[must_use]
    pub fn issuer_of(&self, reading: &Reading<'_>) -> Option<usize> {
        let claimed = reading.claims.issuer.as_deref()?;
        self.issuers.iter().position(|issuer| issuer.issuer == claimed)
    }

    /// Judges as far as no cryptography is needed. Cheap: runs on the capture path.
    #[must_use]
    pub fn look(&self, reading: &Reading<'_>, ring: &KeyRing) -> Look {
        if reading.form != Form::Jws {
            return Look::Done(Judgement::unchecked(Unchecked::Unreadable, None));
        }
        let issuer = self.issuer_of(reading);
        let keys = issuer.and_then(|index| ring.issuer(index));
        let policy = self.policy(reading, issuer, keys);
        let hopeless = [Flaws::ALG_NONE, Flaws::EMPTY_SIGNATURE, Flaws::PSYCHIC];
        if hopeless.iter().any(|flaw| reading.flaws.intersects(*flaw)) {
            return Look::Done(Judgement::of(Signature::Absent, policy));
        }
        let algorithm = reading.header.algorithm();
        let symmetric = algorithm.is_some_and(Algorithm::is_symmetric);
        let embedded = reading.header.jwk.is_some() || reading.header.certificate.is_some();
        let Some(keys) = keys else {
            // Without an issuer only proofs against the token remain.
            let provable = symmetric || embedded;
            return if provable {
                Look::Costly(policy)
            } else {
                Look::Done(Judgement::unchecked(Unchecked::NoIssuer, policy))
            };
        };
        if keys.state != KeyState::Ready {
            return Look::Done(Judgement::unchecked(Unchecked::KeysPending, policy));
        }
        let usable = algorithm.filter(|_| policy.is_some_and(|p| p.algorithm_ok));
        if !embedded
            && !reading.flaws.intersects(Flaws::KID_INJECTION)
            && let Some(algorithm) = usable
            && matches!(keys.choose(reading.header.kid.as_deref(), algorithm), Choice::KidUnknown)
        {
            return Look::Done(Judgement::unchecked(Unchecked::KeyUnknown, policy));
        }
        Look::Costly(policy)
    }

    /// Judges completely. `at` is the data's time: how often weak secrets are asked depends on it.
    #[must_use]
    pub fn judge(&self, parts: &Parts<'_>, reading: &Reading<'_>, ring: &KeyRing, at: Time) -> Judgement {
        let policy = match self.look(reading, ring) {
            Look::Done(judgement) => return judgement,
            Look::Costly(policy) => policy,
        };
        let issuer = self.issuer_of(reading);
        let keys = issuer.and_then(|index| ring.issuer(index));
        let (signature, weak) = match keys {
            Some(keys) => Self::check(parts, reading, keys, policy),
            None => (Signature::Unchecked(Unchecked::NoIssuer), None),
        };
        if signature == Signature::Verified {
            return Judgement { signature, policy, proof: weak.map(Proof::WeakSecret) };
        }
        let proof = proof::against(parts, reading, keys).or_else(|| {
            // Signing with a guess proves nothing against an issuer whose real keys are known.
            if keys.is_none() { self.weak.ask(parts, reading, at) } else { None }
        });
        // Under an unknown `kid`, signed by something else that we know: no later key can make that good.
        let refuted = proof.is_some() && signature == Signature::Unchecked(Unchecked::KeyUnknown);
        Judgement { signature: if refuted { Signature::Invalid } else { signature }, policy, proof }
    }

    /// Checks the signature under the issuer's keys. Also the weak secret's number, if that is what verified it.
    fn check(
        parts: &Parts<'_>,
        reading: &Reading<'_>,
        keys: &IssuerKeys,
        policy: Option<Policy>,
    ) -> (Signature, Option<u32>) {
        let usable = reading.header.algorithm().filter(|_| policy.is_some_and(|p| p.algorithm_ok));
        let Some(algorithm) = usable else { return (Signature::Invalid, None) };
        match keys.choose(reading.header.kid.as_deref(), algorithm) {
            Choice::Fit(candidates) => {
                let signer =
                    candidates.iter().find(|k| k.verifies(algorithm, parts.signing_input, &parts.signature));
                match signer {
                    None => (Signature::Invalid, None),
                    Some(_) if reading.flaws.intersects(Flaws::REFUSED) => {
                        (Signature::Unchecked(Unchecked::Unreadable), None)
                    }
                    Some(key) => (Signature::Verified, key.weak),
                }
            }
            // A `kid` that is an injection will never be in a key set.
            Choice::KidUnknown if reading.flaws.intersects(Flaws::KID_INJECTION) => {
                (Signature::Invalid, None)
            }
            Choice::KidUnknown => (Signature::Unchecked(Unchecked::KeyUnknown), None),
            Choice::NoneFits => (Signature::Invalid, None),
        }
    }

    /// How the token fits its issuer. What an unknown issuer's policy would say is taken as met: only
    /// [`Policy::issuer_known`] accuses such a token.
    fn policy(
        &self,
        reading: &Reading<'_>,
        issuer: Option<usize>,
        keys: Option<&IssuerKeys>,
    ) -> Option<Policy> {
        if self.issuers.is_empty() {
            return None;
        }
        let header = &reading.header;
        let embedded = header.jwk.is_some() || header.certificate.is_some();
        let Some(issuer) = issuer.and_then(|index| self.issuers.get(index)) else {
            return Some(Policy {
                issuer_known: false,
                audience_ok: true,
                algorithm_ok: true,
                issuer_asymmetric: false,
                key_url_ok: header.key_url.is_none(),
                embedded_key_ok: !embedded,
                type_ok: true,
            });
        };
        let audience_ok = issuer.audiences.is_empty()
            || reading
                .claims
                .audiences
                .iter()
                .any(|audience| issuer.audiences.iter().any(|own| own == audience));
        let algorithm_ok = header.algorithm().is_some_and(|algorithm| issuer.algorithms.contains(&algorithm));
        Some(Policy {
            issuer_known: true,
            audience_ok,
            algorithm_ok,
            issuer_asymmetric: !issuer.algorithms.iter().any(|algorithm| algorithm.is_symmetric()),
            key_url_ok: header.key_url.as_deref().is_none_or(|url| is_own_url(url, issuer, keys)),
            embedded_key_ok: !embedded || keys.is_some_and(|keys| is_own_key(reading, keys)),
            type_ok: type_ok(issuer, header.typ.as_deref(), reading.purpose()),
        })
    }
}

/// `typ` names media types: case does not matter and `application/` may be left out (RFC 7515 section 4.1.9).
///
/// What a token is for counts as well: an ID token with `typ` JWT is no access token, unless the issuer's types name its
/// purpose.
fn type_ok(issuer: &Issuer, typ: Option<&str>, purpose: Option<Purpose>) -> bool {
    let short = |name: &str| {
        let lower = name.to_ascii_lowercase();
        lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower)
    };
    let named = typ.is_some_and(|typ| issuer.token_types.iter().any(|own| short(own) == short(typ)));
    let is_own = |name: &str| issuer.token_types.iter().any(|own| own.eq_ignore_ascii_case(name));
    let purpose_ok = match purpose {
        None | Some(Purpose::Access) => true,
        Some(Purpose::Id) => is_own("ID"),
        Some(Purpose::Refresh) => is_own("Refresh"),
        Some(Purpose::Event) => is_own("Logout"),
        Some(Purpose::Proof) => false,
    };
    let typ_says_it = named && typ.and_then(purpose::of_type) == purpose;
    (issuer.token_types.is_empty() || named) && (purpose_ok || typ_says_it)
}

/// Exactly the URL that the keys come from. Not merely the same host: open redirects have made that an attack.
fn is_own_url(url: &str, issuer: &Issuer, keys: Option<&IssuerKeys>) -> bool {
    let configured = matches!(&issuer.keys, KeySource::Url(own) if own == url);
    configured || keys.and_then(|keys| keys.url.as_deref()).is_some_and(|own| own == url)
}

/// Whether the key in the header is, by thumbprint, one of the issuer's.
fn is_own_key(reading: &Reading<'_>, keys: &IssuerKeys) -> bool {
    let jwk = reading.header.jwk.map(jwk::thumbprint_of);
    let certificate = reading.header.certificate.as_deref().map(|text| {
        let public = Public::from_certificate(&pem::decode(text)?)?;
        Some(jwk::thumbprint(&Material::Public(public)))
    });
    let is_own = |thumbprint| keys.keys.iter().any(|own| own.thumbprint == thumbprint);
    jwk.into_iter().chain(certificate).all(|thumbprint| thumbprint.is_some_and(is_own))
}
