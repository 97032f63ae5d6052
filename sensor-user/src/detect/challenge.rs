//! Refusals that are a step of the protocol and nobody's failure: a server wants its own nonce in a `DPoP` proof.
//!
//! RFC 9449 sections 8 and 9: an authorization server answers 400, a resource server 401, with the nonce in
//! `DPoP-Nonce`; the client signs another proof with it and asks again. Every client of such a server is refused so once an hour or
//! once a minute, as the server likes.

use crate::http::Exchange;
use crate::token::dpop;

/// Whether an exchange is such a refusal. The answers of others cost a comparison.
#[inline]
#[must_use]
pub fn asks_for_nonce(exchange: &Exchange) -> bool {
    matches!(exchange.status(), Some(400 | 401)) && is_challenge(exchange)
}

fn is_challenge(exchange: &Exchange) -> bool {
    let (Some(answer), Some(proof)) = (&exchange.response, exchange.request.value("dpop")) else {
        return false;
    };
    if answer.value("dpop-nonce").is_none() {
        return false;
    }
    let mut reasons = answer.values("www-authenticate").peekable();
    if reasons.peek().is_some() {
        return reasons.any(|reason| memchr::memmem::find(reason, b"use_dpop_nonce").is_some());
    }
    // The reason stands in the body, or behind what was captured: it is this one if the proof had no nonce.
    !dpop::has_nonce(proof)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{NOW_S, Play, Stage, token};
    use crate::token::dpop::tests::proof;
    use crate::token::forge::Signer;
    use crate::token::settings::Algorithm;

    /// An exchange with this proof that was answered so.
    pub(crate) fn answered(proof: &str, status: u16, headers: &[(&str, &str)]) -> Stage {
        Stage::new().header("DPoP", proof).status(status).answer_headers(headers)
    }

    const NONCE: (&str, &str) = ("DPoP-Nonce", "eyJ7S_zG.eyJH0-Z.HX4w-7v");
    const WHY: (&str, &str) = ("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\", error_description=\"x\"");

    fn asks(proof: &str, status: u16, headers: &[(&str, &str)]) -> bool {
        asks_for_nonce(&answered(proof, status, headers).exchange)
    }

    #[test]
    fn a_server_that_wants_a_nonce_is_understood() {
        let signer = Signer::shared(Algorithm::ES256);
        let bare = proof(signer, "a", NOW_S, &[]);
        let full = proof(signer, "b", NOW_S, &[("nonce", "old".into())]);
        assert!(asks(&bare, 401, &[NONCE, WHY]) && asks(&full, 401, &[WHY, NONCE]));
        assert!(asks(&bare, 401, &[("WWW-Authenticate", "Bearer"), WHY, NONCE]));
        assert!(asks(&bare, 400, &[NONCE]), "an authorization server");
        assert!(!asks(&full, 400, &[NONCE]), "another reason, in the body");
        assert!(!asks(&bare, 401, &[NONCE, ("WWW-Authenticate", "DPoP error=\"invalid_token\"")]));
        assert!(!asks(&bare, 401, &[WHY]) && !asks(&bare, 403, &[NONCE, WHY]) && !asks(&bare, 200, &[NONCE]));
        let none = Stage::new().status(401).answer_headers(&[NONCE, WHY]);
        assert!(!asks_for_nonce(&none.exchange), "nobody brought a proof");
    }

    /// What these rules say of a client that is answered so at every login and every second other request.
    fn said(challenge: &[(&str, &str)]) -> Vec<&'static str> {
        let failing =
            ["brute-force", "login-failure-rate", "token-failure-rate", "denied-rate", "endpoint-recon"];
        let signer = Signer::shared(Algorithm::ES256);
        let mut said = Vec::new();
        for rule in crate::detect::rules::build(&Arc::default()) {
            let id = rule.about().id;
            if !failing.contains(&id) {
                continue;
            }
            let mut play = Play::new(rule);
            let mut found = 0;
            for n in 0..600 {
                let is_login = n % 4 < 2;
                let asked = is_login || n % 4 == 2;
                let nonce = if asked { serde_json::Value::Null } else { "n".into() };
                let proof = proof(signer, &format!("jti-{n}"), NOW_S, &[("nonce", nonce)]);
                let (path, kind, refusal) = if is_login {
                    ("/oauth/token".to_owned(), RouteKind::Token, 400)
                } else {
                    (format!("/things/{}", n % 40), RouteKind::Plain, 401)
                };
                let mut stage = Stage::to("POST", &path).kind(kind).header("DPoP", &proof).after_ms(n * 200);
                stage = if is_login { stage.account("app") } else { stage };
                stage =
                    if asked { stage.status(refusal).answer_headers(challenge) } else { stage.status(200) };
                let own = crate::token::Token { subject: Some("alice".into()), ..token(n) };
                found += play.ask(&stage, [own]).len();
            }
            said.extend((found > 0).then_some(id));
        }
        said
    }

    #[test]
    fn no_rule_counts_it_as_a_failure() {
        assert_eq!(said(&[NONCE, WHY]), [""; 0]);
        assert!(said(&[]).len() >= 3, "plain refusals are: {:?}", said(&[]));
    }
}
