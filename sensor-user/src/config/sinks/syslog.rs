//! Keys of a sink of type `syslog`.

use std::path::PathBuf;

use crate::config::section::Section;
use crate::config::sinks::place;
use crate::config::tokens::Resolver;
use crate::config::word::{Word, Wrong, choose, excerpt, quote};
use crate::sink::client::TlsSettings;
use crate::sink::syslog::message::{Form, Syntax};
use crate::sink::syslog::{Framing, Settings, To};

/// Reads what is particular to it.
pub(super) fn read(s: &mut Section<'_, '_>, resolver: Resolver<'_>) -> Option<Settings> {
    let doc = "The receiver: udp://HOST:514, tcp://HOST:514, tls://HOST:6514 or unix:/dev/log.";
    let to = s.required::<To>("to", doc);
    let tls = super::tls::read(s, resolver);
    let to = match to {
        Some(To::Tls(place, _)) => Some(To::Tls(place, tls)),
        other => other,
    };
    let doc = "How messages are told apart on a stream: octet-counting or newline.";
    let framing = s.word("framing", Framing::Octets, doc);
    let doc = "Whether each delivery by TCP or TLS has a connection of its own, and counts once the receiver has closed it: \
               then it has read everything. Otherwise what it had not read when it died is lost, but for the last \
               delivery.";
    let confirm = s.word("confirm", false, doc);
    let doc = "The facility: kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, or local0 to \
               local7.";
    let Facility(facility) = s.word("facility", Facility(16), doc);
    let doc = "The APP-NAME of messages: up to 48 printable characters of ASCII.";
    let AppName(app) = s.word("app_name", AppName("tokenscope".into()), doc);
    let doc = "The name of the structured data, or off. The number behind @ is an enterprise's; that of the default is \
               kept for examples (RFC 5612).";
    let Element(element) = s.word("structured_data", Element(Some("tokenscope@32473".into())), doc);
    let format = super::file::format(s, "The text of messages: json, ocsf, ecs, falco, cef or compact.");
    let usual = if matches!(to, Some(To::Unix(_))) { Syntax::Local } else { Syntax::Rfc5424 };
    let doc = "What stands before the text: rfc5424, or local, which is what syslog(3) writes and services on this host \
               read. Left out: local by unix:, rfc5424 otherwise.";
    let syntax = s.word("syntax", usual, doc);
    // RFC 5426 section 3.2 wants every receiver to take 2048 bytes; rsyslog takes 8192 of any message.
    let usual = if matches!(to, Some(To::Udp(_))) { 2048 } else { 8192 };
    let doc = "Bytes of a message at most; text beyond is cut, and the structured data says so. Left out: 2048 by UDP, \
               8192 otherwise.";
    let max_bytes = usize::try_from(s.number("max_bytes", usual, 480..=65_507, doc)).unwrap_or(2048);
    Some(Settings {
        to: to?,
        framing,
        confirm,
        form: Form { syntax, facility, app, element, format, max_bytes },
    })
}

const SYNTAXES: [(&str, Syntax); 2] = [("rfc5424", Syntax::Rfc5424), ("local", Syntax::Local)];

impl Word for Syntax {
    const WHAT: &'static str = "rfc5424 or local";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &SYNTAXES)
    }

    fn show(&self) -> String {
        SYNTAXES.iter().find(|(_, syntax)| syntax == self).map_or("rfc5424", |(name, _)| name).to_owned()
    }
}

impl Word for To {
    const WHAT: &'static str = "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:PATH";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::parse(path)?;
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(Wrong::new(format!("is {}, which is no absolute path", excerpt(text))))
            };
        }
        let schemes = [("udp", 514), ("tcp", 514), ("tls", 6514)];
        let (url, place) = place::url(text, &schemes, "tcp://HOST:514 or tls://HOST:6514")?;
        if !matches!(url.path(), "" | "/") {
            return Err(Wrong::new(format!("is {}, with a path, which means nothing here", excerpt(text))));
        }
        Ok(match url.scheme() {
            "udp" => Self::Udp(place),
            "tls" => Self::Tls(place, TlsSettings::default()),
            _ => Self::Tcp(place),
        })
    }

    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

const FRAMINGS: [(&str, Framing); 2] = [("octet-counting", Framing::Octets), ("newline", Framing::Newline)];

impl Word for Framing {
    const WHAT: &'static str = "octet-counting or newline";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &FRAMINGS)
    }

    fn show(&self) -> String {
        FRAMINGS.iter().find(|(_, one)| one == self).map_or("newline", |(name, _)| name).to_owned()
    }
}

/// RFC 5424 section 6.2.1.
#[derive(Clone, Copy)]
struct Facility(u8);

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Word for Facility {
    const WHAT: &'static str = "a facility, such as local0";

    fn parse(text: &str) -> Result<Self, Wrong> {
        choose(text, &FACILITIES).map(Self)
    }

    fn show(&self) -> String {
        FACILITIES.iter().find(|(_, number)| *number == self.0).map_or("local0", |(name, _)| name).to_owned()
    }
}

struct AppName(String);

impl Word for AppName {
    const WHAT: &'static str = "up to 48 printable characters of ASCII";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if (1..=48).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("is {}; it must be {}", excerpt(text), Self::WHAT)))
    }

    fn show(&self) -> String {
        quote(&self.0)
    }
}

struct Element(Option<String>);

/// RFC 5424 section 6: no blank, `=`, `]` and `"`; nor a second `@`.
fn is_sd_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"' | '@'))
}

impl Word for Element {
    const WHAT: &'static str = "NAME@NUMBER, or off";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let fits = |(name, number): (&str, &str)| {
            is_sd_name(name) && number.starts_with(|c: char| c.is_ascii_digit()) && is_sd_name(number)
        };
        if text.len() <= 32 && text.split_once('@').is_some_and(fits) {
            return Ok(Self(Some(text.to_owned())));
        }
        Err(Wrong::new(format!("is {}; it must be {}", excerpt(text), Self::WHAT)))
    }

    fn show(&self) -> String {
        self.0.as_deref().map_or_else(|| "\"off\"".into(), quote)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::sinks::staging;

    fn settings(text: &str) -> (Option<Settings>, Vec<String>) {
        staging::settings(text, read)
    }

    fn wrong(text: &str, with: &str) {
        staging::wrong(text, with, read);
    }

    #[test]
    fn receivers_are_written_as_urls() {
        let read = |text| To::parse(text).map(|to| to.to_string()).ok();
        assert_eq!(read("udp://logs").as_deref(), Some("udp://logs:514"));
        assert_eq!(read("tls://[::1]:7").as_deref(), Some("tls://[::1]:7"));
        assert_eq!(read("unix:/dev/log").as_deref(), Some("unix:/dev/log"));
        for bad in ["logs:514", "http://logs", "unix:log", "tcp://me:hunter2@logs", "tcp://", "tcp://h/x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_element_has_a_name_and_a_number() {
        for good in ["tokenscope@32473", "x@1.2", "off"] {
            assert!(Element::parse(good).is_ok(), "{good}");
        }
        for bad in ["tokenscope", "@1", "x@", "x@y", "a b@1", "a]@1", "a\"@1", "a=b@1", "x@1@2"] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_receiver_is_enough() {
        for (to, max_bytes) in [("udp://logs", 2048), ("tls://logs", 8192)] {
            let (settings, problems) = settings(&format!("to: {to}"));
            assert_eq!(problems, Vec::<String>::new());
            let settings = settings.unwrap();
            assert_eq!((settings.form.max_bytes, settings.form.facility), (max_bytes, 16));
            assert_eq!(settings.form.syntax, Syntax::Rfc5424);
            assert_eq!(settings.form.element.as_deref(), Some("tokenscope@32473"));
        }
        let (settings, _) = settings("to: tls://logs\ntls: {ca: ca.pem}\nstructured_data: off");
        let settings = settings.unwrap();
        assert!(
            matches!(&settings.to, To::Tls(_, tls) if tls.ca.as_deref() == Some(Path::new("/base/ca.pem")))
        );
        assert_eq!(settings.form.element, None);
    }

    #[test]
    fn what_is_wrong_is_found_when_it_is_read() {
        wrong("facility: local0", "`to` is missing");
        wrong("to: udp://logs\nfacility: local8", "must be one of kern");
        wrong("to: udp://logs\nformat: yaml", "more than one line");
        wrong("to: udp://logs\napp_name: a b", "printable");
        wrong("to: udp://logs\nmax_bytes: 100", "from 480");
    }
}
