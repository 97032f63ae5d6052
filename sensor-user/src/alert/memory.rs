//! The desk over a restart: open alerts, incidents and risks as bytes, and back.
//!
//! Cards are kept by id and found again in the catalogue: an alert of a rule that is gone is forgotten. The bytes hold
//! no token and no secret, but they name principals and addresses: their file is for its owner only.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use ulid::Ulid;

use crate::alert::entity::{Entity, MANY};
use crate::alert::incident::{MAX_KEYS, MAX_MEMBERS, MAX_MERGED, MAX_NAMES, MAX_PEOPLE, Member, Open};
use crate::alert::key::{Actor, Key};
use crate::alert::risk::Score;
use crate::alert::{Activity, Alert, Desk, Incident};
use crate::capture::Time;
use crate::detect::table::Table;
use crate::detect::{About, Finding, Principal, Scene, Severity};
use crate::token::Fingerprint;

/// Raised when the bytes change.
const VERSION: u32 = 2;

/// Names of facts that a snapshot may bring: ten times those of the catalogue. They live as long as the process.
const MAX_FACTS: usize = 1024;

/// Longest name of a fact.
const MAX_FACT: usize = 64;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    alerts: Vec<KeptAlert>,
    incidents: Vec<KeptIncident>,
    risks: Table<Entity, Score>,
    crowds: Table<IpAddr, SmallVec<[u64; MANY]>>,
}

#[derive(Serialize, Deserialize)]
enum KeptActor {
    Principal(Box<str>, Option<Box<str>>),
    Token(Fingerprint),
    Nobody,
    Rest,
    Claimed(u64),
}

#[derive(Serialize, Deserialize)]
struct KeptAlert {
    id: u128,
    severity: Severity,
    raised: Time,
    first_seen: Time,
    last_seen: Time,
    count: u64,
    told: u64,
    cooling: bool,
    ends: Time,
    key_rule: String,
    address: Option<IpAddr>,
    actor: KeptActor,
    route: String,
    incident: Option<u128>,
    entity_risk: u8,
    finding: KeptFinding,
}

#[derive(Serialize, Deserialize)]
struct KeptFinding {
    rule: String,
    at: Time,
    severity: Severity,
    confidence: u8,
    principal: Option<Principal>,
    token: Option<Fingerprint>,
    message: String,
    brief: String,
    /// Values as JSON: postcard does not describe itself.
    facts: Vec<(String, String)>,
    scene: Option<Box<Scene>>,
}

#[derive(Serialize, Deserialize)]
struct KeptIncident {
    id: u128,
    severity: Severity,
    raised: Time,
    first_seen: Time,
    last_seen: Time,
    members: Vec<(u128, String, Severity, Time)>,
    counts: [u64; 4],
    risk: u8,
    principals: Vec<(Box<str>, Option<Box<str>>)>,
    tokens: Vec<Fingerprint>,
    addresses: Vec<IpAddr>,
    routes: Vec<String>,
    services: Vec<std::net::SocketAddr>,
    people: Vec<Box<str>>,
    keys: Vec<Entity>,
    merged: Vec<u128>,
    told: bool,
}

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be written, or is not what we write.
    #[error("not a snapshot of alerts: {0}")]
    Malformed(#[from] postcard::Error),
    /// Another version wrote it.
    #[error("version {0} of the snapshot; this program reads version {VERSION}")]
    Version(u32),
}

impl Desk {
    /// Everything that is open, cooling, or remembered.
    ///
    /// # Errors
    /// Never with what the desk holds; the format's own type says so.
    pub fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        let snapshot = Saved {
            version: VERSION,
            alerts: self.files.iter().map(|f| keep_alert(&f.alert, f.told, f.cooling, f.ends)).collect(),
            incidents: self.incidents.open.values().map(keep_incident).collect(),
            risks: &self.risks.scores,
            crowds: &self.sharing.seen,
        };
        Ok(postcard::to_allocvec(&snapshot)?)
    }

    /// Goes on where an earlier run stopped, within the caps of this one. `cards` are those of every rule that there is.
    /// Returns how many alerts were of rules that are gone.
    ///
    /// # Errors
    /// When the bytes are not what this version writes; then nothing is taken.
    pub fn load(&mut self, bytes: &[u8], cards: &[&'static About]) -> Result<usize, SnapshotError> {
        let (version, _) = postcard::take_from_bytes::<u32>(bytes)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let snapshot: Snapshot = postcard::from_bytes(bytes)?;
        let (scores, crowds) = (self.risks.scores.cap(), self.sharing.seen.cap());
        self.risks.scores = snapshot.risks;
        self.risks.scores.limit(scores);
        self.sharing.seen = snapshot.crowds;
        self.sharing.seen.limit(crowds);
        for kept in snapshot.incidents {
            self.incidents.resume(wake_incident(kept, cards));
        }
        let mut gone = 0;
        for kept in snapshot.alerts {
            let (told, cooling, ends) = (kept.told, kept.cooling, kept.ends);
            match wake_alert(kept, cards) {
                Some(alert) => self.files.resume(alert, told, cooling, ends),
                None => gone += 1,
            }
        }
        Ok(gone)
    }
}

/// [`Snapshot`] without copies of the tables.
#[derive(Serialize)]
struct Saved<'a> {
    version: u32,
    alerts: Vec<KeptAlert>,
    incidents: Vec<KeptIncident>,
    risks: &'a Table<Entity, Score>,
    crowds: &'a Table<IpAddr, SmallVec<[u64; MANY]>>,
}

fn keep_alert(alert: &Alert, told: u64, cooling: bool, ends: Time) -> KeptAlert {
    let finding = &alert.finding;
    KeptAlert {
        id: alert.id.0,
        severity: alert.severity,
        raised: alert.raised,
        first_seen: alert.first_seen,
        last_seen: alert.last_seen,
        count: alert.count,
        told,
        cooling,
        ends,
        key_rule: alert.key.rule.to_owned(),
        address: alert.key.address,
        actor: match &alert.key.actor {
            Actor::Principal(subject, issuer) => KeptActor::Principal(subject.clone(), issuer.clone()),
            Actor::Token(token) => KeptActor::Token(*token),
            Actor::Claimed(group) => KeptActor::Claimed(*group),
            Actor::Nobody => KeptActor::Nobody,
            Actor::Rest => KeptActor::Rest,
        },
        route: alert.key.route.to_string(),
        incident: alert.incident.map(|id| id.0),
        entity_risk: alert.entity_risk,
        finding: KeptFinding {
            rule: finding.rule.id.to_owned(),
            at: finding.at,
            severity: finding.severity,
            confidence: finding.confidence,
            principal: finding.principal.clone(),
            token: finding.token,
            message: finding.message.clone(),
            brief: finding.brief.clone(),
            facts: finding.facts.iter().map(|(name, v)| ((*name).to_owned(), v.to_string())).collect(),
            scene: finding.scene.clone(),
        },
    }
}

fn find(id: &str, cards: &[&'static About]) -> Option<&'static About> {
    cards.iter().find(|card| card.id == id).copied()
}

fn wake_alert(kept: KeptAlert, cards: &[&'static About]) -> Option<Alert> {
    let about = find(&kept.finding.rule, cards)?;
    let KeptFinding { at, severity, confidence, principal, token, message, brief, facts, scene, .. } =
        kept.finding;
    let facts = facts
        .into_iter()
        .filter_map(|(name, value)| Some((lasting(&name)?, serde_json::from_str(&value).ok()?)));
    Some(Alert {
        id: Ulid(kept.id),
        activity: Activity::Update,
        severity: kept.severity,
        raised: kept.raised,
        first_seen: kept.first_seen,
        last_seen: kept.last_seen,
        count: kept.count,
        key: Key {
            rule: find(&kept.key_rule, cards)?.id,
            address: kept.address,
            actor: match kept.actor {
                KeptActor::Principal(subject, issuer) => Actor::Principal(subject, issuer),
                KeptActor::Token(token) => Actor::Token(token),
                KeptActor::Claimed(group) => Actor::Claimed(group),
                KeptActor::Nobody => Actor::Nobody,
                KeptActor::Rest => Actor::Rest,
            },
            route: kept.route.into(),
        },
        incident: kept.incident.map(Ulid),
        entity_risk: kept.entity_risk,
        finding: Finding {
            rule: about,
            at,
            severity,
            confidence,
            principal,
            token,
            group: None,
            message,
            brief,
            facts: facts.collect(),
            scene,
        },
        place: None,
    })
}

/// The name of a fact as findings hold it. Names come from our own code, so there are few; a file that brings more has
/// been written by somebody else.
fn lasting(name: &str) -> Option<&'static str> {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    if names.len() >= MAX_FACTS || name.len() > MAX_FACT {
        return None;
    }
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    Some(name)
}

fn keep_incident(open: &Open) -> KeptIncident {
    let incident = &open.incident;
    let member = |m: &Member| (m.id.0, m.rule.id.to_owned(), m.severity, m.first_seen);
    KeptIncident {
        id: incident.id.0,
        severity: incident.severity,
        raised: incident.raised,
        first_seen: incident.first_seen,
        last_seen: incident.last_seen,
        members: incident.members.iter().map(member).collect(),
        counts: [incident.alerts, incident.findings, incident.accepted, incident.bytes],
        risk: incident.risk,
        principals: incident.principals.clone(),
        tokens: incident.tokens.clone(),
        addresses: incident.addresses.clone(),
        routes: incident.routes.iter().map(ToString::to_string).collect(),
        services: incident.services.clone(),
        people: incident.people.clone(),
        keys: open.keys.clone(),
        merged: open.merged.iter().map(|id| id.0).collect(),
        told: open.told,
    }
}

fn wake_incident(mut kept: KeptIncident, cards: &[&'static About]) -> Open {
    let member = |(id, rule, severity, first_seen): (u128, String, Severity, Time)| {
        Some(Member { id: Ulid(id), rule: find(&rule, cards)?, severity, first_seen })
    };
    let [alerts, findings, accepted, bytes] = kept.counts;
    kept.principals.truncate(MAX_NAMES);
    kept.tokens.truncate(MAX_NAMES);
    kept.addresses.truncate(MAX_NAMES);
    kept.services.truncate(MAX_NAMES);
    kept.people.truncate(MAX_PEOPLE);
    kept.keys.truncate(MAX_KEYS);
    let incident = Incident {
        id: Ulid(kept.id),
        activity: Activity::Update,
        severity: kept.severity,
        raised: kept.raised,
        first_seen: kept.first_seen,
        last_seen: kept.last_seen,
        members: kept.members.into_iter().take(MAX_MEMBERS).filter_map(member).collect(),
        alerts,
        findings,
        accepted,
        bytes,
        risk: kept.risk,
        principals: kept.principals,
        tokens: kept.tokens,
        addresses: kept.addresses,
        routes: kept.routes.into_iter().take(MAX_NAMES).map(Into::into).collect(),
        services: kept.services,
        workloads: Vec::new(),
        people: kept.people,
        merged_into: None,
    };
    let merged = kept.merged.into_iter().take(MAX_MERGED).map(Ulid).collect();
    Open { incident, keys: kept.keys, merged, told: kept.told, request: None }
}
