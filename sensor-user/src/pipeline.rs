//! The whole data path on one screen: segments in, alerts out. Pure: no I/O, no clock, no threads.
//!
//! Time comes from the data, so one capture gives the same alerts byte for byte, live or replayed. The only thing
//! that may come later than its exchange is a token's verdict: [`parked`](crate::parked) keeps what waits for one.

use std::sync::Arc;

use crate::alert::{Alert, AlertSettings, Desk};
use crate::capture::{Frame, Grant, Input, Loss, Time};
use crate::detect::{Detector, DetectSettings, Finding};
use crate::http::{Connection, Exchange, Exchanges, HttpLimits};
use crate::parked::Parked;
use crate::reassembly::{FlowLimits, Flows};
use crate::token::keys::KeyRing;
use crate::token::{TokenSettings, TokenUse, Tokens, Verdict, Verifier};

/// Every stage's slice of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Reassembly.
    pub flows: FlowLimits,
    /// HTTP.
    pub http: HttpLimits,
    /// Tokens.
    pub tokens: TokenSettings,
    /// Detections.
    pub detect: DetectSettings,
    /// Alerts.
    pub alerts: AlertSettings,
}

/// What the pipeline asks of the world.
#[derive(Debug, Default)]
pub struct Output {
    /// Alerts, in order.
    pub alerts: Vec<Alert>,
    /// Bytes that the source may withhold.
    pub grants: Vec<Grant>,
}

/// The stages in order.
pub struct Pipeline {
    flows: Flows<Connection>,
    exchanges: Exchanges,
    tokens: Tokens,
    parked: Parked,
    detect: Detector,
    desk: Desk,
    findings: Vec<Finding>,
}

impl Pipeline {
    /// Builds every stage. `verifier` decides whether tokens are verified in step (replay) or elsewhere (live).
    #[must_use]
    pub fn new(settings: Settings, verifier: Box<dyn Verifier>) -> Self {
        Self {
            flows: Flows::new(settings.flows),
            exchanges: Exchanges::new(settings.http),
            tokens: Tokens::new(settings.tokens, verifier),
            parked: Parked::default(),
            detect: Detector::new(settings.detect),
            desk: Desk::new(settings.alerts),
            findings: Vec::new(),
        }
    }

    /// Takes whatever a source delivers.
    pub fn on_input(&mut self, input: Input<'_>, out: &mut Output) {
        match input {
            Input::Frame(frame) => self.on_frame(&frame, out),
            Input::Loss(loss) => self.on_loss(&loss, out),
            Input::Tick(now) => self.on_tick(now, out),
        }
    }

    /// Pushes one frame through every stage.
    pub fn on_frame(&mut self, frame: &Frame<'_>, out: &mut Output) {
        self.flows.push(frame, &mut self.exchanges, &mut out.grants);
        self.judge_ready(frame.at, out);
    }

    /// Time has passed without frames.
    pub fn on_tick(&mut self, now: Time, out: &mut Output) {
        self.flows.expire(now, &mut self.exchanges);
        self.parked.expire(now);
        self.judge_ready(now, out);
    }

    /// The source lost something.
    pub fn on_loss(&mut self, loss: &Loss, out: &mut Output) {
        self.detect.lost(loss, &mut self.findings);
        self.admit(loss.at, out);
    }

    /// A verdict has come from elsewhere: judges what was parked for it.
    pub fn on_verdict(&mut self, verdict: Verdict, now: Time, out: &mut Output) {
        if let Some(token) = self.tokens.settle(verdict) {
            self.judge_parked(&token, now, out);
        }
    }

    /// Keys have come or changed: tokens that waited for them are judged now.
    pub fn on_keys(&mut self, keys: Arc<KeyRing>, now: Time, out: &mut Output) {
        for token in self.tokens.keys_changed(keys, now) {
            self.judge_parked(&token, now, out);
        }
    }

    /// Nothing more will come: ends every flow and closes every open alert.
    pub fn finish(&mut self, now: Time, out: &mut Output) {
        self.flows.finish(now, &mut self.exchanges);
        self.judge_ready(now, out);
        self.desk.flush(&mut out.alerts);
    }

    fn judge_ready(&mut self, now: Time, out: &mut Output) {
        while let Some(exchange) = self.exchanges.take() {
            let tokens = self.tokens.find(&exchange, now);
            self.detect.judge(&exchange, &tokens, now, &mut self.findings);
            match tokens.iter().find(|held| !held.token.is_settled()).map(|held| held.token.fingerprint) {
                Some(waits_for) => self.parked.park(waits_for, exchange, tokens, now),
                None => self.exchanges.recycle(exchange),
            }
        }
        self.detect.tick(now, &mut self.findings);
        self.admit(now, out);
    }
}
