//! Mails: one about an event, or one about many. Plain text, and the same as a table in HTML.
//!
//! Every text of an event passes [`clean`] and, in HTML, [`Html`]: no line break gets into a header, no markup into the
//! page. The same events always make the same mail, to the byte: its Message-ID tells who gets it twice.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use lettre::message::header::{self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Message, MultiPart, SinglePart};

use super::Settings;
use crate::detect::{Severity, text};
use crate::render::{Format, Kind, Told, shown};

/// Longest subject and longest value of a header, in characters: what a list of mails shows.
const MAX_HEADER: usize = 180;

/// The last second that a Date header can say.
const LAST_S: u64 = 253_402_300_799;

/// A mail as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// What is between the angle brackets of its Message-ID.
    pub(super) id: String,
    /// The mail, header and body.
    pub(super) bytes: Vec<u8>,
}

/// A mail about one event.
pub(super) fn single(settings: &Settings, node: &str, told: &Told) -> Result<Letter, lettre::error::Error> {
    let severity = told.severity.as_str();
    let place = match told.kind {
        Kind::Alert => told.workload(),
        Kind::Incident => told.texts("/unmapped/services").next(),
    };
    let on = place.map(|place| format!(" on {place}")).unwrap_or_default();
    let subject = format!("[{}] {}{on} ({node})", severity.to_ascii_uppercase(), told.rule());
    let rows = rows(told, node);
    let mut plain = format!("{}\n\n{}\n\n", clean(told.title()), clean(told.message()));
    let mut html = Html::begin(told.title());
    html.paragraph(told.message());
    html.open("<table>");
    for (name, value) in &rows {
        let _ = writeln!(plain, "{name:<10} {}", clean(value));
        html.open("<tr><th align=\"left\">").text(name).open("</th><td>").text(value).open("</td></tr>\n");
    }
    html.open("</table>");
    let draft = Draft {
        name: told.event_id(),
        about: Some(told.id()),
        subject,
        time_ms: told.time_ms,
        marks: vec![
            ("X-Tokenscope-Severity", severity.to_ascii_lowercase()),
            ("X-Tokenscope-Rule", told.rule().to_owned()),
            ("X-Tokenscope-Event", told.event_id().to_owned()),
            ("X-Tokenscope-Node", node.to_owned()),
        ],
        priority: told.severity,
    };
    draft.letter(settings, node, &plain, &html.end())
}

/// A mail about many events.
pub(super) fn many(
    settings: &Settings,
    node: &str,
    all: &[Arc<Told>],
) -> Result<Letter, lettre::error::Error> {
    let worst = all.iter().map(|told| told.severity).max().unwrap_or(Severity::Low);
    let times = || all.iter().map(|told| told.time_ms);
    let (from, to) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let subject =
        format!("[digest] {} events, worst {} ({node})", all.len(), worst.as_str().to_ascii_lowercase());
    let span = format!("From {} to {}.", shown::timestamp_ms(from), shown::timestamp_ms(to));
    let mut plain = format!("{span}\n\n");
    let mut html = Html::begin(&subject);
    html.paragraph(&span);
    html.open("<table><tr>");
    for name in ["Time", "Severity", "Rule", "Principal", "Client", "Workload", "Request", "What", "Count"] {
        html.open("<th align=\"left\">").text(name).open("</th>");
    }
    html.open("</tr>\n");
    for told in all {
        Format::Compact.told(told, false, &mut plain);
        html.open("<tr>");
        for cell in cells(told) {
            html.open("<td>").text(&cell).open("</td>");
        }
        html.open("</tr>\n");
    }
    html.open("</table>");
    let names = all.iter().map(|told| told.event_id()).collect::<Vec<_>>().join("\n");
    let name = format!("digest-{}", hex(names.as_bytes()));
    let marks = vec![
        ("X-Tokenscope-Severity", worst.as_str().to_ascii_lowercase()),
        ("X-Tokenscope-Digest", all.len().to_string()),
        ("X-Tokenscope-Node", node.to_owned()),
    ];
    let draft = Draft { name: &name, about: None, subject, time_ms: to, marks, priority: worst };
    draft.letter(settings, node, &plain, &html.end())
}

struct Draft<'a> {
    name: &'a str,
    about: Option<&'a str>,
    subject: String,
    time_ms: u64,
    marks: Vec<(&'static str, String)>,
    priority: Severity,
}

impl Draft<'_> {
    fn letter(
        self,
        settings: &Settings,
        node: &str,
        plain: &str,
        html: &str,
    ) -> Result<Letter, lettre::error::Error> {
        let domain = settings.from.email.domain();
        let named = |name: &str| format!("{}.{}@{domain}", word(name), word(node));
        let id = named(self.name);
        let at = Duration::from_millis(self.time_ms).min(Duration::from_secs(LAST_S));
        let mut builder = Message::builder()
            .from(settings.from.clone())
            .date(UNIX_EPOCH.checked_add(at).unwrap_or(SystemTime::UNIX_EPOCH))
            .subject(line(&self.subject))
            .message_id(Some(format!("<{id}>")));
        for to in &settings.to {
            builder = builder.to(to.clone());
        }
        for cc in &settings.cc {
            builder = builder.cc(cc.clone());
        }
        if let Some(about) = self.about {
            // What is told of one alert is one thread.
            builder = builder.references(format!("<{}>", named(&format!("alert-{about}"))));
        }
        let mut marks = self.marks;
        // RFC 3834 section 5: nobody answers that they are on holiday.
        marks.push(("Auto-Submitted", "auto-generated".into()));
        if self.priority >= Severity::High {
            marks.push(("Importance", "high".into()));
        }
        for (name, value) in marks {
            builder = builder.raw_header(HeaderValue::new(
                HeaderName::new_from_ascii(name.into())
                    .unwrap_or(HeaderName::new_from_ascii_str("X-Tokenscope")),
                line(&value),
            ));
        }
        let part = |kind: ContentType, body: &str| {
            let builder = SinglePart::builder().header(kind).header(ContentTransferEncoding::QuotedPrintable);
            builder.body(body.to_owned())
        };
        // Quoted-printable never has `=_`, so no event can hold the boundary.
        let boundary = format!("=_{}", hex(id.as_bytes()));
        let body = MultiPart::alternative()
            .boundary(boundary)
            .singlepart(part(header::ContentType::TEXT_PLAIN, plain))
            .singlepart(part(header::ContentType::TEXT_HTML, html));
        Ok(Letter { id, bytes: builder.multipart(body)?.formatted() })
    }
}

/// What a mail says of an event, as a name and a value.
fn rows(told: &Told, node: &str) -> Vec<(&'static str, String)> {
    let text = |place: &str| told.text(place).map(str::to_owned);
    let number = |place: &str| told.number(place).map(|n| n.to_string());
    let list = |items: Vec<&str>| (!items.is_empty()).then(|| items.join(", "));
    let time = |place: &str| told.number(place).map(shown::timestamp_ms);
    let port =
        number("/evidences/0/src_endpoint/port").map(|port| format!(" port {port}")).unwrap_or_default();
    let status = number("/evidences/0/http_response/code").unwrap_or_else(|| "not answered".into());
    let all = [
        ("Severity", Some(told.severity.as_str().to_owned())),
        ("Rule", Some(told.rule().to_owned())),
        ("Time", Some(shown::timestamp_ms(told.time_ms))),
        ("First seen", time("/finding_info/first_seen_time").or_else(|| time("/start_time"))),
        ("Count", number("/count")),
        (
            "Principal",
            told.principal_name().or_else(|| list(told.observables("evidences.actor.user.uid").collect())),
        ),
        (
            "Client",
            told.address()
                .map(|address| format!("{address}{port}"))
                .or_else(|| list(told.observables("evidences.src_endpoint.ip").collect())),
        ),
        (
            "Workload",
            told.workload().map(str::to_owned).or_else(|| list(told.texts("/unmapped/services").collect())),
        ),
        (
            "Request",
            text("/evidences/0/api/operation")
                .map(|route| format!("{route}, {status}"))
                .or_else(|| list(told.texts("/unmapped/routes").collect())),
        ),
        ("Path", text("/evidences/0/http_request/url/path")),
        ("Rules", list(told.texts("/unmapped/rules").collect())),
        ("Token", told.token().map(str::to_owned)),
        ("Risk", number("/risk_score")),
        ("Attack", list(told.techniques().collect())),
        ("Incident", text("/metadata/correlation_uid")),
        ("Event", Some(told.event_id().to_owned())),
        ("State", Some(told.activity().to_owned())),
        ("Node", Some(node.to_owned())),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        .collect()
}

fn cells(told: &Told) -> [String; 9] {
    let of = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let incident = told.kind == Kind::Incident;
    [
        shown::timestamp_ms(told.time_ms),
        told.severity.as_str().to_owned(),
        told.rule().to_owned(),
        told.principal_name().unwrap_or_else(|| of(told.observables("evidences.actor.user.uid").next())),
        of(told.address().or_else(|| told.observables("evidences.src_endpoint.ip").next())),
        of(told.workload().or_else(|| told.texts("/unmapped/services").next())),
        of(told.text("/evidences/0/api/operation").or_else(|| told.texts("/unmapped/routes").next())),
        of(if incident { Some(told.title()) } else { told.text("/finding_info/desc") }),
        told.number("/count").unwrap_or(1).to_string(),
    ]
}

/// Printable text.
fn clean(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    words.chars().for_each(|c| text::push_char(&mut out, c));
    out
}

/// Printable text for a header.
fn line(words: &str) -> String {
    clean(&words.chars().take(MAX_HEADER).collect::<String>())
}

/// A part of a Message-ID: letters, digits, `-` and `_`.
fn word(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let word: String = name.chars().take(100).map(fits).collect();
    if word.is_empty() { "_".into() } else { word }
}

/// 80 bits of a hash: two digests are the same by chance once in ages.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in digest(&SHA256, bytes).as_ref().iter().take(10) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// A page, in which text stays text.
struct Html(String);

impl Html {
    fn begin(title: &str) -> Self {
        let mut page = Self("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>".into());
        page.text(title).open("</title></head><body>\n<h3>").text(title).open("</h3>\n");
        page
    }

    fn open(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    fn paragraph(&mut self, words: &str) {
        self.open("<p>").text(words).open("</p>\n");
    }

    fn text(&mut self, words: &str) -> &mut Self {
        for c in words.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => text::push_char(&mut self.0, c),
            }
        }
        self
    }

    fn end(mut self) -> String {
        self.open("\n</body></html>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::settings;
    use super::*;
    use crate::alert::Event;
    use crate::alert::staging::{alert, event, incident};
    use crate::render::Node;

    fn told(event: &Event) -> Told {
        Told::of(event, Some(7), Some(&Node::named("node-1")))
    }

    fn mail(told: &Told) -> (String, String) {
        let letter = single(&settings(1), "node-1", told).unwrap();
        assert_eq!(letter, single(&settings(1), "node-1", told).unwrap(), "always the same");
        (letter.id, String::from_utf8(letter.bytes).unwrap())
    }

    fn head(mail: &str) -> &str {
        mail.split_once("\r\n\r\n").unwrap().0
    }

    #[test]
    fn an_alert_has_the_promised_subject_and_headers() {
        let told = told(&event());
        let (id, mail) = mail(&told);
        assert!(id.starts_with(&format!("{}.node-1@", told.event_id())), "{id}");
        for header in [
            "Subject: [CRITICAL] alg-none on shop/orders-7f9c (node-1)\r\n",
            "From: Tokenscope <sensor@shop.example>\r\n",
            "To: a@shop.example, B <b@shop.example>\r\n",
            "Cc: c@shop.example\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Importance: high\r\n",
            "X-Tokenscope-Rule: alg-none\r\n",
            "X-Tokenscope-Severity: critical\r\n",
            "Date: Sat, 21 Nov 2026 18:04:05 +0000\r\n",
            &format!("Message-ID: <{id}>\r\n"),
        ] {
            assert!(mail.contains(header), "{header} in {}", head(&mail));
        }
        assert!(mail.contains("Client     10.0.3.7 port 50000"));
        assert!(mail.contains("<h3>Token without a signature</h3>"));
    }

    #[test]
    fn an_incident_says_what_it_holds() {
        let (_, mail) = mail(&told(&Event::Incident(Box::new(incident()))));
        assert!(mail.contains("Subject: [HIGH] incident on 10.0.0.1:8080 (node-1)"), "{}", head(&mail));
        assert!(mail.contains("Request    GET /orders/{id}, GET /invoices/{id}"));
    }

    #[test]
    fn a_digest_is_a_table_and_its_id_is_that_of_its_events() {
        let events: Vec<Arc<Told>> =
            [1, 2].map(|n| Arc::new(Told::of(&event(), Some(n), Some(&Node::named("n"))))).into();
        let letter = many(&settings(1), "node-1", &events).unwrap();
        let mail = String::from_utf8(letter.bytes.clone()).unwrap();
        assert!(mail.contains("Subject: [digest] 2 events, worst critical (node-1)"), "{}", head(&mail));
        assert_eq!(mail.matches("<tr><td>").count() + mail.matches("<tr><t=\r\nd>").count(), 2);
        assert_eq!(letter, many(&settings(1), "node-1", &events).unwrap());
        assert_ne!(letter.id, many(&settings(1), "node-1", &events[..1]).unwrap().id);
    }

    proptest! {
        #[test]
        fn nothing_in_an_event_gets_into_header_or_markup(
            hostile in "(\r\n|\n|\r|Bcc: x@evil.example|<script>|\\PC|\u{202e}|\"){0,20}",
            node in "[\r\n<>@a: ]{0,10}",
            huge in 0_usize..400,
        ) {
            let mut alert = alert();
            let hostile = format!("{hostile}{}", "\u{e9}".repeat(huge));
            alert.place.as_mut().unwrap().name = hostile.clone();
            alert.finding.principal.as_mut().unwrap().subject = hostile.clone().into();
            alert.finding.message = hostile.clone();
            alert.finding.brief = hostile;
            let told = Arc::new(told(&Event::Alert(Box::new(alert))));
            for letter in [
                single(&settings(1), &node, &told).unwrap(),
                many(&settings(1), &node, &[Arc::clone(&told), Arc::clone(&told)]).unwrap(),
            ] {
                let mail = String::from_utf8(letter.bytes).unwrap();
                prop_assert!(mail.is_ascii());
                prop_assert!(mail.lines().all(|line| line.len() <= 998));
                prop_assert!(!mail.replace("\r\n", "").contains(['\r', '\n']));
                let names: Vec<&str> = head(&mail).split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split(':').next().unwrap()).collect();
                let known = ["From", "Date", "Subject", "Message-ID", "To", "Cc", "References", "MIME-Version",
                    "Content-Type", "Auto-Submitted", "Importance"];
                prop_assert!(names.iter().all(|name| known.contains(name) || name.starts_with("X-Tokenscope-")), "{names:?}");
                let page = mail.split("Content-Type: text/html").nth(1).unwrap();
                prop_assert!(!page.replace("=\r\n", "").contains("<script"));
            }
        }
    }
}
