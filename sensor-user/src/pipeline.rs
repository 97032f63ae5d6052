//! The whole data path on one screen: segments in, alerts out. Pure: no I/O, no clock, no threads.
//!
//! Time comes from the data, so one capture gives the same alerts byte for byte, live or replayed. The only thing
//! that may come later than its exchange is a token's verdict: [`parked`](crate::parked) keeps what waits for one.

use std::sync::Arc;

use crate::alert::{Alert, AlertSettings, Desk};
use crate::capture::{Frame, Grant, Input, Loss, Time};
use crate::detect::user::UserRules;
use crate::detect::{DetectSettings, Detector, Finding};
use crate::http::{Connection, Exchange, Exchanges, HttpLimits};
use crate::parked::Parked;
use crate::reassembly::{FlowLimits, Flows};
use crate::token::hash::NoRandomness;
use crate::token::keys::KeyRing;
use crate::token::settings::TokenSettings;
use crate::token::stage::Tokens;
use crate::token::verifier::{Verdict, Verifier};
use crate::token::{Token, TokenUse};

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

/// The stages in order, and the time of the data.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) flows: Flows<Connection>,
    pub(crate) exchanges: Exchanges,
    pub(crate) tokens: Tokens,
    pub(crate) parked: Parked,
    pub(crate) detect: Detector,
    pub(crate) desk: Desk,
    findings: Vec<Finding>,
    now: Time,
}

impl Pipeline {
    /// Builds every stage. `verifier` decides whether tokens are verified in step (replay) or elsewhere (live).
    ///
    /// # Errors
    /// When the system has no randomness for the token stage's secrets.
    pub fn new(settings: Settings, verifier: Box<dyn Verifier>) -> Result<Self, NoRandomness> {
        Ok(Self {
            flows: Flows::new(settings.flows),
            exchanges: Exchanges::new(settings.http),
            tokens: Tokens::new(&settings.tokens, verifier)?,
            parked: Parked::default(),
            detect: Detector::new(settings.detect),
            desk: Desk::new(settings.alerts),
            findings: Vec::new(),
            now: Time::default(),
        })
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
        self.now = self.now.max(frame.at);
        self.flows.push(frame, &mut self.exchanges, &mut out.grants);
        while let Some(exchange) = self.exchanges.take() {
            self.judge(exchange, out);
        }
    }

    /// Judges one exchange, its tokens and its history; what its tokens lack is judged when it comes.
    fn judge(&mut self, exchange: Exchange, out: &mut Output) {
        let tokens = self.tokens.find(&exchange, self.now);
        self.detect.judge(&exchange, &tokens, self.now, &mut self.findings);
        self.admit(out);
        let done = match unsettled(&tokens) {
            Some(token) => self.parked.park(token, exchange, tokens, self.now),
            None => Some(exchange),
        };
        if let Some(exchange) = done {
            self.exchanges.recycle(exchange);
        }
    }

    /// A token is settled: judges what was parked for it.
    fn judge_parked(&mut self, token: &Arc<Token>, out: &mut Output) {
        for mut waiting in self.parked.take(token.fingerprint) {
            let mine = |held: &&mut TokenUse| held.token.fingerprint == token.fingerprint;
            for held in waiting.tokens.iter_mut().filter(mine) {
                held.token = Arc::clone(token);
            }
            let (exchange, tokens, settled) = (&waiting.exchange, &waiting.tokens, token.fingerprint);
            self.detect.judge_late(exchange, tokens, settled, self.now, &mut self.findings);
            let done = match unsettled(&waiting.tokens) {
                Some(other) => self.parked.park(other, waiting.exchange, waiting.tokens, self.now),
                None => Some(waiting.exchange),
            };
            if let Some(exchange) = done {
                self.exchanges.recycle(exchange);
            }
        }
        self.admit(out);
    }

    /// A verdict has come from elsewhere.
    pub fn on_verdict(&mut self, verdict: Verdict, out: &mut Output) {
        if let Some(token) = self.tokens.settle(verdict, self.now) {
            self.judge_parked(&token, out);
        }
    }

    /// Keys have come or changed: tokens that waited for them are judged now.
    pub fn on_keys(&mut self, keys: Arc<KeyRing>, out: &mut Output) {
        for token in self.tokens.keys_changed(keys, self.now) {
            self.judge_parked(&token, out);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, out: &mut Output) {
        self.now = self.now.max(now);
        self.flows.expire(self.now, &mut self.exchanges);
        while let Some(exchange) = self.exchanges.take() {
            self.judge(exchange, out);
        }
        for token in self.tokens.resume(self.now) {
            self.judge_parked(&token, out);
        }
        self.parked.expire(self.now);
        self.detect.tick(self.now, &mut self.findings);
        self.admit(out);
        self.desk.tick(self.now, &mut out.alerts);
    }

    /// The source lost something.
    pub fn on_loss(&mut self, loss: &Loss, out: &mut Output) {
        self.now = self.now.max(loss.at);
        self.detect.lost(loss, &mut self.findings);
        self.admit(out);
    }

    /// Nothing more will come: ends every flow and tells what was counted and not told.
    pub fn finish(&mut self, out: &mut Output) {
        self.flows.finish(self.now, &mut self.exchanges);
        while let Some(exchange) = self.exchanges.take() {
            self.judge(exchange, out);
        }
        self.detect.finish(self.now, &mut self.findings);
        self.admit(out);
        self.desk.flush(&mut out.alerts);
    }

    /// Judges tokens by other settings from now on: verdicts, and what waited for one, begin anew.
    ///
    /// # Errors
    /// When the system has no randomness; then nothing is replaced.
    pub fn replace_tokens(
        &mut self,
        settings: &TokenSettings,
        verifier: Box<dyn Verifier>,
    ) -> Result<(), NoRandomness> {
        self.tokens = Tokens::new(settings, verifier)?;
        self.parked = Parked::default();
        Ok(())
    }

    /// Asks rules by other settings from now on: their history begins anew. Open alerts go on.
    pub fn replace_rules(&mut self, settings: DetectSettings) {
        let user = Arc::clone(self.detect.user_rules());
        self.detect = Detector::new(settings);
        self.detect.adopt(user);
    }

    /// Asks these rules of the user's from now on; those that are the same keep their history.
    pub fn adopt(&mut self, rules: Arc<UserRules>) {
        self.detect.adopt(rules);
    }

    /// The time of the data: that of the newest input.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    fn admit(&mut self, out: &mut Output) {
        for finding in self.findings.drain(..) {
            self.desk.admit(finding, &mut out.alerts);
        }
    }
}

/// The first token that still waits for its verdict.
fn unsettled(tokens: &[TokenUse]) -> Option<crate::token::Fingerprint> {
    tokens.iter().find(|held| !held.token.is_settled()).map(|held| held.token.fingerprint)
}
