//! `token-in-clear`: a bearer token over an unencrypted connection from outside.

use std::net::IpAddr;
use std::sync::Arc;

use crate::detect::cause::cause;
use crate::detect::remarks::{Remarks, TOKEN_AGAIN};
use crate::detect::statement::{Statement, Subject};
use crate::detect::{About, Case, DetectSettings, Memory, Needs, Report, Rule, Severity, Threshold, When};
use crate::token::Form;

/// The card.
pub static ABOUT: About = About {
    id: "token-in-clear",
    title: "Token over an unencrypted connection",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: None,
    attack: &["T1040"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Fires when a token comes over a connection that is not encrypted, whose other end is outside: not this \
node, and no private, link-local or shared (RFC 6598) address. Everybody on the way can read it and be its owner. Told \
once an hour for each token and service.\n\nWhat is captured at a socket is what the application reads, so that a request \
that can be read here was not encrypted on its last hop. Benign source: TLS that ends at a load balancer with a public \
address, or at one that keeps the address of its client; name its networks in `lists.trusted_addresses`. A proxy in a private network is taken for one that ends TLS; with \
`private` set to 1 such connections are told as well, except from the node itself.\n\nThe address is the \
connection's, not what a proxy says of its client.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "private",
            default: 0.0,
            min: 0.0,
            max: 1.0,
            doc: "1: connections from private networks count as well.",
        },
        TOKEN_AGAIN,
    ],
};

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(TokenInClear {
        private: settings.count(&ABOUT, "private") > 0,
        again_s: settings.count(&ABOUT, "again_s"),
        settings: Arc::clone(settings),
        told: Remarks::default(),
    })
}

struct TokenInClear {
    private: bool,
    again_s: u32,
    settings: Arc<DetectSettings>,
    told: Remarks,
}

/// Where the other end of a connection is, as seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Node,
    Private,
    Outside,
}

fn place(peer: IpAddr, server: IpAddr) -> Place {
    let (peer, server) = (peer.to_canonical(), server.to_canonical());
    if peer.is_loopback() || peer.is_unspecified() || peer == server {
        return Place::Node;
    }
    let private = match peer {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if private { Place::Private } else { Place::Outside }
}

impl Rule for TokenInClear {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn memory(&mut self) -> Option<&mut dyn Memory> {
        Some(&mut self.told)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let Some(held) = case.tokens.first() else { return };
        let endpoints = case.exchange.endpoints;
        match place(endpoints.client.ip(), endpoints.server.ip()) {
            Place::Node => return,
            Place::Private if !self.private => return,
            Place::Private | Place::Outside => {}
        }
        // A token that is wrong in itself, or refused, has nothing to lose.
        let worthless = held.token.form == Form::Malformed || cause(&held.token).is_some();
        if worthless || case.exchange.is_refused() || self.settings.is_trusted(endpoints.client.ip()) {
            return;
        }
        if self.told.is_news(&(endpoints.server, held.token.fingerprint), case.second(), self.again_s) {
            let subject = Subject::new(case, held);
            report.push(statement(&subject).into_finding(&ABOUT, &subject));
        }
    }
}

fn statement(subject: &Subject<'_>) -> Statement {
    Statement {
        severity: ABOUT.severity,
        confidence: 80,
        message: format!(
            "A token that came over an unencrypted connection from outside {}; everybody on the way can use it.",
            subject.told()
        ),
        brief: "token sent in the clear".to_owned(),
        facts: vec![("peer", subject.case.exchange.endpoints.client.ip().to_canonical().to_string().into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Thresholds;
    use crate::detect::settings::RuleSettings;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token};

    fn from(address: &str) -> Stage {
        Stage::new().status(200).client(address)
    }

    fn found(stage: &Stage, token: Token) -> usize {
        stage.ask(&mut *rule(&Arc::default()), [token]).len()
    }

    #[test]
    fn only_connections_from_outside_count() {
        for (address, count) in [
            ("203.0.113.5", 1),
            ("2001:db8::1", 1),
            ("::ffff:203.0.113.5", 1),
            ("127.0.0.1", 0),
            ("::1", 0),
            ("10.0.0.1", 0),
            ("10.9.9.9", 0),
            ("192.168.3.4", 0),
            ("100.64.0.9", 0),
            ("169.254.1.1", 0),
            ("fd00::1", 0),
            ("fe80::1", 0),
            ("::ffff:10.0.0.7", 0),
        ] {
            assert_eq!(found(&from(address), token(1)), count, "{address}");
        }
    }

    #[test]
    fn private_networks_count_when_asked_for() {
        let own = RuleSettings { thresholds: Thresholds(vec![("private", 1.0)]), ..RuleSettings::default() };
        let settings =
            Arc::new(DetectSettings { rules: [(ABOUT.id.to_owned(), own)].into(), ..Default::default() });
        assert_eq!(from("10.9.9.9").ask(&mut *rule(&settings), [token(1)]).len(), 1);
        assert!(from("10.0.0.1").ask(&mut *rule(&settings), [token(1)]).is_empty(), "the node itself");
    }

    #[test]
    fn load_balancers_and_worthless_tokens_are_benign() {
        let trusted = vec!["203.0.113.0/24".parse().unwrap()];
        let settings = Arc::new(DetectSettings { trusted_addresses: trusted, ..Default::default() });
        assert!(from("203.0.113.5").ask(&mut *rule(&settings), [token(1)]).is_empty());
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert_eq!(found(&from("203.0.113.5"), forged), 0);
        assert_eq!(found(&from("203.0.113.5").status(401), token(1)), 0);
        assert!(from("203.0.113.5").ask(&mut *rule(&Arc::default()), []).is_empty());
    }

    #[test]
    fn a_token_is_told_of_once_an_hour_also_over_a_restart() {
        let mut play = Play::new(rule(&Arc::default()));
        assert_eq!(play.ask(&from("203.0.113.5"), [token(1)]).len(), 1);
        play.restart(rule(&Arc::default()));
        assert!(play.ask(&from("198.51.100.9").after_ms(3_599_000), [token(1)]).is_empty());
        assert_eq!(play.ask(&from("198.51.100.9").after_ms(3_600_000), [token(1)]).len(), 1);
        assert_eq!(play.ask(&from("198.51.100.9").after_ms(3_600_001), [token(2)]).len(), 1);
    }
}
