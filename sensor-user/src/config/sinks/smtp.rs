//! Keys of a sink of type `smtp`.

use std::time::Duration;

use lettre::message::Mailbox;

use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::sinks::place;
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, excerpt, quote};
use crate::sink::smtp::{Login, Security, Settings};
use crate::sink::wire::Place;

/// Most recipients: RFC 5321 section 4.5.3.1.8 makes every server take a hundred.
const MAX_RECIPIENTS: usize = 100;

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc =
        "The server: smtp://HOST:587, encrypted by STARTTLS, or smtps://HOST:465, encrypted from the start.";
    let server = s.required::<Server>("server", doc);
    let doc = "Whether a conversation that begins in the clear must be encrypted by STARTTLS.";
    let starttls = s.word("starttls", true, doc);
    let doc = "Whether mails and the password may go over a network in the clear. On this host they may.";
    let insecure = s.word("insecure", false, doc);
    let tls = super::tls::read(s, resolver);
    let login = login(s, resolver);
    let from = s.required::<Mail>("from", "The sender: sensor@shop.example, or Name <sensor@shop.example>.");
    let to = mailboxes(s, "to", "The recipients.");
    let cc = mailboxes(s, "cc", "Others who get every mail.");
    if to.is_empty() && !s.is_set("to") {
        s.report(Problem::error(s.span_of("to"), "`to` names nobody"));
    }
    if to.len() + cc.len() > MAX_RECIPIENTS {
        let message = format!("`to` and `cc` name more than {MAX_RECIPIENTS} recipients");
        s.report(Problem::error(s.span_of("to"), message).hint("write to a list"));
    }
    let doc = "Seconds for which low and medium events are gathered for one mail. 0: each has its own.";
    let digest = Some(s.number("digest_s", 3_600, 0..=86_400, doc)).filter(|seconds| *seconds > 0);
    let doc = "Events of such a mail at most; when there are as many it goes at once.";
    let digest_events = usize::try_from(s.number("digest_events", 100, 1..=1_000, doc)).unwrap_or(100);
    let (Server { place, is_tls }, from) = (server?, from?.0);
    let settings = Settings {
        server: place,
        security: match (is_tls, starttls) {
            (true, _) => Security::Tls,
            (false, true) => Security::StartTls,
            (false, false) => Security::None,
        },
        insecure,
        tls,
        login,
        from,
        to,
        cc,
        digest: digest.map(Duration::from_secs),
        digest_events,
    };
    if settings.security == Security::None && !settings.may_be_plain() {
        let message = format!("mails to {} would go over the network in the clear", settings.server);
        let problem = Problem::error(s.span_of("starttls"), message);
        s.report(problem.hint("remove `starttls: false`, or write `insecure: true` if you mean it"));
    }
    (!settings.to.is_empty()).then_some(settings)
}

fn login(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Login> {
    let user = s.optional::<String>("user", "Who sends, if the server wants to know.");
    let password = resolver.secret(s, "password", "And by which password, env:NAME or file:PATH.");
    let there = [("user", s.is_set("user")), ("password", s.is_set("password"))];
    if let [(key, true), (_, false)] | [(_, false), (key, true)] = there {
        s.report(Problem::error(s.span_of(key), "`user` and `password` need each other"));
    }
    Some(Login { user: user?, password: password? })
}

fn mailboxes(s: &mut Section<'_, '_>, key: &str, doc: &str) -> Vec<Mailbox> {
    s.words::<Mail>(key, Vec::new(), doc).into_iter().map(|mail| mail.0).collect()
}

#[derive(Debug)]
struct Server {
    place: Place,
    is_tls: bool,
}

impl Word for Server {
    const WHAT: &'static str = "smtp://HOST:PORT or smtps://HOST:PORT";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let schemes = [("smtp", 587), ("smtps", 465)];
        let (url, place) = place::url(text, &schemes, "smtp://HOST:587 or smtps://HOST:465")?;
        if !matches!(url.path(), "" | "/") {
            return Err(Wrong::new(format!("is {}, with a path, which means nothing here", excerpt(text))));
        }
        Ok(Self { place, is_tls: url.scheme() == "smtps" })
    }

    fn show(&self) -> String {
        quote(&format!("smtp{}://{}", if self.is_tls { "s" } else { "" }, self.place))
    }
}

struct Mail(Mailbox);

impl Word for Mail {
    const WHAT: &'static str = "an address of e-mail";
    const WHAT_MANY: &'static str = "addresses of e-mail";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(format!("is {}, which is no address of e-mail", excerpt(text)))
                .hint("write name@host.example, or Name <name@host.example>")
        };
        let mailbox: Mailbox = text.parse().map_err(|_error| wrong())?;
        let address = mailbox.email.to_string();
        // What a command of SMTP can hold as it is.
        if !address.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"'))
            || address.len() > 254
        {
            return Err(wrong());
        }
        if mailbox.name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            return Err(wrong());
        }
        Ok(Self(mailbox))
    }

    fn show(&self) -> String {
        quote(&self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sinks::staging;

    fn settings(text: &str) -> (Option<Settings>, Vec<String>) {
        staging::settings(text, read)
    }

    fn wrong(text: &str, with: &str) {
        staging::wrong(text, with, read);
    }

    #[test]
    fn servers_are_encrypted_one_way_or_the_other() {
        let read = |text| Server::parse(text).map(|server| (server.place.to_string(), server.is_tls)).ok();
        assert_eq!(read("smtp://mail"), Some(("mail:587".into(), false)));
        assert_eq!(read("smtps://[::1]"), Some(("[::1]:465".into(), true)));
        for bad in ["mail:25", "smtp://me:hunter2@mail", "http://mail", "smtp://", "smtp://h/x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_is_nothing_else() {
        for good in ["a@b.example", "A B <a+c@b.example>", "\u{e9} <a@b.example>"] {
            assert!(Mail::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a", "a@b.example, c@d.example", "a@b.example>\r\nRCPT TO:<x@y>", "\u{e9}@b.example", "<a@b"]
        {
            assert!(Mail::parse(bad).is_err(), "{bad:?}");
        }
    }

    const LEAST: &str = "server: smtp://mail.example\nfrom: a@b.example\nto: [c@d.example]\n";

    #[test]
    fn little_is_enough_and_no_password_is_shown() {
        let (settings_of, problems) = settings(&format!("{LEAST}user: me\npassword: env:PASSWORD\n"));
        assert_eq!(problems, Vec::<String>::new());
        let settings_of = settings_of.unwrap();
        assert_eq!(settings_of.security, Security::StartTls);
        assert_eq!(settings_of.digest, Some(Duration::from_hours(1)));
        assert_eq!(settings_of.login.as_ref().unwrap().password.0.as_slice(), b"hunter2");
        assert!(!format!("{settings_of:?}").contains("hunter2"));
        let (none, _) = settings(&format!("{LEAST}digest_s: 0\nstarttls: false\ninsecure: true"));
        assert_eq!(none.map(|s| (s.security, s.digest)), Some((Security::None, None)));
    }

    #[test]
    fn what_is_wrong_is_found_when_it_is_read() {
        wrong(&format!("{LEAST}starttls: false"), "in the clear");
        wrong(&format!("{LEAST}user: me"), "need each other");
        wrong(&format!("{LEAST}password: hunter3"), "is not env:NAME");
        wrong("server: smtp://mail\nfrom: a@b.example", "`to` names nobody");
        wrong("server: smtp://mail\nfrom: a\nto: [c@d.example]", "no address of e-mail");
        wrong("from: a@b.example\nto: [c@d.example]", "`server` is missing");
    }
}
