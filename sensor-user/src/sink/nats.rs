//! NATS: each event a message, by JetStream acknowledged one by one, or in the clear of core NATS.
//!
//! With JetStream the message's `Nats-Msg-Id` is the event's id, so that the stream drops a repeat within its duplicate
//! window (two minutes unless the stream says otherwise). Core NATS hands a message to whoever listens at that moment:
//! what we know then is that the server has it.

mod nkey;
mod talk;

use std::sync::Arc;

use serde_json::Value;

use crate::render::{Kind, Told};
use crate::sink::client::TlsSettings;
use crate::sink::taken::Taken;
use crate::sink::wire::{Broken, Place};
use crate::sink::{Batch, Delivery, Node, Outcome, Refusal, Sink, Unusable, Words};
use crate::token::settings::Secret;
use talk::{Answer, Message, Refused, Talk};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Servers of one cluster: the first that answers is used. At least one.
    pub servers: Vec<Place>,
    /// Encrypted by our own will; what a server demands is done anyway.
    pub encrypted: bool,
    /// How it is encrypted then.
    pub tls: TlsSettings,
    /// As whom.
    pub auth: Auth,
    /// The subject, with places for what the event holds.
    pub subject: Subject,
    /// Whether a stream must acknowledge.
    pub jetstream: bool,
    /// What subjects of answers begin with.
    pub inbox: String,
}

/// As whom the sink presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// As nobody.
    None,
    /// By name and password.
    User(String, Secret),
    /// By a token.
    Token(Secret),
    /// By the seed of a key.
    Nkey(Secret),
    /// By a file of credentials: a JWT and the seed of its key.
    Creds(Secret),
}

/// A subject with `{severity}`, `{rule}`, `{kind}`, `{namespace}` and `{node}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject(Box<str>);

/// What a subject may have places for.
const PLACES: [&str; 5] = ["severity", "rule", "kind", "namespace", "node"];

/// Longest subject, in bytes: a server refuses control lines of more than 4096, and the inbox is in them too.
const MAX_SUBJECT: usize = 1024;

/// Longest token of a subject that comes from an event, in bytes.
const MAX_PART: usize = 64;

impl Subject {
    /// Reads one.
    ///
    /// # Errors
    /// In words, when it is no subject to publish to.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut plain = text.to_owned();
        for place in PLACES {
            plain = plain.replace(&format!("{{{place}}}"), "x");
        }
        let is_bad = |c: char| !c.is_ascii_graphic() || matches!(c, '*' | '>' | '{' | '}');
        if plain.contains(['{', '}']) {
            let names = PLACES.map(|place| format!("{{{place}}}")).join(", ");
            return Err(format!("has a place for something else than {names}"));
        }
        if plain.len() > MAX_SUBJECT / 2
            || plain.split('.').any(|part| part.is_empty() || part.contains(is_bad))
        {
            return Err("is no subject: words with dots between, without spaces, * and >".into());
        }
        Ok(Self(text.into()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The subject of an event. What an event holds never makes more words of it than were written.
    fn of(&self, event: &Told, node: &str) -> String {
        let word = |text: &str| {
            let fits = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
            let word: String = text.chars().take(MAX_PART).map(fits).collect();
            if word.is_empty() { "_".to_owned() } else { word }
        };
        let severity = event.severity.as_str().to_ascii_lowercase();
        let kind = match event.kind {
            Kind::Alert => "alert",
            Kind::Incident => "incident",
        };
        let values = [&severity, event.rule(), kind, event.namespace().unwrap_or_default(), node];
        let mut subject = self.0.to_string();
        for (place, value) in PLACES.into_iter().zip(values) {
            subject = subject.replace(&format!("{{{place}}}"), &word(value));
        }
        subject
    }
}

/// Messages at once: that many acknowledgements are under way at most.
const BATCH: Batch = Batch { events: 256, bytes: 1 << 20 };

/// Below this many bytes a server's limit is no limit but nonsense: nothing is given up for it.
const LEAST_PAYLOAD: usize = 4096;

/// Errors of JetStream that will be the same whenever the message comes again: it is larger than the stream allows
/// (`JSStreamMessageExceedsMaximumErr`), or its headers are.
const NEVER: [u64; 2] = [10_054, 10_097];

/// A server.
pub struct Nats {
    settings: Settings,
    node: Node,
    talk: Option<Talk>,
    /// The server that was reached last.
    best: usize,
    taken: Taken,
}

/// Opens it.
///
/// # Errors
/// When the key that it is to present itself by is none.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    talk::Identity::of(&settings.auth).map_err(|why| Unusable(why.into()))?;
    let (settings, node) = (settings.clone(), node.clone());
    Ok(Box::new(Nats { settings, node, talk: None, best: 0, taken: Taken::default() }))
}

/// Why a batch comes again.
enum Trouble {
    /// The connection is of no use any more.
    Wire(Broken),
    /// The server or the stream refuses.
    Refused(Words),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Wire(broken)
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Wire(broken) => Self::Wire(broken),
            Refused::Words(words) => Self::Refused(words),
        }
    }
}

/// What became of a batch that is done.
#[derive(Default)]
struct Tally {
    stored: usize,
    repeated: usize,
    refused: Vec<Refusal>,
}

impl Sink for Nats {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn reopen(&mut self) {
        // The next connection reads its certificates again.
        self.talk = None;
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            let kept = self.talk.is_some();
            let mut attempt = self.publish(events).await;
            if kept && matches!(attempt, Err(Trouble::Wire(_))) {
                // The server closes who does not answer its pings: no failure before a fresh connection fails too.
                attempt = self.publish(events).await;
            }
            match attempt {
                Ok(Tally { stored, repeated, refused }) => {
                    self.taken.forget(events.iter().map(AsRef::as_ref));
                    let answer = format!("{stored} stored, {repeated} were there").into();
                    Outcome::Done { refused, answer }
                }
                Err(Trouble::Refused(reason)) => Outcome::later(reason),
                Err(Trouble::Wire(broken)) => Outcome::later(broken.to_string()),
            }
        })
    }
}

impl Nats {
    /// Publishes what was not taken yet. The connection is kept only if every answer was read.
    async fn publish(&mut self, events: &[Arc<Told>]) -> Result<Tally, Trouble> {
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.connect().await?,
        };
        let mut tally = Tally::default();
        let mut text = Vec::new();
        let mut sent = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if self.taken.has(event) {
                continue;
            }
            let message = self.message(event, index);
            match talk.max_payload() {
                Some(most) if message.size() > most && most >= LEAST_PAYLOAD => {
                    let reason = format!("{} bytes; the server takes {most}", message.size()).into();
                    tally.refused.push(Refusal { index, reason });
                }
                _ => {
                    talk.write(&message, self.settings.jetstream, &mut text);
                    sent.push(index);
                }
            }
        }
        if self.settings.jetstream {
            talk.send(&text).await?;
            self.acknowledged(&mut talk, events, sent, &mut tally).await?;
        } else {
            talk.flush(text).await?;
            tally.stored = sent.len();
        }
        self.talk = Some(talk);
        tally.refused.sort_unstable_by_key(|refusal| refusal.index);
        Ok(tally)
    }

    /// Waits until the stream has said something to each of these.
    async fn acknowledged(
        &mut self,
        talk: &mut Talk,
        events: &[Arc<Told>],
        mut sent: Vec<usize>,
        tally: &mut Tally,
    ) -> Result<(), Trouble> {
        let mut trouble = None;
        while !sent.is_empty() {
            let Answer { index, nobody, body } = talk.answer().await?;
            let Some(at) = sent.iter().position(|waiting| *waiting == index) else { continue };
            let Some(event) = events.get(sent.swap_remove(at)) else { continue };
            if nobody {
                trouble.get_or_insert_with(|| self.nobody(event));
                continue;
            }
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(error) = body.get("error") {
                let code = error.get("err_code").and_then(Value::as_u64).unwrap_or_default();
                let text = error.get("description").and_then(Value::as_str).unwrap_or("unknown");
                let reason = Words::new(&format!("JetStream refuses: {text} ({code})"));
                if NEVER.contains(&code) {
                    tally.refused.push(Refusal { index, reason });
                } else {
                    trouble.get_or_insert(reason);
                }
            } else if body.get("stream").is_some() && body.get("seq").is_some() {
                let repeated = body.get("duplicate").and_then(Value::as_bool) == Some(true);
                *(if repeated { &mut tally.repeated } else { &mut tally.stored }) += 1;
                self.taken.add(event);
            } else {
                return Err(Broken::Nonsense("JetStream would").into());
            }
        }
        trouble.map_or(Ok(()), |reason| Err(Trouble::Refused(reason)))
    }

    /// Nobody answers: there is no stream for the subject, or no JetStream at all.
    fn nobody(&self, event: &Told) -> Words {
        let subject = self.settings.subject.of(event, &self.node.name);
        let all = self.settings.subject.as_str().split('{').next().unwrap_or_default();
        let all = all.rsplit_once('.').map_or(">".to_owned(), |(start, _)| format!("{start}.>"));
        let text = format!(
            "no stream takes {subject}: `nats stream add TOKENSCOPE --subjects '{all}'`, or set `jetstream: false`"
        );
        text.into()
    }

    fn message<'a>(&self, event: &'a Told, index: usize) -> Message<'a> {
        let severity = event.severity.as_str().to_ascii_lowercase();
        let sequence = event.sequence.to_string();
        let headers = [
            ("Nats-Msg-Id", event.event_id()),
            ("Tokenscope-Severity", &severity),
            ("Tokenscope-Rule", event.rule()),
            ("Tokenscope-Node", &self.node.name),
            ("Tokenscope-Sequence", &sequence),
            ("Tokenscope-Schema", "ocsf/1.8.0"),
        ];
        Message::new(self.settings.subject.of(event, &self.node.name), &headers, event.json(), index)
    }

    /// The first server that can be reached, beginning with the one that was reached last.
    async fn connect(&mut self) -> Result<Talk, Trouble> {
        let mut trouble = Trouble::Refused("no server is configured".into());
        for turn in 0..self.settings.servers.len() {
            let at = (self.best + turn) % self.settings.servers.len();
            let Some(place) = self.settings.servers.get(at) else { continue };
            match Talk::open(place, &self.settings, &self.node).await {
                Ok(talk) => {
                    self.best = at;
                    return Ok(talk);
                }
                Err(why) => trouble = why.into(),
            }
        }
        Err(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use proptest::prelude::*;

    fn told(rule: &str) -> Told {
        let json = serde_json::json!({"finding_info": {"analytic": {"uid": rule}}}).to_string();
        Told::new(7, 0, Severity::High, Kind::Alert, json.into())
    }

    #[test]
    fn a_subject_has_words_and_known_places() {
        let subject = Subject::parse("tokenscope.alerts.{severity}.{rule}").unwrap();
        assert_eq!(subject.of(&told("alg-none"), "n"), "tokenscope.alerts.high.alg-none");
        for bad in ["", "a..b", "a b", "a.*", "a.>", ".a", "a.", "{rules}", "a.{", "a\r\nPUB x"] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_event_changes_the_words_of_a_subject(rule in "\\PC{0,80}|[\\x00-\\x7f]{0,80}", node in "\\PC{0,20}") {
            let subject = Subject::parse("a.{rule}.{node}").unwrap().of(&told(&rule), &node);
            prop_assert_eq!(subject.split('.').count(), 3);
            prop_assert!(subject.split('.').all(|word| !word.is_empty()));
            prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'));
        }
    }
}
