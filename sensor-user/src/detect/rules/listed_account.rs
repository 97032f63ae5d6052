//! `listed-account`: an account that must not be used.

use std::sync::Arc;

use crate::detect::listed::Listed;
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "listed-account",
    title: "An account that must not be used",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: Some(Severity::Critical),
    attack: &["T1078"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when an account in the deny list (`lists.denied_accounts` and its files) is used: by a verified \
token, or as the name in a login. Case, compatible letters of Unicode (full-width ones) and invisible characters are \
ignored, and the domain if it is one of `lists.account_domains`. A token is medium, critical if it is answered 2xx; a \
login that succeeds is critical, one that fails low.\n\nSuch accounts are known to be stolen, locked, or bait that \
nobody honest touches. A success says that the application does not know.\n\nBenign source: an owner who does not \
know of the list yet. A failed login is anybody's claim and names nobody. One finding a minute of each principal, \
unless it gets worse. It does not see accounts that tokens and logins call by other names than the list, such as a \
number; look-alikes from other alphabets are other accounts.\n\nWith `tokens.learn_issued` it knows which login a token \
came of: an opaque token, or one that calls its owner by another name, is told of as well. 20 bytes a principal and \
token.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(_: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(Listed::new(&ABOUT, "that must not be used", |knowledge| &knowledge.denied_accounts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage, token};

    #[test]
    fn a_success_is_critical_and_leavers_are_another_list() {
        let mut play = Play::new(rule(&Arc::default()));
        assert!(play.ask(&Stage::new().status(200), [token(1)]).is_empty(), "an empty list");
        play.knowledge.departed_accounts = ["alice".into()].into();
        assert!(play.ask(&Stage::new().status(200), [token(1)]).is_empty());
        play.knowledge.denied_accounts = ["alice".into()].into();
        play.knowledge.revision = 1;
        assert_eq!(play.ask(&Stage::new().status(200), [token(1)])[0].severity, Severity::Critical);
        let login = Stage::to("POST", "/login").kind(RouteKind::Login).status(200).account("alice");
        assert_eq!(play.ask(&login, [])[0].severity, Severity::Critical);
    }
}
