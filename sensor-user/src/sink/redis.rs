//! A Redis stream: each event an entry with the fields `id`, `severity`, `rule`, `sequence`, `node` and `json`.
//!
//! Entry ids are given by the server: several nodes may write one stream, and an event may come after a newer one, which
//! ids of our own would forbid. So that a repeat adds nothing, a script looks for a key with the event's id first, adds
//! the entry and sets that key, which expires; nothing can come between. The order matters: if adding fails, nothing says
//! that it was added. The protocol is RESP2 (redis.io/docs/latest/develop/reference/protocol-spec), of which answers of
//! one short line and one short text are needed.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::render::Told;
use crate::sink::client::TlsSettings;
use crate::sink::taken::Taken;
use crate::sink::wire::{Broken, Place, Wire};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable, Words};
use crate::token::settings::Secret;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the server is.
    pub place: Place,
    /// How it is encrypted, if it is.
    pub tls: Option<TlsSettings>,
    /// The user of its access list; none is the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
    /// The key of the stream.
    pub stream: String,
    /// About how many entries it keeps.
    pub max_len: u64,
    /// For how many seconds a repeat is recognised; 0 for not at all.
    pub dedupe_s: u64,
}

/// Entries at once: a batch is written whole before answers are read.
const BATCH: Batch = Batch { events: 256, bytes: 1 << 20 };

/// Longest line of an answer, in bytes: an error's sentence. It may quote what it did not understand.
const MAX_LINE: usize = 1024;

/// Longest text of an answer, in bytes: an entry's id has at most 41.
const MAX_TEXT: usize = 64;

/// Adds an entry unless its event was added already. Servers before Redis 7 must be told that what the script does is
/// to be replicated, and not the script.
const SCRIPT: &str = "if redis.replicate_commands then redis.replicate_commands() end \
    if redis.call('EXISTS', KEYS[2]) == 1 then return false end \
    local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 3)) \
    redis.call('SET', KEYS[2], id, 'EX', ARGV[2]) \
    return id";

/// A stream.
pub struct Redis {
    settings: Settings,
    node: Node,
    wire: Option<Wire>,
    taken: Taken,
}

/// Opens it.
///
/// # Errors
/// Never: what is wrong may heal.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    let (settings, node) = (settings.clone(), node.clone());
    Ok(Box::new(Redis { settings, node, wire: None, taken: Taken::default() }))
}

/// Why a batch comes again.
enum Trouble {
    /// The connection is of no use any more.
    Wire(Broken),
    /// The server refuses.
    Refused(Words),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Wire(broken)
    }
}

/// An answer to one command.
enum Reply {
    /// A word, a number or a text.
    Some,
    /// Nothing: the script's answer to a repeat.
    None,
    /// An error.
    Error(String),
}

/// What became of a batch that was taken.
#[derive(Default)]
struct Tally {
    added: usize,
    repeated: usize,
}

impl Sink for Redis {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn reopen(&mut self) {
        // The next connection reads its certificates again.
        self.wire = None;
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            let kept = self.wire.is_some();
            let mut attempt = self.add(events).await;
            if kept && matches!(attempt, Err(Trouble::Wire(_))) {
                // The server closes idle connections when it likes: that is no failure before a fresh one fails too.
                attempt = self.add(events).await;
            }
            match attempt {
                Ok(Tally { added, repeated }) => {
                    self.taken.forget(events.iter().map(AsRef::as_ref));
                    Outcome::done(format!("{added} added, {repeated} were there"))
                }
                Err(Trouble::Refused(reason)) => Outcome::later(reason),
                Err(Trouble::Wire(broken)) => Outcome::later(broken.to_string()),
            }
        })
    }
}

impl Redis {
    /// Adds what was not added yet. The connection is kept only if every answer was read.
    async fn add(&mut self, events: &[Arc<Told>]) -> Result<Tally, Trouble> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.connect().await?,
        };
        let mut commands = Vec::new();
        let rest: Vec<&Told> =
            events.iter().map(AsRef::as_ref).filter(|event| !self.taken.has(event)).collect();
        for event in &rest {
            self.command(event, &mut commands);
        }
        wire.send(&commands).await?;
        let (mut tally, mut trouble) = (Tally::default(), None);
        for event in rest {
            match reply(&mut wire).await? {
                Reply::Some => tally.added += 1,
                Reply::None => tally.repeated += 1,
                Reply::Error(text) => {
                    trouble.get_or_insert(text);
                    continue;
                }
            }
            self.taken.add(event);
        }
        self.wire = Some(wire);
        match trouble {
            None => Ok(tally),
            Some(text) => Err(Trouble::Refused(self.explain(&text))),
        }
    }

    async fn connect(&self) -> Result<Wire, Trouble> {
        let Settings { place, tls, user, password, database, .. } = &self.settings;
        let mut wire = Wire::connect(place).await?;
        if let Some(tls) = tls {
            wire = wire.encrypt(tls).await?;
        }
        if let Some(password) = password {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(user.as_deref().map(str::as_bytes));
            words.push(&password.0);
            let mut text = Zeroizing::new(Vec::with_capacity(password.0.len() + 256));
            command(&words, &mut text);
            wire.send(&text).await?;
            if let Reply::Error(why) = reply(&mut wire).await? {
                // Its sentence may quote the password: the first word says enough.
                let word = why.split(' ').next().unwrap_or_default();
                let reason = format!("Redis refuses `user` and `password`: {word}");
                return Err(Trouble::Refused(reason.into()));
            }
        }
        if *database > 0 {
            let mut text = Vec::new();
            command(&[b"SELECT", database.to_string().as_bytes()], &mut text);
            wire.send(&text).await?;
            if let Reply::Error(why) = reply(&mut wire).await? {
                return Err(Trouble::Refused(self.explain(&why)));
            }
        }
        Ok(wire)
    }

    /// Appends the command that adds this event.
    fn command(&self, event: &Told, out: &mut Vec<u8>) {
        let Settings { stream, max_len, dedupe_s, .. } = &self.settings;
        let severity = event.severity.as_str().to_ascii_lowercase();
        let (max_len, dedupe, sequence) =
            (max_len.to_string(), dedupe_s.to_string(), event.sequence.to_string());
        let fields = [
            ("id", event.event_id()),
            ("severity", &severity),
            ("rule", event.rule()),
            ("sequence", &sequence),
            ("node", &self.node.name),
            ("json", event.json()),
        ];
        let mark = seen(stream, event.event_id());
        // An event without an id, which is damaged, would be taken for a repeat of any other.
        let head = if *dedupe_s > 0 && !event.event_id().is_empty() {
            vec!["EVAL", SCRIPT, "2", stream, &mark, &max_len, &dedupe]
        } else {
            vec!["XADD", stream, "MAXLEN", "~", &max_len, "*"]
        };
        let words = head.into_iter().chain(fields.into_iter().flat_map(|(name, value)| [name, value]));
        command(&words.map(str::as_bytes).collect::<Vec<_>>(), out);
    }

    /// What an error means, and what to do about it.
    fn explain(&self, text: &str) -> Words {
        let Settings { stream, .. } = &self.settings;
        // A script's error may stand behind a word of its own.
        let is = |word: &str| text.split([' ', '\'']).take(4).any(|other| other == word);
        if is("WRONGTYPE") {
            format!("WRONGTYPE: the key `{stream}` holds no stream: choose another `stream`").into()
        } else if is("OOM") {
            "OOM: Redis has reached its maxmemory".into()
        } else if is("READONLY") {
            "READONLY: this server is a replica: `url` must name the primary".into()
        } else if is("MOVED") || is("ASK") || is("CROSSSLOT") {
            format!("the stream `{stream}` is on another node of a cluster: {text}").into()
        } else if is("NOAUTH") || is("unauthenticated") {
            // Before a login Redis takes only commands that are shorter than ours.
            "NOAUTH: Redis wants a password: set `password`".into()
        } else if is("NOPERM") {
            let needed = if self.settings.dedupe_s > 0 {
                format!("+eval +xadd +exists +set ~{stream} ~{}", seen(stream, "*"))
            } else {
                format!("+xadd ~{stream}")
            };
            format!("NOPERM: the user of Redis needs {needed}").into()
        } else {
            Words::new(text)
        }
    }
}

/// The key that says that an event was added. In a cluster it must be where the stream is, which is what braces say.
fn seen(stream: &str, id: &str) -> String {
    if stream.contains('{') { format!("{stream}:seen:{id}") } else { format!("{{{stream}}}:seen:{id}") }
}

/// Appends a command: an array of texts, each with its length, so that nothing in them can end it.
fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

async fn reply(wire: &mut Wire) -> Result<Reply, Broken> {
    const WHAT: &str = "Redis would";
    let line = wire.line(MAX_LINE).await?;
    let (kind, rest) = line.split_first().ok_or(Broken::Nonsense(WHAT))?;
    let rest = str::from_utf8(rest).map_err(|_error| Broken::Nonsense(WHAT))?;
    match kind {
        b'+' | b':' => Ok(Reply::Some),
        b'-' => Ok(Reply::Error(rest.to_owned())),
        b'$' if rest == "-1" => Ok(Reply::None),
        b'$' => {
            let length: usize = rest.parse().map_err(|_error| Broken::Nonsense(WHAT))?;
            if length > MAX_TEXT {
                return Err(Broken::TooLong(MAX_TEXT));
            }
            wire.body(length).await.map(|_id| Reply::Some)
        }
        _ => Err(Broken::Nonsense(WHAT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    fn sink(dedupe_s: u64) -> Redis {
        let settings = Settings {
            place: Place { host: "127.0.0.1".into(), port: 1 },
            tls: None,
            user: Some("me".into()),
            password: Some(Secret(Zeroizing::new(b"hunter2".to_vec()))),
            database: 0,
            stream: "alerts".into(),
            max_len: 10,
            dedupe_s,
        };
        Redis { settings, node: Node::named("n"), wire: None, taken: Taken::default() }
    }

    #[test]
    fn nothing_in_an_event_can_end_its_command() {
        let json = "{\"metadata\":{\"uid\":\"a\\r\\nDEL alerts\"}}";
        let event = Told::new(7, 0, Severity::High, Kind::Alert, json.into());
        let mut out = Vec::new();
        sink(0).command(&event, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*18\r\n$4\r\nXADD\r\n$6\r\nalerts\r\n$6\r\nMAXLEN\r\n"), "{text}");
        assert!(text.contains("$13\r\na\r\nDEL alerts\r\n$8\r\nseverity\r\n$4\r\nhigh\r\n"), "{text}");
    }

    #[test]
    fn the_keys_of_an_event_are_on_one_node_of_a_cluster() {
        assert_eq!(seen("alerts", "X"), "{alerts}:seen:X");
        assert_eq!(seen("{a}lerts", "X"), "{a}lerts:seen:X");
    }

    #[test]
    fn errors_come_with_a_remedy_and_without_secrets() {
        let sink = sink(60);
        let wrong = sink.explain("WRONGTYPE Operation against a key holding the wrong kind of value");
        assert!(wrong.as_str().contains("choose another `stream`"));
        let old = sink.explain("ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation");
        assert!(old.as_str().contains("WRONGTYPE"));
        assert!(sink.explain("NOPERM this user has no permissions").as_str().contains("+eval"));
        assert_eq!(sink.explain("ERR x\u{1b}[2J").as_str(), "ERR x\\u{1b}[2J");
        assert!(!format!("{:?}", sink.settings).contains("hunter2"));
    }
}
