//! `departed-account`: an account of somebody who has left.

use std::sync::Arc;

use crate::detect::listed::Listed;
use crate::detect::{About, DetectSettings, Needs, Rule, Severity};

/// The card.
pub static ABOUT: About = About {
    id: "departed-account",
    title: "An account of somebody who has left",
    version: "1.1.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1078"],
    behavioural: false,
    needs: Needs::Verdict,
    doc: "Fires when an account in the leavers' list (`lists.departed_accounts` and its files) is used: by a verified \
token, or as the name in a login. Case, compatible letters of Unicode (full-width ones) and invisible characters are \
ignored, and the domain if it is one of `lists.account_domains`. A token is medium, high if it is answered 2xx; a \
login that succeeds is high, one that fails low.\n\nAccounts outlive their people, and former colleagues know \
passwords. A success says that nobody has closed the account.\n\nBenign source: a list that runs ahead of the last \
working day, and programs that nobody told. A failed login is anybody's claim and names nobody. One finding a minute \
of each principal, unless it gets worse. It does not see accounts that tokens and logins call by other names than the \
list, such as a number; look-alikes from other alphabets are other accounts.\n\nWith `tokens.learn_issued` it knows which login a token \
came of: an opaque token, or one that calls its owner by another name, is told of as well. 20 bytes a principal and \
token.",
    cooling_s: 600,
    thresholds: &[],
};

pub(super) fn rule(_: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(Listed::new(&ABOUT, "of somebody who has left", |knowledge| &knowledge.departed_accounts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::RouteKind;
    use crate::detect::staging::{Play, Stage, token};
    use crate::token::{Signature, Token};

    fn play() -> Play {
        let mut play = Play::new(rule(&Arc::default()));
        play.knowledge.departed_accounts = ["alice".into(), "bob@shop.example".into()].into();
        play
    }

    fn severity(play: &mut Play, stage: &Stage, token: Token) -> Option<Severity> {
        play.ask(stage, [token]).first().map(|f| f.severity)
    }

    fn used(s: u64, status: u16) -> Stage {
        Stage::new().status(status).after_ms(s * 1000)
    }

    #[test]
    fn a_token_is_told_of_once_a_minute_unless_it_gets_worse() {
        let mut play = play();
        assert_eq!(severity(&mut play, &used(0, 403), token(1)), Some(Severity::Medium));
        assert_eq!(severity(&mut play, &used(1, 403), token(1)), None);
        assert_eq!(severity(&mut play, &used(2, 200), token(2)), Some(Severity::High));
        assert_eq!(severity(&mut play, &used(61, 200), token(2)), None);
        assert_eq!(severity(&mut play, &used(62, 200), token(2)), Some(Severity::High));
    }

    #[test]
    fn case_is_ignored_and_other_accounts_are_benign() {
        let of = |name: &str| Token { subject: Some(name.into()), ..token(1) };
        assert!(severity(&mut play(), &used(0, 200), of("ALICE")).is_some());
        assert!(severity(&mut play(), &used(0, 200), of("alice2")).is_none());
        let forged = Token { signature: Signature::Invalid, ..token(1) };
        assert!(severity(&mut play(), &used(0, 200), forged).is_none(), "a claim names nobody");
    }

    #[test]
    fn one_account_has_many_spellings() {
        let found = |name: &str, domains: &[&str]| {
            let mut play = play();
            play.knowledge.spelling = crate::detect::spelling::Spelling::new(domains.iter().copied());
            let of = Token { subject: Some(name.into()), ..token(1) };
            let login = Stage::to("POST", "/login").kind(RouteKind::Login).status(200).account(name);
            let (used, entered) = (severity(&mut play, &used(0, 200), of), play.ask(&login, []).len());
            assert_eq!(used.is_some(), entered == 1, "{name}");
            used.is_some()
        };
        for name in [" Alice ", "\u{ff21}\u{ff2c}ICE", "al\u{200b}ice", "BOB@shop\u{ff0e}example"] {
            assert!(found(name, &[]), "{name}");
        }
        for name in ["alice@corp.example", "CORP\\Alice", "Alice@CORP"] {
            assert!(found(name, &["corp.example", "CORP"]) && !found(name, &[]), "{name}");
        }
        for name in ["alice@evil.example", "\u{430}lice", "bob", "alice.corp.example"] {
            assert!(!found(name, &["corp.example"]), "{name}");
        }
    }

    #[test]
    fn a_login_tells_by_how_it_ends() {
        let login = |status| {
            Stage::to("POST", "/login").kind(RouteKind::Login).status(status).account("Bob@Shop.example")
        };
        let found = play().ask(&login(200), []);
        assert_eq!((found[0].severity, &found[0].principal), (Severity::High, &None));
        assert!(found[0].facts.contains(&("account", "Bob@Shop.example".into())));
        assert_eq!(play().ask(&login(401), [])[0].severity, Severity::Low);
        let elsewhere = Stage::to("POST", "/orders").status(200).account("alice");
        assert!(play().ask(&elsewhere, []).is_empty());
    }

    #[test]
    fn another_list_is_looked_up_anew() {
        let mut play = play();
        play.knowledge.departed_accounts = ["carol".into()].into();
        assert_eq!(severity(&mut play, &used(0, 200), token(1)), None);
        play.knowledge.departed_accounts = ["alice".into()].into();
        assert_eq!(severity(&mut play, &used(1, 200), token(1)), None, "known by this revision");
        play.knowledge.revision = 1;
        assert_eq!(severity(&mut play, &used(2, 200), token(1)), Some(Severity::High));
        play.knowledge.departed_accounts.clear();
        assert_eq!(severity(&mut play, &used(200, 200), token(1)), None);
    }
}
