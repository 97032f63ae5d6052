//! Tokens: found in requests, read strictly, judged once.
//!
//! Sources: RFC 6750 (bearer), RFC 7515 to 7519 (JOSE), RFC 8725 (best practices), RFC 9068 (access tokens).

pub mod extract;
pub mod facts;
pub mod jose;
pub mod keys;
pub mod settings;
pub mod verify;

pub use facts::{Carrier, Fingerprint, Form, Policy, Signature, Token, TokenUse, Unchecked};
