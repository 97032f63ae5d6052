//! `workload-token-abroad`: a service-account token far from the cluster that it was made for.

use std::sync::Arc;

use crate::detect::cause::{cause, must_refuse};
use crate::detect::knowledge::Networks;
use crate::detect::statement::{Outcome, Statement, Subject, VERIFIERS_LEEWAY_S, severity, show};
use crate::detect::{About, Case, DetectSettings, Guard, Needs, Report, Rule, Severity, When};

/// The card.
pub static ABOUT: About = About {
    id: "workload-token-abroad",
    title: "Service-account token outside the cluster",
    version: "1.0.0",
    severity: Severity::High,
    accepted: Some(Severity::Critical),
    attack: &["T1550.001", "T1528"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when a token of a Kubernetes service account (`sub` is `system:serviceaccount:NAMESPACE:NAME`) is used \
from an address outside `lists.cluster_networks`; these are the private networks unless you name your own.\n\nSuch a \
token is mounted into a pod and has no business anywhere else: whoever uses it from outside has read it from the pod, \
an image, or a backup.\n\nIts signature must verify; where no issuer is configured, it must be accepted on a route that \
is known to refuse strangers. Refusals and forgeries are left to other rules. Benign sources: pipelines that hold such \
a token on purpose, and clusters that leave by a public address: name these in `lists.trusted_addresses` or \
`lists.cluster_networks`. It does not see a thief inside the cluster. No memory.",
    cooling_s: 600,
    thresholds: &[],
};

/// What the subjects of service accounts begin with (Kubernetes, `serviceaccount.ServiceAccountUsernamePrefix`).
pub(super) const PREFIX: &str = "system:serviceaccount:";

pub(super) fn rule(settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(WorkloadTokenAbroad { cluster: settings.cluster_networks.iter().copied().collect() })
}

struct WorkloadTokenAbroad {
    cluster: Networks,
}

impl Rule for WorkloadTokenAbroad {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn when(&self) -> When {
        When::NEWS.and(When::TOKEN)
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        for held in case.tokens {
            let Some(account) = held.token.subject.as_deref().and_then(|s| s.strip_prefix(PREFIX)) else {
                continue;
            };
            if case.who.trusted_address || self.cluster.contains(case.exchange.client) {
                return;
            }
            let subject = Subject::new(case, held);
            if !is_believed(&subject) {
                continue;
            }
            let outcome = subject.outcome();
            let statement = Statement {
                severity: severity(&ABOUT, outcome),
                confidence: if held.token.is_verified() { 95 } else { 75 },
                message: format!(
                    "A service-account token came from outside the cluster and {}.",
                    subject.told()
                ),
                brief: format!("service-account token {} abroad", outcome.verb()),
                facts: vec![("service_account", show(account).into())],
            };
            report.push(statement.into_finding(&ABOUT, &subject));
        }
    }
}

/// Whether the token is more than a claim: anybody can write that subject.
fn is_believed(subject: &Subject<'_>) -> bool {
    let token = subject.token;
    if cause(token).is_some() || must_refuse(token, subject.case.exchange.at, VERIFIERS_LEEWAY_S).is_some() {
        return false;
    }
    let guarded = subject.case.route.guard == Guard::Refuses;
    token.is_verified() || (guarded && subject.outcome() == Outcome::Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token, Unchecked};

    fn workload() -> Token {
        Token { subject: Some("system:serviceaccount:shop:orders".into()), ..token(1) }
    }

    fn found(stage: &Stage, token: Token) -> Vec<(Severity, String)> {
        let found = Play::new(rule(&Arc::default())).ask(stage, [token]);
        found.iter().map(|f| (f.severity, f.facts.last().unwrap().1.to_string())).collect()
    }

    #[test]
    fn tells_of_attempts_and_successes() {
        let abroad = Stage::new().client("203.0.113.9");
        assert_eq!(
            found(&abroad.clone().status(403), workload()),
            [(Severity::High, "\"shop:orders\"".into())]
        );
        assert_eq!(found(&abroad.status(200), workload())[0].0, Severity::Critical);
    }

    #[test]
    fn inside_and_other_tokens_are_benign() {
        for inside in ["10.42.0.7", "192.168.1.1", "127.0.0.1", "fd00::1", "::1", "::ffff:10.0.0.1"] {
            assert!(found(&Stage::new().status(200).client(inside), workload()).is_empty(), "{inside}");
        }
        assert!(found(&Stage::new().status(200).client("203.0.113.9"), token(1)).is_empty());
    }

    #[test]
    fn a_claim_is_believed_only_where_strangers_are_refused() {
        let claim =
            || Token { signature: Signature::Unchecked(Unchecked::NoIssuer), policy: None, ..workload() };
        let abroad = Stage::new().client("203.0.113.9").status(200);
        assert!(found(&abroad, claim()).is_empty());
        assert!(found(&abroad.clone().guard(Guard::Refuses).status(401), claim()).is_empty());
        assert_eq!(found(&abroad.guard(Guard::Refuses), claim())[0].0, Severity::Critical);
    }

    #[test]
    fn forgeries_and_old_tokens_are_left_to_others() {
        let abroad = Stage::new().client("203.0.113.9").status(200);
        assert!(found(&abroad, Token { signature: Signature::Invalid, ..workload() }).is_empty());
        assert!(found(&abroad, Token { expires: Some(1).into(), ..workload() }).is_empty());
    }

    #[test]
    fn the_cluster_is_what_the_configuration_says() {
        let settings = DetectSettings {
            cluster_networks: vec!["203.0.113.0/24".parse().unwrap()],
            trusted_addresses: vec!["198.51.100.7/32".parse().unwrap()],
            ..DetectSettings::default()
        };
        for (address, told) in [("203.0.113.9", 0), ("198.51.100.7", 0), ("10.0.0.1", 1)] {
            let settings = Arc::new(settings.clone());
            let mut play = Play::with(rule(&settings), &settings);
            assert_eq!(
                play.ask(&Stage::new().status(200).client(address), [workload()]).len(),
                told,
                "{address}"
            );
        }
    }
}
