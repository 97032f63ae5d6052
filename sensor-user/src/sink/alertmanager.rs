//! Prometheus Alertmanager, API v2.
//!
//! Labels are what Alertmanager tells alerts apart by, so they are few and bounded: `alertname`, `severity`, `rule`,
//! `namespace`, `workload` and those of the configuration. Addresses, principals and tokens are annotations: as labels
//! they would make every repeat an alert of its own. An alert ends `resolve_after` from when it was last told, an
//! incident when it is over, or a day after its last news.
//!
//! Members of a cluster do not pass alerts on to each other, so each of `urls` is told. An alert is delivered once one
//! of them has it: waiting for a member that is away would withhold news from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::render::{Kind, Told};
use crate::sink::client::ClientSettings;
use crate::sink::clock::{self, Clock};
use crate::sink::exchange::{Verdict, ask};
use crate::sink::halves::{Halves, Poison};
use crate::sink::http::{Auth, activity, authorization, brief, date, observed, operation, workload};
use crate::sink::{Batch, Delivery, Node, Outcome, Sink, Unusable};

/// Events a request: an alert has some 1 KiB there.
const BATCH: Batch = Batch { events: 100, bytes: 512 << 10 };

/// How long an incident without news lasts.
const INCIDENT: Duration = Duration::from_hours(24);

/// How long one member of a cluster may take: others may have it meanwhile, and delivery's own limit is for all.
const MEMBER: Duration = Duration::from_secs(4);

/// Incidents that are remembered as open, so that the end of one does not end another with the same labels.
const MAX_OPEN: usize = 1000;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How its members are reached.
    pub client: ClientSettings,
    /// Each member, with its path.
    pub urls: Vec<String>,
    /// Who asks: not by `OAuth2`.
    pub auth: Auth,
    /// Labels that every alert gets.
    pub labels: Vec<(String, String)>,
    /// How long an alert without news lasts.
    pub resolve_after: Duration,
    /// Where a person can look further; in annotations and as the alert's link.
    pub link: Option<String>,
}

/// Opens it.
///
/// # Errors
/// When it can never work as configured.
pub fn open(settings: &Settings, node: &Node) -> Result<Box<dyn Sink>, Unusable> {
    Ok(Box::new(Alertmanager::new(settings.clone(), node, clock::wall())?))
}

/// The sink.
pub struct Alertmanager {
    settings: Settings,
    urls: Vec<Url>,
    node: Arc<str>,
    client: Client,
    clock: Clock,
    poison: Poison,
    open: Mutex<Open>,
}

/// Incidents that are open, by their labels.
type Open = BTreeMap<String, BTreeSet<String>>;

impl Alertmanager {
    /// A sink that takes its time from this clock.
    ///
    /// # Errors
    /// When it can never work as configured.
    pub fn new(settings: Settings, node: &Node, clock: Clock) -> Result<Self, Unusable> {
        let url = |url: &String| {
            let url = Url::parse(url).map_err(|error| Unusable(format!("`urls`: {error}")))?;
            if url.path() == "/" {
                url.join("/api/v2/alerts").map_err(|error| Unusable(error.to_string()))
            } else {
                Ok(url)
            }
        };
        let urls: Vec<Url> = settings.urls.iter().map(url).collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(Unusable("`urls` names no Alertmanager".into()));
        }
        let client = settings.client.client()?;
        let (poison, open, node) = (Poison::default(), Mutex::default(), Arc::clone(&node.name));
        Ok(Self { settings, urls, node, client, clock, poison, open })
    }

    async fn all(&self, events: &[Arc<Told>]) -> Outcome {
        let mut halves = Halves::new(events, &self.poison, |_told| true);
        while let Some(part) = halves.next() {
            let verdict = self.once(&part.events).await;
            if let Err(outcome) = halves.tell(&part, verdict) {
                return outcome;
            }
        }
        halves.finish()
    }

    /// Tells every member, all at once.
    async fn once(&self, events: &[Arc<Told>]) -> Verdict {
        let now = (self.clock)();
        let alerts: Vec<Value> = events.iter().flat_map(|told| self.alerts(told, now)).collect();
        let body = Value::Array(alerts).to_string();
        let authorization = match authorization(&self.settings.auth) {
            Ok(header) => header,
            Err(why) => return Verdict::Later { reason: why, after: None },
        };
        let mut members = JoinSet::new();
        for url in &self.urls {
            let mut request = Request::new(Method::POST, url.clone());
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.headers_mut().extend(authorization.clone());
            *request.body_mut() = Some(body.clone().into());
            let client = self.client.clone();
            members.spawn(async move { tokio::time::timeout(MEMBER, ask(&client, request, now, &[])).await });
        }
        let mut verdicts = Vec::with_capacity(self.urls.len());
        while let Some(said) = members.join_next().await {
            verdicts.push(match said {
                Ok(Ok(Ok(answer))) => answer.judge().unwrap_or_else(|| Verdict::taken(answer.tell())),
                Ok(Ok(Err(why))) => Verdict::Later { reason: why, after: None },
                Ok(Err(_elapsed)) => Verdict::later("the answer took too long"),
                Err(_panic) => Verdict::later("the request broke off"),
            });
        }
        together(verdicts)
    }

    /// An event as Alertmanager has it: an alert, and the end of what it was under other labels.
    fn alerts(&self, told: &Told, now_ms: u64) -> Vec<Value> {
        let labels = self.labels(told);
        let (until, ended) = self.until(told, &labels, now_ms);
        // A clock that is ahead of this one must not make an alert begin after its end.
        let first = told.number("/finding_info/first_seen_time").or_else(|| told.number("/start_time"));
        let from = first.unwrap_or(told.time_ms).min(now_ms);
        let alert = |labels: Value, until: u64| {
            let mut alert = json!({
                "labels": labels,
                "annotations": self.annotations(told),
                "startsAt": date(from.min(until)),
                "endsAt": date(until),
            });
            if let (Some(link), Some(alert)) = (&self.settings.link, alert.as_object_mut()) {
                alert.insert("generatorURL".into(), link.as_str().into());
            }
            alert
        };
        let ended = ended.iter().filter_map(|labels| serde_json::from_str(labels).ok());
        let ended = ended.map(|labels| alert(labels, now_ms)).collect::<Vec<_>>();
        std::iter::once(alert(Value::Object(labels), until)).chain(ended).collect()
    }

    fn labels(&self, told: &Told) -> Map<String, Value> {
        let name = match told.kind {
            Kind::Alert => told.title(),
            Kind::Incident => "Tokenscope incident",
        };
        let severity = told.severity.as_str().to_ascii_lowercase();
        let workload = workload(told);
        let named = || Some(workload?.split_once('/')?.0);
        let namespace = told.namespace().or_else(named);
        let own = [
            ("alertname", Some(if name.is_empty() { told.rule() } else { name })),
            ("severity", Some(severity.as_str())),
            ("rule", Some(told.rule())),
            ("namespace", namespace),
            ("workload", workload),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        let fixed = self.settings.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        // Its own last: the configuration cannot take their place.
        fixed.chain(own).filter(|(_, value): &(String, Value)| value != "").collect()
    }

    fn annotations(&self, told: &Told) -> Map<String, Value> {
        let number = |at| told.number(at).map(|number| number.to_string());
        let text = |text: Option<&str>| text.map(str::to_owned);
        let all = [
            ("summary", text(Some(brief(told)))),
            ("description", text(Some(told.message()))),
            ("alert_id", text(Some(told.id()))),
            ("incident", text(told.text("/metadata/correlation_uid"))),
            ("principal", text(told.principal().or_else(|| observed(told, 4)))),
            ("address", text(told.address().or_else(|| observed(told, 2)))),
            ("token", text(told.token().or_else(|| observed(told, 99)))),
            ("operation", text(operation(told))),
            ("status", number("/evidences/0/http_response/code")),
            ("count", number("/count")),
            ("risk", number("/risk_score")),
            ("node", text(Some(&self.node))),
        ];
        let filled =
            all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|text| !text.is_empty())?)));
        filled.map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }

    /// When it ends, as far as is known now; and labels under which nothing is open any more.
    fn until(&self, told: &Told, labels: &Map<String, Value>, now_ms: u64) -> (u64, Vec<String>) {
        let after =
            |wait: Duration| now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX / 2));
        let over = activity(told) == "close";
        if told.kind == Kind::Alert {
            return (if over { now_ms } else { after(self.settings.resolve_after) }, Vec::new());
        }
        let key = Value::Object(labels.clone()).to_string();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been told under other labels, when it was less severe.
        let mut ended = Vec::new();
        open.retain(|other, ids| {
            let was = ids.remove(told.id());
            if was && ids.is_empty() && *other != key {
                ended.push(other.clone());
            }
            !ids.is_empty()
        });
        if over {
            return (if open.contains_key(&key) { after(INCIDENT) } else { now_ms }, ended);
        }
        if open.values().map(BTreeSet::len).sum::<usize>() < MAX_OPEN {
            open.entry(key).or_default().insert(told.id().to_owned());
        }
        (after(INCIDENT), ended)
    }
}

/// What becomes of events of which each member of a cluster says something else: one that has them is enough.
fn together(verdicts: Vec<Verdict>) -> Verdict {
    let (mut refused, mut later, mut taken) = (None, None, None);
    let (members, mut missed) = (verdicts.len(), 0);
    for verdict in verdicts {
        match verdict {
            Verdict::Taken { answer, .. } => taken = Some(answer),
            Verdict::Refused(why) => (refused, missed) = (Some(why), missed + 1),
            Verdict::Later { reason, after } => (later, missed) = (Some((reason, after)), missed + 1),
        }
    }
    match (taken, later, refused) {
        (Some(answer), None, None) => Verdict::taken(answer),
        (Some(answer), later, refused) => {
            let why = later.map(|(reason, _)| reason).or(refused).unwrap_or_default();
            tracing::warn!(%why, "{missed} of {members} Alertmanagers did not take what another took");
            Verdict::taken(format!("{answer}; {missed} of {members} did not take it: {why}"))
        }
        (None, Some((reason, after)), _) => Verdict::Later { reason, after },
        (None, None, Some(why)) => Verdict::Refused(why),
        (None, None, None) => Verdict::later("nobody answered"),
    }
}

impl Sink for Alertmanager {
    fn batch(&self) -> Batch {
        BATCH
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(self.all(events))
    }

    fn reopen(&mut self) {
        self.settings.client.renew(&mut self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Severity;
    use crate::sink::sample;

    const NOW: u64 = 1_795_284_300_000;

    fn sink(labels: &[(&str, &str)]) -> Alertmanager {
        let settings = Settings {
            client: ClientSettings::default(),
            urls: vec!["http://127.0.0.1:9".into()],
            auth: Auth::None,
            labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            resolve_after: Duration::from_mins(10),
            link: None,
        };
        Alertmanager::new(settings, &Node::named("node-1"), Arc::new(|| NOW)).unwrap()
    }

    fn incident(id: &str, activity: u64) -> Told {
        let mut value = sample::incident().value().clone();
        value["metadata"]["correlation_uid"] = id.into();
        value["activity_id"] = activity.into();
        Told::new(1, NOW, Severity::Critical, Kind::Incident, value.to_string().into())
    }

    #[test]
    fn labels_are_few_and_people_are_annotations() {
        let alert = &sink(&[("cluster", "a"), ("rule", "mine")]).alerts(&sample::alert(), NOW)[0];
        let expected = json!({"alertname": "Many failed logins", "severity": "high", "rule": "brute-force",
            "namespace": "shop", "workload": "shop/orders-7f9c", "cluster": "a"});
        assert_eq!(alert["labels"], expected);
        let notes = &alert["annotations"];
        assert_eq!((&notes["principal"], &notes["address"]), (&json!("alice"), &json!("192.0.2.7")));
        assert_eq!(
            (&notes["count"], &notes["status"]),
            (&json!("12"), &json!("401")),
            "annotations are text"
        );
        assert_eq!(alert["startsAt"], "2026-11-21T18:03:05.000Z");
        assert_eq!(alert["endsAt"], date(NOW + 600_000));
        let bare = &sink(&[]).alerts(&sample::bare(), NOW)[0];
        assert!(bare["labels"].get("namespace").is_none() && bare["annotations"].get("principal").is_none());
    }

    #[test]
    fn an_incident_is_over_when_no_other_has_its_labels() {
        let sink = sink(&[]);
        let ends = |told: &Told| sink.alerts(told, NOW)[0]["endsAt"].clone();
        let day = json!(date(NOW + 86_400_000));
        assert_eq!(ends(&incident("A", 1)), day);
        assert_eq!(ends(&incident("B", 1)), day);
        assert_eq!(ends(&incident("A", 3)), day, "B goes on");
        assert_eq!(ends(&incident("A", 3)), day, "told twice");
        assert_eq!(ends(&incident("B", 3)), date(NOW));
        assert!(sink.open.lock().unwrap().is_empty());
    }

    #[test]
    fn nothing_begins_after_it_ends() {
        let alert = &sink(&[]).alerts(&sample::alert(), 1_000)[0];
        assert_eq!(alert["startsAt"], date(1_000));
        let over = &sink(&[]).alerts(&incident("A", 3), 1_000)[0];
        assert_eq!((&over["startsAt"], &over["endsAt"]), (&json!(date(1_000)), &json!(date(1_000))));
    }

    #[test]
    fn one_member_is_enough() {
        let taken = || Verdict::taken("answered 200");
        assert_eq!(together(vec![taken(), taken()]), taken());
        assert!(matches!(together(vec![taken(), Verdict::later("gone")]), Verdict::Taken { .. }));
        assert!(matches!(
            together(vec![Verdict::Refused("x".into()), Verdict::later("gone")]),
            Verdict::Later { .. }
        ));
        assert!(matches!(together(vec![Verdict::Refused("x".into())]), Verdict::Refused(_)));
    }
}
