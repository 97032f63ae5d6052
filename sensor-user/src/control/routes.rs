//! What can be asked, and how: the routes, their parameters, and the bounds of each.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::control::alerts::{self, Ears};
use crate::control::feed::{Feed, MAX_LAST, Start};
use crate::control::flow::{Flow, Writer, flow};
use crate::control::rate::{Peer, Rate};
use crate::control::{Filter, Refusal, Search, Sources, Streams, Traced, exchanges, figures, filter};
use crate::token::settings::Secret;

/// Largest body of a request, in bytes: a token fills a header, and servers take 64 KiB of those.
const MAX_BODY: usize = 64 << 10;
/// Time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Questions about the past that are worked on at once: each may keep a core and a disk busy.
const BUSY: usize = 2;
/// Time for an answer about the past, waiting included.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// Exchanges that are told, and for how long, if nobody says otherwise.
const FEW_EXCHANGES: u64 = 20;
const SHORT_WATCH: Duration = Duration::from_secs(10);
/// How often the state may be told to one reader.
const INTERVALS: RangeInclusive<u64> = 200..=60_000;

/// The number of the newest event when a stream begins. Who went on behind a larger one speaks to a sensor that has
/// begun to count anew.
pub const HEAD: header::HeaderName = header::HeaderName::from_static("tokenscope-head");

/// The parameters of a query, in their order.
type Pairs = Vec<(String, String)>;
type Asked = Result<Query<Pairs>, QueryRejection>;
type Answer = Result<Response, Refusal>;

/// What every request may use.
pub struct Desk {
    sources: Sources,
    rate: Rate,
    busy: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Desk {
    /// A desk that closes when `stop` says so.
    #[must_use]
    pub fn new(sources: Sources, stop: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { sources, rate: Rate::default(), busy: Arc::new(Semaphore::new(BUSY)), stop })
    }
}

/// The routes for those who may ask everything.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/alerts", get(told))
        .route("/v1/exchanges", get(exchanged))
        .route("/v1/status", get(status))
        .route("/v1/top", get(top))
        .route("/v1/sinks", get(sinks))
        .route("/v1/trace", get(trace).post(trace_token))
        .route("/v1/query", post(query))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(desk)
}

/// The same, for those who show this token.
pub fn guarded(router: Router, token: Secret) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(token), check))
}

async fn check(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let shown = match shown.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => b"",
    };
    if is_same(shown, &token.0) {
        return next.run(request).await;
    }
    let remedy = "send Authorization: Bearer with the token that control.token names";
    Refusal { status: 401, error: "no token, or not the right one".into(), remedy: remedy.into() }
        .into_response()
}

/// Compares in a time that tells nothing of either: hashes first, as lengths may differ.
fn is_same(shown: &[u8], token: &[u8]) -> bool {
    use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
    let hash = |bytes| digest::digest(&digest::SHA256, bytes);
    verify_slices_are_equal(hash(shown).as_ref(), hash(token).as_ref()).is_ok()
}

async fn nothing() -> Refusal {
    let remedy =
        "there are /v1/alerts, /v1/exchanges, /v1/status, /v1/top, /v1/sinks, /v1/trace and /v1/query";
    Refusal { status: 404, error: "there is no such page".into(), remedy: remedy.into() }
}

async fn wrong_method() -> Refusal {
    let remedy = "GET reads; POST is for /v1/trace with a token and for /v1/query";
    Refusal { status: 405, error: "not with this method".into(), remedy: remedy.into() }
}

fn pairs(asked: Asked) -> Result<Pairs, Refusal> {
    match asked {
        Ok(Query(pairs)) => Ok(pairs),
        Err(error) => Err(Refusal::wrong(error.body_text(), "write name=value&name=value, %-encoded")),
    }
}

fn unknown(name: &str, known: &str) -> Refusal {
    Refusal::wrong(format!("there is no parameter {name}"), format!("known here: {known}"))
}

fn number<T: FromStr + PartialOrd + Display>(
    name: &str,
    value: &str,
    bounds: &RangeInclusive<T>,
) -> Result<T, Refusal> {
    let number = value.parse().ok().filter(|number| bounds.contains(number));
    let remedy = || format!("a number from {} to {}", bounds.start(), bounds.end());
    number.ok_or_else(|| Refusal::wrong(format!("{name}={value}"), remedy()))
}

fn flag(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "" | "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(Refusal::wrong(format!("{name}={value}"), "true or false")),
    }
}

/// Lines, made by a task while they are read.
fn lines<F: Future<Output = ()> + Send + 'static>(desk: &Desk, write: impl FnOnce(Writer) -> F) -> Response {
    let (writer, flow) = flow();
    let reading = Reading::begin(&desk.sources.streams);
    let writing = write(writer);
    tokio::spawn(async move {
        writing.await;
        drop(reading);
    });
    stream(flow)
}

/// Counts a stream for as long as it is read.
struct Reading(Arc<Streams>);

impl Reading {
    fn begin(streams: &Arc<Streams>) -> Self {
        streams.clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stream(flow: Flow) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::new(flow)).into_response()
}

fn object(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

async fn told(State(desk): State<Arc<Desk>>, asked: Asked) -> Answer {
    const KNOWN: &str = "follow, after, last, limit, envelope, kind, min_severity, rule, principal, address, namespace, \
                         since, until";
    let sources = &desk.sources;
    let now = (sources.clock)();
    let mut wanted = Filter::default();
    let mut start = Start::Oldest;
    let mut manner = alerts::Manner { follow: false, envelope: false, limit: None, until_ms: None };
    for (name, value) in pairs(asked)? {
        match name.as_str() {
            "follow" => manner.follow = flag(&name, &value)?,
            "envelope" => manner.envelope = flag(&name, &value)?,
            "limit" => manner.limit = Some(number(&name, &value, &(0..=u64::MAX))?),
            "after" | "last" if start != Start::Oldest => {
                return Err(Refusal::wrong("after and last are two beginnings", "give one of them, once"));
            }
            "after" => start = Start::After(number(&name, &value, &(0..=u64::MAX))?),
            "last" => start = Start::Last(number(&name, &value, &(0..=MAX_LAST))?),
            _ if wanted.take(&name, &value, now)? => {}
            _ => return Err(unknown(&name, KNOWN)),
        }
    }
    manner.until_ms = wanted.until_ms;
    wanted.hide(&sources.privacy);
    let head = *sources.spool.head().borrow();
    let ears = Ears {
        head: sources.spool.head(),
        stop: desk.stop.clone(),
        clock: sources.clock,
        streams: Arc::clone(&sources.streams),
    };
    let feed = Feed::new(sources.spool.clone(), sources.history.clone(), wanted, start);
    let mut answer = lines(&desk, |writer| alerts::tell(feed, manner, ears, writer));
    answer.headers_mut().insert(HEAD, head.into());
    Ok(answer)
}

async fn exchanged(State(desk): State<Arc<Desk>>, asked: Asked) -> Answer {
    const KNOWN: &str = "follow, limit, for, principal, address, namespace";
    let mut wanted = Filter::default();
    let (mut follow, mut limit, mut lasts) = (false, None, None);
    for (name, value) in pairs(asked)? {
        match name.as_str() {
            "follow" => follow = flag(&name, &value)?,
            "limit" => limit = Some(number(&name, &value, &(0..=u64::MAX))?),
            "for" => {
                let time = filter::duration(&value);
                lasts = Some(time.ok_or_else(|| Refusal::wrong(format!("for={value}"), "10s, 5m or 1h"))?);
            }
            _ if wanted.take(&name, &value, (desk.sources.clock)())? => {}
            _ => return Err(unknown(&name, KNOWN)),
        }
    }
    if let Some(name) = wanted.about_alerts() {
        let remedy =
            "exchanges are told as they come: ask /v1/trace about the past, and /v1/alerts about alerts";
        return Err(Refusal::wrong(format!("exchanges have no {name}"), remedy));
    }
    if !follow {
        limit = limit.or(Some(FEW_EXCHANGES));
        lasts = lasts.or(Some(SHORT_WATCH));
    }
    wanted.hide(&desk.sources.privacy);
    let streams = Arc::clone(&desk.sources.streams);
    let manner = exchanges::Manner { filter: wanted, limit, lasts, streams };
    let (exchanges, stop) = (desk.sources.exchanges.subscribe(), desk.stop.clone());
    Ok(lines(&desk, |writer| exchanges::tell(exchanges, manner, stop, writer)))
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    object(&figures::status(&desk.sources))
}

async fn sinks(State(desk): State<Arc<Desk>>) -> Response {
    object(&figures::sinks(&desk.sources.overview.figures()))
}

async fn top(State(desk): State<Arc<Desk>>, asked: Asked) -> Answer {
    let mut interval_ms = 1_000;
    for (name, value) in pairs(asked)? {
        match name.as_str() {
            "interval_ms" => interval_ms = number(&name, &value, &INTERVALS)?,
            _ => return Err(unknown(&name, "interval_ms")),
        }
    }
    let (mut stop, sources) = (desk.stop.clone(), desk.sources.clone());
    Ok(lines(&desk, async move |writer: Writer| {
        let mut timer = tokio::time::interval(Duration::from_millis(interval_ms));
        // A reader that was away gets the state of now, and not what it has missed.
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !*stop.borrow_and_update() {
            tokio::select! {
                _ = timer.tick() => {}
                _ = stop.changed() => return,
                () = writer.gone() => return,
            }
            if writer.send(format!("{}\n", figures::status(&sources))).await.is_err() {
                return;
            }
        }
    }))
}

async fn trace(State(desk): State<Arc<Desk>>, Extension(peer): Extension<Peer>, asked: Asked) -> Answer {
    let mut what = None;
    let mut since = None;
    for (name, value) in pairs(asked)? {
        match name.as_str() {
            "what" if looks_like_a_token(&value) => {
                let remedy = "POST it as the body, so that it is in no log, or give its fingerprint";
                return Err(Refusal::wrong("that is a raw token", remedy));
            }
            "what" => what = Some(value),
            "since" => since = Some(value),
            _ => return Err(unknown(&name, "what, since")),
        }
    }
    let missing = || Refusal::wrong("what is missing", "what=FINGERPRINT, jti:ID, a principal or an address");
    let what = Traced::Named(what.ok_or_else(missing)?);
    traced(&desk, peer, what, since).await
}

/// Two dots, and a header that is JSON: no fingerprint, principal or address has that.
fn looks_like_a_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.matches('.').count() >= 2
}

async fn trace_token(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    asked: Asked,
    request: Request,
) -> Answer {
    let mut since = None;
    for (name, value) in pairs(asked)? {
        match name.as_str() {
            "since" => since = Some(value),
            _ => return Err(unknown(&name, "since")),
        }
    }
    let body = body(request).await?;
    let token = body.trim_ascii();
    if token.is_empty() || !token.is_ascii() {
        return Err(Refusal::wrong("the body holds no token", "send the raw token as the body"));
    }
    let token = Secret(Zeroizing::new(token.to_vec()));
    traced(&desk, peer, Traced::Token(token), since).await
}

async fn traced(desk: &Arc<Desk>, peer: Peer, what: Traced, since: Option<String>) -> Answer {
    let now = (desk.sources.clock)();
    let wrong = |text: &str| Refusal::wrong(format!("since={text}"), "10m, 2h, 3d or 2026-11-21T18:00:00Z");
    let since = since.map(|text| filter::time(&text, now).ok_or_else(|| wrong(&text))).transpose()?;
    search(desk, peer, move |search| search.trace(&what, since)).await
}

async fn query(State(desk): State<Arc<Desk>>, Extension(peer): Extension<Peer>, request: Request) -> Answer {
    let body = body(request).await?;
    let sql = String::from_utf8(body.to_vec());
    let sql =
        sql.map_err(|_not_text| Refusal::wrong("the body is no text", "send one SELECT as the body"))?;
    search(&desk, peer, move |search| search.query(&sql)).await
}

/// The body, wiped when dropped.
async fn body(request: Request) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let slow =
        || Refusal { status: 408, error: "the body did not come".into(), remedy: "send it faster".into() };
    let large = || Refusal {
        status: 413,
        error: format!("the body is larger than {MAX_BODY} bytes, or was cut"),
        remedy: "send less".into(),
    };
    let bytes = timeout(BODY_TIME, to_bytes(request.into_body(), MAX_BODY)).await.map_err(|_late| slow())?;
    let bytes = bytes.map_err(|_large| large())?;
    Ok(Zeroizing::new(bytes.to_vec()))
}

/// Works on a question about the past, aside.
async fn search(
    desk: &Arc<Desk>,
    peer: Peer,
    ask: impl FnOnce(&dyn Search) -> Result<Value, Refusal> + Send + 'static,
) -> Answer {
    if let Err(wait) = desk.rate.take(peer, Instant::now()) {
        let remedy = format!("ask again in {} ms", wait.as_millis().max(1));
        return Err(Refusal { status: 429, error: "too many questions about the past".into(), remedy });
    }
    let store = || Refusal::unavailable("there is no store to search", "set store.enabled and state.dir");
    let searcher = Arc::clone(desk.sources.search.as_ref().ok_or_else(store)?);
    let busy = Arc::clone(&desk.busy);
    let work = async move {
        let seat = busy.acquire_owned().await.ok()?;
        let aside = tokio::task::spawn_blocking(move || {
            let answer = ask(searcher.as_ref());
            drop(seat);
            answer
        });
        aside.await.ok()
    };
    let late =
        || Refusal::unavailable("there was no answer in time", "ask for less: a shorter time, fewer rows");
    let answer = timeout(ANSWER_TIME, work).await.map_err(|_late| late())?;
    Ok(object(&answer.ok_or_else(late)??))
}
