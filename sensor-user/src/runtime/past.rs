//! What the running sensor says of the past to those who ask over the control socket: the store, opened to be read anew
//! for each question.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{records, settings};
use crate::config::Config;
use crate::control::{History, Page, Refusal, Search, Traced};
use crate::render::Told;
use crate::store::query::{self, Limits, QueryError};
use crate::store::trace::{Reader, TOP, TraceError, What, Window};
use crate::store::veil::Veil;
use crate::token::hash::Namer;

/// Events that are read of the store at once.
const CHUNK: usize = 500;

/// Most events that are looked at for one page: a filter that admits little must not read a year for every page.
const MOST_READ: usize = 50_000;

/// The store, as those who ask see it.
pub(super) struct Past {
    dir: PathBuf,
    veil: Veil,
    key: Option<zeroize::Zeroizing<Vec<u8>>>,
}

impl Past {
    /// None if there is no store.
    pub(super) fn of(config: &Config, held: Option<&Path>) -> Option<Self> {
        let dir = records::dir(config, held)?;
        Some(Self { dir, veil: settings::veil(config), key: config.tokens.fingerprint_key.clone() })
    }

    fn reader(&self) -> Result<Reader, TraceError> {
        Reader::open(&self.dir, self.veil.clone())
    }

    fn what(&self, traced: &Traced) -> Result<What, Refusal> {
        match traced {
            Traced::Named(text) => Ok(What::parse(text)),
            Traced::Token(token) => {
                let no_key = || Refusal::unavailable("tokens have no lasting names here", "set `state.dir`");
                let key = self.key.as_ref().ok_or_else(no_key)?;
                let namer = Namer::new(Some(key));
                let namer = namer.map_err(|error| Refusal::unavailable(error.to_string(), "try again"))?;
                Ok(What::Token(namer.name(&token.0).to_string()))
            }
        }
    }
}

impl History for Past {
    fn alerts(&self, page: &Page<'_>) -> Result<Vec<Arc<Told>>, String> {
        let reader = self.reader().map_err(|error| error.to_string())?;
        let window = Window {
            from_ms: page.filter.since_ms.unwrap_or(0),
            until_ms: page.filter.until_ms.unwrap_or(u64::MAX),
        };
        let mut kept = VecDeque::new();
        let (mut numbers, mut looked_at) = (page.sequences.clone(), 0);
        while kept.len() < page.limit && looked_at < MOST_READ && !numbers.is_empty() {
            let chunk =
                reader.page(numbers.clone(), window, page.newest, CHUNK).map_err(|e| e.to_string())?;
            let Some(last) = chunk.last().map(|told| told.sequence) else { break };
            looked_at += chunk.len();
            numbers = if page.newest { numbers.start..last } else { last + 1..numbers.end };
            for told in chunk.into_iter().filter(|told| page.filter.admits(told)).map(Arc::new) {
                if kept.len() == page.limit {
                    break;
                }
                if page.newest { kept.push_front(told) } else { kept.push_back(told) }
            }
        }
        Ok(kept.into())
    }
}

impl Search for Past {
    fn trace(&self, what: &Traced, since_ms: Option<u64>) -> Result<Value, Refusal> {
        let what = self.what(what)?;
        let window = Window { from_ms: since_ms.unwrap_or(0), ..Window::EVER };
        let trace = self.reader().and_then(|reader| reader.trace(&what, window, TOP));
        let trace = trace.map_err(|error| match error {
            TraceError::Ambiguous(_) | TraceError::NoFingerprint => {
                Refusal::wrong(error.to_string(), "give the whole fingerprint")
            }
            _ => Refusal::unavailable(error.to_string(), "look at the sensor's log"),
        })?;
        Ok(serde_json::to_value(trace).unwrap_or_default())
    }

    fn query(&self, sql: &str) -> Result<Value, Refusal> {
        let answer = query::query(&self.dir, sql, &Limits::default()).map_err(|error| match error {
            QueryError::Refused | QueryError::Sql(_) => {
                Refusal::wrong(error.to_string(), "`tokenscope query --schema` shows what there is")
            }
            QueryError::TooLong(_) | QueryError::TooMuch => Refusal::wrong(error.to_string(), "ask for less"),
            _ => Refusal::unavailable(error.to_string(), "look at the sensor's log"),
        })?;
        Ok(answer.json())
    }
}
