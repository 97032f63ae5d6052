//! `entity-risk`: alerts about one principal, token or address have added up.
//!
//! The rule itself judges no exchange: the alert stage, which knows every alert, reckons the risk and makes the finding.
//! The card gives it an id, a page, numbers and a severity like any other rule's.

use std::sync::Arc;

use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity, Threshold};

/// The card.
pub static ABOUT: About = About {
    id: "entity-risk",
    title: "Alerts about one entity add up",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &[],
    behavioural: true,
    needs: Needs::Exchange,
    doc: "Reckons a risk of 0 to 100 for every verified principal, token and client address that alerts are about. \
An alert moves it half of the alert's own risk (severity times confidence, or what its rule says in `risk_score`) \
towards a ceiling: 40 for low alerts, 80 for medium, 95 for high, 100 for critical. A rule that has spoken of the \
entity before moves it by half as much; several on one request count as the worst of them. Half of the risk is gone after every half-life.\n\nCrossing `medium_from` is \
a medium alert, crossing `high_from` a high one; it is told again only after the risk has fallen 20 points below. One \
alert alone never crosses. It matters because many small alerts about one user are one large attack, slow enough to \
miss every other rule.\n\nBenign source: one client with a mistake that several rules see; mark its alerts as false \
positives and they stop counting. Names that nobody has verified, trusted addresses, and addresses with eight or more \
verified principals behind them bear no risk.",
    cooling_s: 600,
    thresholds: &[
        Threshold {
            key: "medium_from",
            default: 70.0,
            min: 1.0,
            max: 100.0,
            doc: "Risk from which it is a medium alert.",
        },
        Threshold {
            key: "high_from",
            default: 90.0,
            min: 1.0,
            max: 100.0,
            doc: "Risk from which it is a high alert.",
        },
        Threshold {
            key: "half_life_h",
            default: 24.0,
            min: 0.1,
            max: 8760.0,
            doc: "Hours in which risk falls by half.",
        },
    ],
};

pub(super) fn rule(_settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(EntityRisk)
}

struct EntityRisk;

impl Rule for EntityRisk {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn judge(&mut self, _case: &Case<'_>, _report: &mut Report) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{Stage, token};

    #[test]
    fn says_nothing_of_an_exchange() {
        assert!(Stage::new().status(200).ask(&mut *rule(&Arc::default()), [token(1)]).is_empty());
    }
}
