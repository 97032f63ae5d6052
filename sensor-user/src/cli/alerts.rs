//! `tokenscope alerts`: what people say of alerts, which the running sensor obeys from the next second on.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::alert::marks::{self, MAX_MARKS, Mark, Named, Opinion, Scope};
use crate::capture::Time;
use crate::cli::{Context, Failure, terminal};
use crate::config::Secrets;
use crate::detect::holder::holder;
use crate::render::shown;
use crate::store::index::{self, Entry};
use crate::store::marks::{edit, read};
use crate::telemetry::printable;

/// Longest event that is read from standard input: ten times the largest that we write.
const MAX_EVENT: u64 = 1 << 20;

/// Longest that a mark may hold: whoever wants longer should change the rule's configuration.
const LONGEST_DAYS: u64 = 3650;

/// Say whether alerts were attacks, and silence false ones
///
/// A false positive silences what comes later in its scope, for as long as it holds. A true positive is remembered, and
/// keeps a wider silence away from its own scope. Silenced findings are counted in
/// `tokenscope_findings_silenced_total`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope alerts mark 01KAM1VYQ3D1A2V7TMZXJ0QPRS false-positive --scope rule+address --note 'load test'
  tokenscope alerts list-marks
  tokenscope alerts unmark 3")]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Where the sensor keeps its state [default: `state.dir` of the configuration]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what an alert was
    ///
    /// The alert is looked up among the last hundred thousand of this host. With `--event -` it is read from standard
    /// input instead: one OCSF event as the sensor wrote it.
    #[command(after_help = "\
Examples:
  tokenscope alerts mark 01KAM1VYQ3D1A2V7TMZXJ0QPRS false-positive
  tokenscope alerts mark 01KAM1VYQ3D1A2V7TMZXJ0QPRS false-positive --scope rule+route --for 7d
  grep 01KAM1VYQ3D1A2V7TMZXJ0QPRS alerts.jsonl | head -1 | tokenscope alerts mark --event - true-positive")]
    Mark {
        /// The alert's id, and what it was: `false-positive` or `true-positive`; the id may be left out with --event
        #[arg(required = true, num_args = 1..=2, value_name = "ID OPINION")]
        words: Vec<String>,
        /// How far it goes: exact, rule+principal, rule+address, rule+route or rule
        #[arg(long, default_value = "exact", value_parser = scope)]
        scope: Scope,
        /// How long it holds: 30d, 12h, 45m
        #[arg(long = "for", default_value = "30d", value_name = "TIME", value_parser = duration)]
        holds: Duration,
        /// Why
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Read the alert's event instead of looking up its id; `-` is standard input
        #[arg(long, value_name = "FILE")]
        event: Option<PathBuf>,
    },
    /// One line a mark
    #[command(after_help = "\
Examples:
  tokenscope alerts list-marks
  tokenscope alerts list-marks -o json | jq '.[] | select(.opinion == \"false-positive\")'")]
    ListMarks,
    /// Take a mark back, and show it once more
    #[command(after_help = "\
Examples:
  tokenscope alerts unmark 3")]
    Unmark {
        /// Its number, as `list-marks` shows it
        number: u64,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = || Scope::ALL.map(Scope::as_str).join(", ");
    Scope::parse(text).ok_or_else(|| format!("it must be one of {}", names()))
}

/// `30d`, `12h`, `45m`, `90s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("it must be a number and a unit, as in 30d, 12h or 45m, and at most {LONGEST_DAYS}d");
    let unit = match text.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3_600,
        Some('m') => 60,
        Some('s') => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    let seconds = number.checked_mul(unit).filter(|s| (1..=LONGEST_DAYS * 86_400).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn opinion(text: &str) -> Result<Opinion, Failure> {
    [Opinion::FalsePositive, Opinion::TruePositive].into_iter().find(|o| o.as_str() == text).ok_or_else(
        || {
            let text = printable(text);
            Failure::Usage(format!("`{text}` is no opinion; say false-positive or true-positive"))
        },
    )
}

pub(super) fn alerts(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("alerts")?;
    let dir = if let Some(dir) = &arguments.state_dir {
        dir.clone()
    } else {
        let loaded = context.load(context.config_path().as_deref(), Secrets::Optional);
        let dir = loaded.map_err(Failure::Config)?.config.state.dir;
        dir.ok_or_else(|| {
            Failure::Usage("the configuration keeps no state (state.dir: off); name a --state-dir".into())
        })?
    };
    match &arguments.verb {
        Verb::Mark { words, scope, holds, note, event } => {
            let (id, said) = match (words.as_slice(), event) {
                ([id, said], _) => (Some(id), said),
                ([said], Some(_)) => (None, said),
                _ => return Err(Failure::Usage("name the alert's id and then what it was".into())),
            };
            let opinion = opinion(said)?;
            let entry = entry(&dir, id.map(String::as_str), event.as_deref(), *scope)?;
            let wish = Wish { opinion, scope: *scope, holds: *holds, note: note.as_deref() };
            let mark = mark(&dir, entry, &wish, now_ms())?;
            let text = if json { format!("{:#}\n", shown(&mark)) } else { line(&mark, now_ms()) };
            Ok(terminal::answer(&text)?)
        }
        Verb::ListMarks => {
            let marks = read(&dir).map_err(anyhow::Error::from)?;
            let now = now_ms();
            let text = if json {
                format!("{:#}\n", marks.all().iter().map(shown).collect::<Value>())
            } else {
                marks.all().iter().map(|mark| line(mark, now)).collect()
            };
            Ok(terminal::answer(&text)?)
        }
        Verb::Unmark { number } => {
            let mark = unmark(&dir, *number)?;
            let text = if json { format!("{:#}\n", shown(&mark)) } else { line(&mark, now_ms()) };
            Ok(terminal::answer(&text)?)
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "people mean their own clock when they say 30 days")]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What is wanted of a mark.
struct Wish<'a> {
    opinion: Opinion,
    scope: Scope,
    holds: Duration,
    note: Option<&'a str>,
}

/// The alert that is meant.
fn entry(dir: &Path, id: Option<&str>, event: Option<&Path>, scope: Scope) -> Result<Entry, Failure> {
    let id =
        match id {
            None => None,
            Some(id) => Some(Ulid::from_string(id).map_err(|error| {
                Failure::Usage(format!("`{}` is no id of an alert: {error}", printable(id)))
            })?),
        };
    let told = event.map(read_event).transpose()?;
    let Some(id) = id.or_else(|| told.as_ref().and_then(event_id)) else {
        return Err(Failure::Usage("the event is no alert of Tokenscope: it has no finding_info.uid".into()));
    };
    // The index knows more than the event shows: names in events may be masked.
    match (index::find(dir, id)?, told) {
        (Some(entry), _) => Ok(entry),
        (None, Some(event)) => from_event(id, &event, scope).map_err(Failure::Usage),
        (None, None) => Err(Failure::Usage(format!(
            "no alert {id} is among the recent ones in {}; give its event with --event",
            dir.display()
        ))),
    }
}

fn read_event(path: &Path) -> Result<Value, Failure> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_EVENT).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(MAX_EVENT).read_to_end(&mut bytes)?;
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::Usage(format!("not one event: {error}")))
}

fn event_id(event: &Value) -> Option<Ulid> {
    Ulid::from_string(event.pointer("/finding_info/uid")?.as_str()?).ok()
}

/// The key of an alert, from its event. What the event hides cannot be marked.
fn from_event(id: Ulid, event: &Value, scope: Scope) -> Result<Entry, String> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let rule = text("/finding_info/analytic/uid").ok_or("the event names no rule")?;
    let verified = event.pointer("/unmapped/verified").and_then(Value::as_bool) == Some(true);
    let subject = text("/evidences/0/actor/user/uid").filter(|_| verified);
    let token = text("/evidences/0/actor/session/uid");
    let hidden = subject.is_some_and(|s| s.contains('…') || s.starts_with("p-"));
    if hidden && matches!(scope, Scope::Exact | Scope::Principal) {
        return Err(
            "the event hides the principal: mark by id on the host that wrote it, or with another scope"
                .into(),
        );
    }
    if scope == Scope::Exact && token.is_none() && event.pointer("/unmapped/account").is_some() {
        return Err(
            "the event hides the account: mark by id on the host that wrote it, or with another scope".into(),
        );
    }
    let actor = match (subject, token) {
        (Some(subject), _) => marks::principal(subject, text("/evidences/0/actor/session/issuer")),
        (None, Some(token)) => format!("token:{token}"),
        (None, None) => "nobody".into(),
    };
    let (address, route) = match (client(event), service(event)) {
        (None, Some(server)) => (Some(server.ip()), server.to_string()),
        (client, _) => {
            let route = text("/evidences/0/api/operation").or_else(|| text("/finding_info/desc"));
            (client.map(holder), route.unwrap_or_default().to_owned())
        }
    };
    let key = Named { rule: rule.to_owned(), address, actor, route };
    Ok(Entry::new(id, key, subject.map(printable)))
}

/// The client of an alert's event; none, if it is about a service as a whole.
fn client(event: &Value) -> Option<IpAddr> {
    event.pointer("/evidences/0/src_endpoint/ip")?.as_str()?.parse().ok()
}

fn service(event: &Value) -> Option<SocketAddr> {
    let server = event.pointer("/evidences/0/dst_endpoint")?;
    let port = u16::try_from(server.get("port")?.as_u64()?).ok()?;
    Some(SocketAddr::new(server.get("ip")?.as_str()?.parse().ok()?, port))
}

/// Whether the alert has what the scope asks for.
fn fits(entry: &Entry, scope: Scope) -> Result<(), Failure> {
    let wrong = match scope {
        Scope::Principal if !entry.key.has_principal() => "no verified principal: a claim silences nobody",
        Scope::Address if entry.key.address.is_none() => "no address",
        Scope::Exact | Scope::Route if entry.key.is_rest() => {
            "no route of its own, it stands for many of one source: use rule+address"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(format!("--scope {}: the alert has {wrong}", scope.as_str())))
}

fn mark(dir: &Path, entry: Entry, wish: &Wish<'_>, now_ms: u64) -> Result<Mark, Failure> {
    fits(&entry, wish.scope)?;
    let until_ms = now_ms.saturating_add(u64::try_from(wish.holds.as_millis()).unwrap_or(u64::MAX));
    let (who, key) = (entry.who.filter(|_| wish.scope != Scope::Rule), entry.key.within(wish.scope));
    let added = edit(dir, |all, number| {
        all.retain(|mark| mark.until_ms > now_ms && (mark.scope, &mark.key) != (wish.scope, &key));
        if all.len() >= MAX_MARKS {
            return None;
        }
        let mark = Mark {
            number,
            alert: entry.id,
            opinion: wish.opinion,
            scope: wish.scope,
            key,
            who,
            made_ms: now_ms,
            until_ms,
            note: wish.note.map(marks::note),
        };
        all.push(mark.clone());
        Some(mark)
    });
    let full =
        || Failure::Usage(format!("there are {MAX_MARKS} marks already: take some back with `unmark`"));
    added.map_err(anyhow::Error::from)?.ok_or_else(full)
}

/// Takes a mark back. Its number is not given again, so that a list that somebody read earlier misleads nobody.
fn unmark(dir: &Path, number: u64) -> Result<Mark, Failure> {
    let taken = edit(dir, |marks, _| {
        let at = marks.iter().position(|mark| mark.number == number)?;
        Some(marks.remove(at))
    });
    taken.map_err(anyhow::Error::from)?.ok_or_else(|| {
        Failure::Usage(format!("there is no mark {number}; `tokenscope alerts list-marks` shows them"))
    })
}

fn shown(mark: &Mark) -> Value {
    json!({
        "number": mark.number,
        "alert": mark.alert.to_string(),
        "opinion": mark.opinion.as_str(),
        "scope": mark.scope.as_str(),
        "rule": mark.key.rule,
        "address": mark.key.address,
        "who": mark.who,
        "route": mark.key.route,
        "made": stamp(mark.made_ms),
        "until": stamp(mark.until_ms),
        "note": mark.note,
    })
}

fn stamp(ms: u64) -> String {
    shown::timestamp(Time(ms.saturating_mul(1_000_000)))
}

/// `3  false-positive  rule+address  alg-none  10.0.3.7  -  -  until 2026-12-21T18:04:05.123Z  load test`
fn line(mark: &Mark, now_ms: u64) -> String {
    let address = mark.key.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let who = mark.who.as_deref().map_or_else(|| "-".to_owned(), printable);
    let route = if mark.key.route.is_empty() { "-".to_owned() } else { printable(&mark.key.route) };
    let ends = if mark.until_ms > now_ms { "until" } else { "ended" };
    let mut out = format!("{}  {}  {}", mark.number, mark.opinion.as_str(), mark.scope.as_str());
    let _ = write!(out, "  {}  {address}  {who}  {route}", printable(&mark.key.rule));
    let _ = write!(out, "  {ends} {}", stamp(mark.until_ms));
    if let Some(note) = &mark.note {
        let _ = write!(out, "  {}", printable(note));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::key::Key;
    use crate::alert::{Event, Marks};
    use crate::detect::Scene;
    use crate::render::Format;
    use crate::render::Privacy;

    const NOW: u64 = 1_795_284_245_123;

    fn wish(opinion: Opinion, scope: Scope) -> Wish<'static> {
        Wish { opinion, scope, holds: Duration::from_hours(1), note: Some("load \x1b[2Jtest") }
    }

    fn of_alert() -> (crate::alert::Alert, Entry) {
        let alert = crate::alert::staging::alert();
        let entry = Entry::new(alert.id, Named::of(&alert.key), Some("alice@idp".into()));
        (alert, entry)
    }

    fn event(alert: crate::alert::Alert) -> Value {
        let mut event = String::new();
        Format::Ocsf.render(&Event::Alert(Box::new(alert)), false, &mut event);
        serde_json::from_str(&event).unwrap()
    }

    #[test]
    fn what_is_marked_is_silenced_until_it_is_unmarked() {
        let dir = tempfile::tempdir().unwrap();
        let (alert, entry) = of_alert();
        index::Index::open(dir.path()).unwrap().add(&entry).unwrap();
        let found = super::entry(dir.path(), Some(&alert.id.to_string()), None, Scope::Exact).ok().unwrap();
        for scope in Scope::ALL {
            let mark =
                mark(dir.path(), found.clone(), &wish(Opinion::FalsePositive, scope), NOW).ok().unwrap();
            let silences = |marks: &Marks| marks.silences(&Key::of(&alert.finding), &alert.finding);
            assert!(silences(&read(dir.path()).unwrap()), "{scope:?}");
            assert!(!line(&mark, NOW).trim_end().contains(char::is_control));
            unmark(dir.path(), mark.number).ok().unwrap();
            assert!(!silences(&read(dir.path()).unwrap()), "{scope:?}");
        }
        assert!(unmark(dir.path(), 7).is_err());
    }

    #[test]
    fn an_event_says_the_same_as_the_index() {
        let (alert, _) = of_alert();
        let mut of_service = alert.clone();
        of_service.finding.scene.as_mut().unwrap().endpoints.client = Scene::NOBODY;
        of_service.key = Key::of(&of_service.finding);
        for alert in [alert, of_service] {
            let (key, event) = (Named::of(&alert.key), event(alert));
            let read = from_event(event_id(&event).unwrap(), &event, Scope::Exact).unwrap();
            assert_eq!(read.key, key);
        }
    }

    #[test]
    fn what_an_event_hides_cannot_be_marked() {
        let (mut alert, _) = of_alert();
        alert.finding.principal.as_mut().unwrap().subject = "alice@shop.example".into();
        let event = event(Privacy::default().apply(&alert).into_owned());
        let id = event_id(&event).unwrap();
        assert!(from_event(id, &event, Scope::Principal).is_err());
        assert!(from_event(id, &event, Scope::Address).is_ok());
    }

    #[test]
    fn a_claim_silences_nobody() {
        let (_, mut entry) = of_alert();
        entry.key.actor = "token:00".into();
        assert!(fits(&entry, Scope::Principal).is_err());
        assert!(fits(&entry, Scope::Exact).is_ok());
        entry.key.actor = "rest".into();
        assert!(fits(&entry, Scope::Exact).is_err());
    }

    #[test]
    fn saying_it_again_replaces_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let (_, entry) = of_alert();
        for opinion in [Opinion::FalsePositive, Opinion::TruePositive] {
            mark(dir.path(), entry.clone(), &wish(opinion, Scope::Rule), NOW).ok().unwrap();
        }
        let marks = read(dir.path()).unwrap();
        assert_eq!(marks.all().len(), 1);
        assert_eq!(marks.all()[0].opinion, Opinion::TruePositive);
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (_, entry) = of_alert();
        let mark = |scope| {
            mark(dir.path(), entry.clone(), &wish(Opinion::FalsePositive, scope), NOW).ok().unwrap().number
        };
        assert_eq!([mark(Scope::Rule), mark(Scope::Exact)], [1, 2]);
        let taken = unmark(dir.path(), 2).ok().unwrap();
        assert_eq!((taken.number, taken.scope), (2, Scope::Exact));
        assert!(unmark(dir.path(), 2).is_err(), "it is gone");
        assert_eq!(mark(Scope::Exact), 3);
        assert_eq!(mark(Scope::Exact), 4, "said again, it replaces 3");
        let numbers: Vec<u64> = read(dir.path()).unwrap().all().iter().map(|mark| mark.number).collect();
        assert_eq!(numbers, [1, 4]);
    }

    #[test]
    fn times_are_read_with_their_units() {
        let read = |text: &str| duration(text).ok().map(|d| d.as_secs());
        assert_eq!(
            [read("30d"), read("12h"), read("45m"), read("1s")],
            [30 * 86_400, 43_200, 2_700, 1].map(Some)
        );
        for wrong in ["", "d", "30", "-1d", "0d", "9999999d", "1.5h", "99999999999999999999d", "3ö"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
