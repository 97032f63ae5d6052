//! Signatures as the Standard Webhooks specification has them (version 1, symmetric).
//!
//! `webhook-id` is the same however often an event is sent, so that a receiver recognises repeats; the timestamp is
//! that of the attempt, so that it recognises replays.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::token::settings::Secret;

/// The key of signatures. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads base64, with or without `whsec_` before it.
    #[must_use]
    pub fn read(secret: &Secret) -> Option<Self> {
        let text = secret.0.strip_prefix(b"whsec_").unwrap_or(&secret.0);
        let key = Zeroizing::new(STANDARD.decode(text).ok()?);
        (!key.is_empty()).then_some(Self(key))
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<SigningKey> {
        SigningKey::read(&Secret(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// The specification's own example.
    #[test]
    fn signs_as_the_specification_shows() {
        for secret in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let signed = key(secret).unwrap().sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                b"{\"test\": 2432232314}",
            );
            assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        }
    }

    #[test]
    fn a_secret_is_base64() {
        for bad in ["", "whsec_", "hunter2!", "whsec_*"] {
            assert!(key(bad).is_none(), "{bad}");
        }
        assert!(!format!("{:?}", key("c2VjcmV0c2VjcmV0")).contains("c2Vj"));
    }
}
