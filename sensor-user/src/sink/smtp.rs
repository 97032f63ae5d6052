//! E-mail: one mail for each severe event, one mail about many of the less severe.
//!
//! A mail counts as delivered once the server has answered for it. If the connection ends between the last byte of a mail
//! and the answer, nobody knows: it is sent again, under the same Message-ID, by which mail readers and most servers
//! recognise what they have. A recipient that the server refuses keeps the mail from nobody else; that it was refused
//! is a dead letter.

mod letter;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;

use crate::detect::Severity;
use crate::render::Told;
use crate::sink::client::TlsSettings;
use crate::sink::wire::Place;
use crate::sink::{Batch, Delivery, Node, Outcome, Refusal, Sink, Unusable, Words};
use crate::token::settings::Secret;
use letter::Letter;
use talk::{Mailed, Talk};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The server.
    pub server: Place,
    /// How the conversation is encrypted.
    pub security: Security,
    /// Whether it may go over a network in the clear.
    pub insecure: bool,
    /// Whom to trust.
    pub tls: TlsSettings,
    /// Who sends, if the server wants to know.
    pub login: Option<Login>,
    /// The sender.
    pub from: Mailbox,
    /// The recipients, at least one.
    pub to: Vec<Mailbox>,
    /// Others who get it.
    pub cc: Vec<Mailbox>,
    /// How long low and medium events are gathered for one mail; none: each has its own.
    pub digest: Option<Duration>,
    /// Events of one digest at most.
    pub digest_events: usize,
}

impl Settings {
    /// Whether mails and a login may be sent without TLS.
    #[must_use]
    pub fn may_be_plain(&self) -> bool {
        let is_loopback = |address: std::net::IpAddr| address.is_loopback();
        let host = &self.server.host;
        self.insecure || host == "localhost" || host.parse().is_ok_and(is_loopback)
    }

    fn recipients(&self) -> Vec<String> {
        self.to.iter().chain(&self.cc).map(|mailbox| mailbox.email.to_string()).collect()
    }
}

/// How the conversation is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// After a greeting; the server must offer it.
    StartTls,
    /// From the first byte on.
    Tls,
    /// Not at all.
    None,
}

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Opens it.
///
/// # Errors
/// When mails could go over a network in the clear, or to nobody.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    if settings.security == Security::None && !settings.may_be_plain() {
        return Err(Unusable(format!("mails to {} would go in the clear", settings.server)));
    }
    if settings.to.is_empty() {
        return Err(Unusable("mails would go to nobody".into()));
    }
    Ok(Box::new(Mailer {
        settings: settings.clone(),
        node: Arc::clone(&node.name),
        taken: Vec::new(),
        digest: Vec::new(),
    }))
}

struct Mailer {
    settings: Settings,
    node: Arc<str>,
    /// Mails of a batch that failed later on and that the server has, with who does not get them. At most a batch.
    taken: Vec<(String, Option<Words>)>,
    /// The events of the digest that was tried last: it is tried again as it was, under the same Message-ID.
    digest: Vec<u64>,
}

/// A mail, and the places of its events in the batch.
struct Mail {
    events: Vec<usize>,
    letter: Letter,
}

impl Mailer {
    fn is_gathered(&self, severity: Severity) -> bool {
        self.settings.digest.is_some() && severity < Severity::High
    }

    /// The batch as groups of events: a mail each.
    fn groups(&self, events: &[Arc<Told>]) -> Vec<Vec<usize>> {
        let (gathered, alone): (Vec<usize>, Vec<usize>) = (0..events.len())
            .partition(|at| events.get(*at).is_some_and(|told| self.is_gathered(told.severity)));
        let mut groups: Vec<Vec<usize>> = alone.into_iter().map(|at| vec![at]).collect();
        let tried: Vec<u64> =
            gathered.iter().filter_map(|at| events.get(*at)).map(|told| told.sequence).collect();
        let again = if tried.starts_with(&self.digest) { self.digest.len() } else { 0 };
        let (first, rest) = gathered.split_at(again.min(gathered.len()));
        let most = self.settings.digest_events.max(1);
        groups.extend(
            [first].into_iter().chain(rest.chunks(most)).filter(|g| !g.is_empty()).map(<[_]>::to_vec),
        );
        groups
    }

    fn write(&self, events: &[Arc<Told>], group: &[usize]) -> Result<Letter, lettre::error::Error> {
        let chosen: Vec<Arc<Told>> = group.iter().filter_map(|at| events.get(*at)).cloned().collect();
        match chosen.as_slice() {
            [told] => letter::single(&self.settings, &self.node, told),
            many => letter::many(&self.settings, &self.node, many),
        }
    }

    async fn send(&mut self, events: &[Arc<Told>]) -> Outcome {
        let (mut refused, mut answer) = (Vec::new(), Words::default());
        let mut refuse = |events: &[usize], reason: &Words| {
            refused.extend(events.iter().map(|index| Refusal { index: *index, reason: reason.clone() }));
        };
        let (recipients, from) = (self.settings.recipients(), self.settings.from.email.to_string());
        let mut talk = None;
        for group in self.groups(events) {
            let mail = match self.write(events, &group) {
                Ok(letter) => Mail { events: group, letter },
                Err(error) => {
                    refuse(&group, &Words::new(&format!("no mail can be written of it: {error}")));
                    continue;
                }
            };
            if let Some((_, but)) = self.taken.iter().find(|(id, _)| *id == mail.letter.id) {
                if let Some(reason) = but {
                    refuse(&mail.events, reason);
                }
                continue;
            }
            if mail.events.len() > 1 {
                self.digest =
                    mail.events.iter().filter_map(|at| events.get(*at)).map(|told| told.sequence).collect();
            }
            let open = match &mut talk {
                Some(open) => open,
                None => match Talk::begin(&self.settings, &hello(&self.node)).await {
                    Ok(begun) => talk.insert(begun),
                    Err(trouble) => return self.later(&trouble.to_string()),
                },
            };
            match open.mail(&from, &recipients, &mail.letter).await {
                Ok(Mailed::Taken { answer: said, but }) => {
                    answer = said;
                    if let Some(reason) = &but {
                        refuse(&mail.events, reason);
                    }
                    self.taken.push((mail.letter.id, but));
                }
                Ok(Mailed::Refused(reason)) => refuse(&mail.events, &reason),
                Ok(Mailed::Later(reason)) => return self.later(reason.as_str()),
                Err(trouble) => return self.later(&trouble.to_string()),
            }
        }
        if let Some(talk) = talk {
            talk.end().await;
        }
        self.taken.clear();
        self.digest.clear();
        Outcome::Done { refused, answer }
    }

    fn later(&self, reason: &str) -> Outcome {
        Outcome::later(format!("{}: {reason}", self.settings.server))
    }
}

/// The name by which we greet: the node's, if a host can have it.
fn hello(node: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !node.is_empty() && node.len() <= 253 && node.chars().all(fits) {
        node.to_owned()
    } else {
        "[127.0.0.1]".to_owned()
    }
}

impl Sink for Mailer {
    fn batch(&self) -> Batch {
        Batch { events: self.settings.digest_events.max(1), bytes: 1 << 20 }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.send(events))
    }

    fn patience(&self, severity: Severity) -> Duration {
        self.settings.digest.filter(|_| self.is_gathered(severity)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
