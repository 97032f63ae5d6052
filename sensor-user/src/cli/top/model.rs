//! What `top` knows: the newest state and the one before, the newest alerts, and what the keys have done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use crate::render::Told;

/// Alerts that are kept: ten screens of the largest terminals.
pub(super) const MAX_ALERTS: usize = 500;
/// Looks that the curve of exchanges shows: the width of a wide terminal.
const CURVE: usize = 240;
/// Longest text of a filter.
const MAX_FILTER: usize = 60;

/// Everything that a frame is drawn of.
#[derive(Default)]
pub(super) struct Model {
    /// The newest state.
    pub(super) now: State,
    /// Exchanges a second, look by look, the newest last.
    pub(super) curve: VecDeque<u64>,
    /// Alerts, the newest last.
    pub(super) alerts: VecDeque<Arc<Told>>,
    /// Alerts that were given up before we could read them.
    pub(super) lost: u64,
    /// Why there is nothing new.
    pub(super) trouble: Option<String>,
    /// What is shown while the picture is held.
    pub(super) held: Option<Held>,
    /// Lines that the list of alerts is scrolled by.
    pub(super) scroll: usize,
    /// What alerts must contain to be shown.
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) typing: bool,
}

/// A picture that is held.
pub(super) struct Held {
    /// The state.
    pub(super) state: State,
    /// The alerts.
    pub(super) alerts: VecDeque<Arc<Told>>,
}

/// A state of the sensor, with rates since the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// As the sensor told it.
    pub(super) value: Value,
    /// What grew a second, by the name of its figure.
    rates: BTreeMap<String, f64>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Quit,
}

impl State {
    /// A state, and what has grown since another.
    fn since(value: Value, before: &Self) -> Self {
        let (now_ms, then_ms) = (number(&value, "/time"), number(&before.value, "/time"));
        let seconds = (now_ms - then_ms) / 1000.0;
        // After a restart figures begin anew: there is nothing to compare.
        let same = value.get("started") == before.value.get("started");
        let mut rates = BTreeMap::new();
        if same && seconds > 0.0 {
            for (name, now) in value.get("figures").and_then(Value::as_object).into_iter().flatten() {
                let then = before.value.get("figures").and_then(|figures| figures.get(name)?.as_f64());
                if let (Some(now), Some(then)) = (now.as_f64(), then) {
                    rates.insert(name.clone(), ((now - then) / seconds).max(0.0));
                }
            }
        }
        Self { value, rates }
    }

    /// A figure: the sum over its labels.
    pub(super) fn figure(&self, name: &str) -> f64 {
        let figures = self.value.get("figures").and_then(Value::as_object);
        let named = figures.into_iter().flatten().filter(|(full, _)| is(full, name));
        named.filter_map(|(_, value)| value.as_f64()).sum()
    }

    /// One series of a figure.
    pub(super) fn series(&self, name: &str, label: &str, value: &str) -> f64 {
        let full = format!("{name}{{{label}=\"{value}\"}}");
        self.value.get("figures").and_then(|figures| figures.get(&full)?.as_f64()).unwrap_or(0.0)
    }

    /// Each series of a figure that is not zero: its labels and value.
    pub(super) fn each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let figures = self.value.get("figures").and_then(Value::as_object);
        let named = figures.into_iter().flatten().filter(move |(full, _)| is(full, name));
        named.filter_map(move |(full, value)| {
            let label = full.get(name.len()..)?.split('"').nth(1).unwrap_or_default();
            Some((label, value.as_f64().filter(|value| *value > 0.0)?))
        })
    }

    /// What a figure grows by a second, summed over its labels.
    pub(super) fn rate(&self, name: &str) -> f64 {
        self.rates.iter().filter(|(full, _)| is(full, name)).map(|(_, rate)| rate).sum()
    }

    /// A part of durations, in milliseconds: `p50_s`, `p99_s`.
    pub(super) fn duration_ms(&self, name: &str, part: &str) -> Option<f64> {
        Some(self.value.get("figures")?.get(name)?.get(part)?.as_f64()? * 1000.0)
    }

    /// Text of the state.
    pub(super) fn text(&self, name: &str) -> String {
        crate::telemetry::printable(self.value.get(name).and_then(Value::as_str).unwrap_or("-"))
    }

    /// A whole number of the state, by JSON pointer.
    pub(super) fn count(&self, pointer: &str) -> u64 {
        self.value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// A list of the state.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

fn is(full: &str, name: &str) -> bool {
    full.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
}

impl Model {
    /// Takes a new state.
    pub(super) fn state(&mut self, value: Value) {
        self.trouble = None;
        self.now = State::since(value, &self.now);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a curve is drawn of it; it is not negative, and casts of floats saturate"
        )]
        self.curve.push_back(self.now.rate("tokenscope_exchanges_total") as u64);
        if self.curve.len() > CURVE {
            self.curve.pop_front();
        }
    }

    /// Takes a new alert.
    pub(super) fn alert(&mut self, told: Arc<Told>) {
        self.alerts.push_back(told);
        if self.alerts.len() > MAX_ALERTS {
            self.alerts.pop_front();
        }
        if self.scroll > 0 && self.held.is_none() {
            // Whoever has scrolled reads on where they were.
            self.scroll += 1;
        }
    }

    /// The state that is shown.
    pub(super) fn shown(&self) -> &State {
        self.held.as_ref().map_or(&self.now, |held| &held.state)
    }

    /// The alerts that are shown, the newest first.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Arc<Told>> {
        let alerts = self.held.as_ref().map_or(&self.alerts, |held| &held.alerts);
        let wanted = self.filter.to_lowercase();
        alerts.iter().rev().filter(move |told| contains(told, &wanted))
    }

    /// The riskiest principals of the alerts that are known here: their highest risk, and how many alerts they have.
    pub(super) fn riskiest(&self) -> Vec<(String, u64, u64)> {
        let mut known: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (name, told) in self.listed().filter_map(|told| Some((told.principal_name()?, told))) {
            let entry = known.entry(name).or_default();
            entry.0 = entry.0.max(told.number("/risk_score").unwrap_or(0));
            entry.1 += 1;
        }
        let mut all: Vec<_> = known.into_iter().map(|(name, (risk, alerts))| (name, risk, alerts)).collect();
        all.sort_by_key(|(_, risk, alerts)| std::cmp::Reverse((*risk, *alerts)));
        all
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return Next::Quit,
            _ if self.typing => self.type_key(key.code),
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('p' | ' ') => self.hold(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_by(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll_by(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll_by(MAX_ALERTS),
            _ => {}
        }
        Next::GoOn
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(c) if self.filter.len() < MAX_FILTER && !c.is_control() => self.filter.push(c),
            _ => {}
        }
        self.scroll = 0;
    }

    fn scroll_by(&mut self, lines: usize) {
        let last = self.listed().count().saturating_sub(1);
        self.scroll = self.scroll.saturating_add(lines).min(last);
    }

    /// Holds the picture, or lets it go.
    fn hold(&mut self) {
        self.held = match self.held.take() {
            Some(_) => None,
            None => Some(Held { state: self.now.clone(), alerts: self.alerts.clone() }),
        };
        self.scroll = 0;
    }
}

fn contains(told: &Told, wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    wanted.is_empty()
        || has(told.rule())
        || has(told.severity.as_str())
        || has(told.title())
        || has(told.message())
        || told.workload().is_some_and(has)
        || told.address().is_some_and(has)
        || told.principal_name().is_some_and(|name| has(&name))
}

/// States and alerts for tests.
#[cfg(test)]
pub(super) mod staging {
    use serde_json::json;

    use super::*;
    use crate::detect::Severity;
    use crate::render::Kind;

    /// A state in which so many exchanges were seen by then.
    pub(crate) fn state(time_ms: u64, exchanges: u64) -> Value {
        json!({
            "version": "0.1.0", "node": "node-1", "time": time_ms, "started": 1, "uptime_s": 3_720, "ready": true,
            "sequence": {"oldest": 1, "head": 42},
            "sinks": [{"name": "siem", "lag_events": 3, "lag_seconds": 2, "circuit_open": 1,
                       "events": {"delivered": 40, "dead": 1}}],
            "figures": {
                "tokenscope_exchanges_total": exchanges,
                "tokenscope_token_uses_total": exchanges / 2,
                "tokenscope_alerts_total{severity=\"high\"}": 2,
                "tokenscope_lost_records_total{reason=\"ring_full\"}": 5,
                "tokenscope_alert_latency_seconds": {"count": 2, "p50_s": 0.002, "p99_s": 0.016},
            },
        })
    }

    /// An alert about Alice.
    pub(crate) fn alert(sequence: u64) -> Arc<Told> {
        let json = json!({
            "severity_id": 4, "risk_score": 70 + sequence, "message": "somebody \u{1b}[31m did it",
            "finding_info": {"title": "Token in URL", "analytic": {"uid": "token-in-url"}},
            "evidences": [{
                "actor": {"user": {"uid": "alice"}, "session": {"issuer": "https://idp.example/"}},
                "api": {"operation": "GET /orders/{id}"},
                "src_endpoint": {"ip": "10.0.0.7"},
                "dst_endpoint": {"name": "shop/orders"},
            }],
            "unmapped": {"verified": true},
        });
        let time_ms = 1_795_284_245_123 + sequence;
        Arc::new(Told::new(sequence, time_ms, Severity::High, Kind::Alert, json.to_string().into()))
    }

    /// A model that has seen everything there is.
    pub(crate) fn model() -> Model {
        let mut model = Model::default();
        model.state(state(10_000, 1_000));
        model.state(state(12_000, 5_000));
        (1..=30).for_each(|sequence| model.alert(alert(sequence)));
        model
    }
}

#[cfg(test)]
mod tests {
    use super::staging::{alert, model, state};
    use super::*;

    fn press(model: &mut Model, codes: &[KeyCode]) -> Next {
        codes.iter().map(|code| model.key(KeyEvent::from(*code))).last().unwrap()
    }

    #[test]
    fn rates_are_what_grew_a_second() {
        let model = model();
        assert!((model.now.rate("tokenscope_exchanges_total") - 2_000.0).abs() < 0.001);
        assert!((model.now.figure("tokenscope_alerts_total") - 2.0).abs() < 0.001);
        assert_eq!(model.curve, [0, 2_000]);
        assert_eq!(model.now.each("tokenscope_lost_records_total").collect::<Vec<_>>(), [("ring_full", 5.0)]);
    }

    #[test]
    fn after_a_restart_nothing_is_compared() {
        let mut model = model();
        let mut anew = state(13_000, 7);
        anew["started"] = 12_500.into();
        model.state(anew);
        assert!(model.now.rate("tokenscope_exchanges_total").abs() < 0.001);
    }

    #[test]
    fn keys_do_what_they_say() {
        let mut model = model();
        assert_eq!(press(&mut model, &[KeyCode::Char('/'), KeyCode::Char('q')]), Next::GoOn);
        assert_eq!((model.filter.as_str(), model.listed().count()), ("q", 0));
        press(&mut model, &[KeyCode::Backspace, KeyCode::Char('U'), KeyCode::Char('R'), KeyCode::Char('L')]);
        press(&mut model, &[KeyCode::Enter]);
        assert_eq!((model.typing, model.listed().count()), (false, 30));
        press(&mut model, &[KeyCode::Esc, KeyCode::Down, KeyCode::Down, KeyCode::Up]);
        assert_eq!((model.filter.as_str(), model.scroll), ("", 1));
        press(&mut model, &[KeyCode::End]);
        assert_eq!(model.scroll, 29);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(model.key(control_c), Next::Quit);
        assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Next::Quit);
    }

    #[test]
    fn a_held_picture_stays_and_what_came_is_there_afterwards() {
        let mut model = model();
        press(&mut model, &[KeyCode::Char('p')]);
        model.alert(alert(31));
        model.state(state(13_000, 9_000));
        assert_eq!((model.listed().count(), model.shown().count("/time")), (30, 12_000));
        press(&mut model, &[KeyCode::Char('p')]);
        assert_eq!((model.listed().count(), model.shown().count("/time")), (31, 13_000));
    }

    #[test]
    fn it_keeps_so_many_alerts_and_no_more() {
        let mut model = model();
        (31..2_000).for_each(|sequence| model.alert(alert(sequence)));
        assert_eq!(model.listed().count(), MAX_ALERTS);
        let risks = model.riskiest();
        assert_eq!((risks[0].0.as_str(), risks[0].1), ("alice@idp", 70 + 1_999));
    }
}
