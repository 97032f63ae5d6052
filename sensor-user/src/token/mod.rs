//! Tokens: found in requests, read strictly, judged once.
//!
//! Sources: RFC 6750 (bearer), RFC 7515 to 7519 (JOSE), RFC 8725 (best practices), RFC 9068 (access tokens).

mod absent;
pub mod ask;
pub mod cache;
pub mod certificate;
pub mod dpop;
pub mod extract;
pub mod facts;
pub mod fetch;
#[cfg(test)]
pub(crate) mod forge;
pub mod hash;
pub mod inquiry;
pub mod jose;
pub mod keys;
mod md5;
mod names;
pub mod opaque;
pub mod parts;
mod pending;
pub mod settings;
pub mod stage;
pub mod status;
#[cfg(test)]
mod tests;
pub mod verifier;
pub mod verify;

pub use facts::{
    Carrier, Fingerprint, Form, IssuedToken, Policy, Purpose, Signature, Standing, Token, TokenUse, Unchecked,
};
pub use fetch::{FetchError, Fetcher, fetch_all_once};
pub use inquiry::{Answer, Inquiry};
pub use keys::KeyRing;
pub use settings::TokenSettings;
pub use stage::{Counters, Tokens, Wanted};
pub use verifier::{InStep, Pooled, Verdict, Verifier, Workers, pool};
