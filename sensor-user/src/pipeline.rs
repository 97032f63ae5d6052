//! The whole data path on one screen: segments in, alerts out. Pure: no I/O, no clock, no threads.
//!
//! Time comes from the data, so one capture gives the same alerts byte for byte, live or replayed. The only thing
//! that may come later than its exchange is a token's verdict: [`parked`](crate::parked) keeps what waits for one.
//!
//! Exchanges that have ended are judged a few at a time, each as of the moment at which it ended: the code of all stages
//! is larger than the cache that code is fetched from, that of each is not. How many are judged at a time makes no
//! difference to what is said of them.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::alert::{AlertSettings, Desk, Event, Marks};
use crate::capture::{Frame, Grant, Input, Loss, Time};
use crate::chosen::Chosen;
use crate::detect::user::UserRules;
use crate::detect::{DetectSettings, Detector, Finding, Knowledge};
use crate::http::{Connection, Exchange, Exchanges, HttpLimits};
use crate::parked::{Parked, Waiting};
use crate::reassembly::{FlowLimits, Flows};
use crate::seen::{Seen, Watch};
use crate::shedding::Gate;
use crate::telemetry::stopwatch::{Stage, Stopwatch};
use crate::token::hash::NoRandomness;
use crate::token::keys::KeyRing;
use crate::token::settings::TokenSettings;
use crate::token::stage::{Shown, Tokens};
use crate::token::verifier::{Verdict, Verifier};
use crate::token::{Answer, IssuedToken, Standing, Token, TokenUse};

/// Exchanges that are judged at a time: what they bring must stay in the near caches while they wait, at some 2 KiB each.
const BATCH: usize = 16;

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
    /// Alerts and incidents, in order.
    pub events: Vec<Event>,
    /// Bytes that the source may withhold.
    pub grants: Vec<Grant>,
    /// Exchanges, each once, as far as [`Pipeline::watch`] asks for them.
    pub exchanges: Vec<Seen>,
}

/// An exchange that has ended and is not judged yet.
#[derive(Debug)]
struct Ended {
    exchange: Box<Exchange>,
    /// The time of the data then.
    at: Time,
    shown: Shown,
    tokens: SmallVec<[TokenUse; 1]>,
    issued: Vec<IssuedToken>,
}

/// The stages in order, and the time of the data.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) flows: Flows<Connection>,
    pub(crate) exchanges: Exchanges,
    pub(crate) tokens: Tokens,
    pub(crate) parked: Parked,
    pub(crate) asked: Parked,
    pub(crate) detect: Detector,
    pub(crate) desk: Desk,
    pub(crate) gate: Gate,
    /// Which servers are watched.
    pub chosen: Chosen,
    /// At most as many as one segment ends, and [`BATCH`].
    ended: Vec<Ended>,
    findings: Vec<Finding>,
    watch: Watch,
    stopwatch: Option<Box<dyn Stopwatch>>,
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
            asked: Parked::impatient(),
            detect: Detector::new(settings.detect),
            desk: Desk::new(settings.alerts),
            gate: Gate::default(),
            chosen: Chosen::default(),
            ended: Vec::new(),
            findings: Vec::new(),
            watch: Watch::default(),
            stopwatch: None,
            now: Time::default(),
        })
    }

    /// Tells a stopwatch of every segment and of the stages that it passes.
    pub fn time(&mut self, stopwatch: Box<dyn Stopwatch>) {
        self.stopwatch = Some(stopwatch);
    }

    #[inline]
    fn start(&mut self) {
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.start();
        }
    }

    #[inline]
    fn lap(&mut self, stage: Stage) {
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.lap(stage);
        }
    }

    /// Takes whatever a source delivers; by reference, for a frame that is moved is copied. What it ended may wait for
    /// [`Self::settle`].
    pub fn on_input(&mut self, input: &Input<'_>, out: &mut Output) {
        match input {
            Input::Frame(frame) => self.on_frame(frame, out),
            Input::Loss(loss) => self.on_loss(loss, out),
            Input::Tick(now) => self.on_tick(*now, out),
            Input::Pressed(now) => {
                self.settle(out);
                self.gate.press(*now);
            }
        }
    }

    /// Pushes one frame through every stage. What it ended may wait for [`Self::settle`].
    pub fn on_frame(&mut self, frame: &Frame<'_>, out: &mut Output) {
        self.now = self.now.max(frame.at);
        self.start();
        self.flows.push(frame, &mut self.exchanges, &mut out.grants);
        self.lap(Stage::Http);
        self.gather();
        if self.ended.len() >= BATCH {
            self.settle(out);
        }
    }

    /// Takes over the exchanges that have ended by now.
    fn gather(&mut self) {
        while let Some(exchange) = self.exchanges.take() {
            if self.chosen.has(&exchange.origin) {
                let (shown, tokens, issued) = Default::default();
                self.ended.push(Ended { exchange, at: self.now, shown, tokens, issued });
            } else {
                self.exchanges.recycle(exchange);
            }
        }
    }

    /// Judges what has ended: to be called when the source has nothing more for now, and so before rules, knowledge or
    /// marks are replaced. Whatever else may change a judgement settles first what came before it.
    pub fn settle(&mut self, out: &mut Output) {
        if self.ended.is_empty() {
            return;
        }
        self.start();
        let (mut ended, newest) = (std::mem::take(&mut self.ended), self.now);
        // What is asked for in loops that do nothing else is fetched from memory all at once (decision 15).
        for each in &mut ended {
            each.shown = self.tokens.read(&each.exchange);
        }
        for each in &ended {
            self.tokens.glance(&each.shown);
        }
        for Ended { exchange, at, shown, tokens, issued } in &mut ended {
            *issued = self.tokens.name_issued(exchange);
            *tokens = self.tokens.find(shown, exchange, *at);
            self.lap(Stage::Token);
        }
        self.detect.glance(ended.iter().map(|each| &*each.tokens));
        for each in ended.drain(..) {
            self.now = each.at;
            self.judge(each, out);
        }
        (self.ended, self.now) = (ended, newest);
    }

    /// Judges one exchange, its tokens and its history; what its tokens lack is judged when it comes.
    fn judge(&mut self, Ended { exchange, tokens, issued, .. }: Ended, out: &mut Output) {
        if self.gate.sheds(&exchange, &tokens) {
            return self.exchanges.recycle(exchange);
        }
        self.detect.judge_issuing(&exchange, &tokens, &issued, self.now, &mut self.findings);
        self.lap(Stage::Detect);
        self.admit(out);
        self.lap(Stage::Alert);
        let Watch { exchanges, words } = self.watch;
        let seen = exchanges.then(|| Seen::of(&exchange, self.detect.newest_route(), words));
        if unsettled(&tokens).is_some() || asked_about(&tokens).is_some() {
            return self.park(Waiting { exchange, tokens, seen }, out);
        }
        out.exchanges.extend(seen.map(|seen| seen.with(tokens)));
        self.exchanges.recycle(exchange);
    }

    /// Keeps an exchange that waits for something about its tokens; any other is done.
    fn park(&mut self, waiting: Waiting, out: &mut Output) {
        let done = if let Some(token) = unsettled(&waiting.tokens) {
            self.parked.park(token, waiting, self.now)
        } else if let Some(token) = asked_about(&waiting.tokens) {
            self.asked.park(token, waiting, self.now)
        } else {
            Some(waiting)
        };
        self.done(done, out);
    }

    /// Tells of exchanges of which nothing more will be known.
    fn done(&mut self, waiting: impl IntoIterator<Item = Waiting>, out: &mut Output) {
        for Waiting { exchange, tokens, seen } in waiting {
            out.exchanges.extend(seen.map(|seen| seen.with(tokens)));
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
            self.park(waiting, out);
        }
        self.admit(out);
    }

    /// An answer has come: whether a token stands well with those who can revoke it.
    pub fn on_answer(&mut self, answer: &Answer, out: &mut Output) {
        self.settle(out);
        let token = self.tokens.answered(answer);
        for mut waiting in self.asked.take(answer.fingerprint) {
            if let Some(token) = token.as_ref().filter(|token| !stands_well(token)) {
                let mine = |held: &&mut TokenUse| held.token.fingerprint == token.fingerprint;
                for held in waiting.tokens.iter_mut().filter(mine) {
                    held.token = Arc::clone(token);
                }
                let (exchange, tokens) = (&waiting.exchange, &waiting.tokens);
                self.detect.judge_standing(exchange, tokens, token.fingerprint, self.now, &mut self.findings);
            }
            self.done([waiting], out);
        }
        self.admit(out);
    }

    /// A verdict has come from elsewhere.
    pub fn on_verdict(&mut self, verdict: Verdict, out: &mut Output) {
        self.settle(out);
        if let Some(token) = self.tokens.settle(verdict, self.now) {
            self.judge_parked(&token, out);
        }
    }

    /// Keys have come or changed: tokens that waited for them are judged now.
    pub fn on_keys(&mut self, keys: Arc<KeyRing>, out: &mut Output) {
        self.settle(out);
        for token in self.tokens.keys_changed(keys, self.now) {
            self.judge_parked(&token, out);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, out: &mut Output) {
        self.now = self.now.max(now);
        self.flows.expire(self.now, &mut self.exchanges);
        self.gather();
        self.settle(out);
        for token in self.tokens.resume(self.now) {
            self.judge_parked(&token, out);
        }
        let tired = self.parked.expire(self.now).into_iter().chain(self.asked.expire(self.now));
        self.done(tired, out);
        if let Some(shed) = self.gate.tick(self.now) {
            self.detect.lost(&shed, &mut self.findings);
        }
        self.detect.tick(self.now, &mut self.findings);
        self.admit(out);
        self.desk.tick(self.now, &mut out.events);
    }

    /// The source lost something.
    pub fn on_loss(&mut self, loss: &Loss, out: &mut Output) {
        self.settle(out);
        self.now = self.now.max(loss.at);
        self.detect.lost(loss, &mut self.findings);
        self.admit(out);
    }

    /// Nothing more will come: ends every flow and tells what was counted and not told. Alerts and incidents stay open,
    /// for [`Self::close`] or the next run.
    pub fn finish(&mut self, out: &mut Output) {
        self.flows.finish(self.now, &mut self.exchanges);
        self.gather();
        self.settle(out);
        self.give_up(out);
        self.detect.finish(self.now, &mut self.findings);
        self.admit(out);
        self.desk.flush(&mut out.events);
    }

    /// Nothing more will ever come: closes what is open.
    pub fn close(&mut self, out: &mut Output) {
        self.desk.close(&mut out.events);
    }

    /// Obeys what people have said of alerts from now on.
    pub fn obey(&mut self, marks: Arc<Marks>) {
        self.desk.obey(marks);
    }

    /// Judges tokens by other settings from now on: verdicts, and what waited for one, begin anew.
    ///
    /// # Errors
    /// When the system has no randomness; then nothing is replaced.
    pub fn replace_tokens(
        &mut self,
        settings: &TokenSettings,
        verifier: Box<dyn Verifier>,
        out: &mut Output,
    ) -> Result<(), NoRandomness> {
        self.settle(out);
        self.tokens = Tokens::new(settings, verifier)?;
        self.give_up(out);
        Ok(())
    }

    /// Asks rules by other settings from now on. Their history and open alerts go on.
    pub fn replace_rules(&mut self, settings: DetectSettings) {
        let mut detect = Detector::new(settings);
        detect.adopt(Arc::clone(self.detect.user_rules()));
        detect.inherit(&mut self.detect);
        detect.know(self.detect.knowledge());
        self.detect = detect;
    }

    /// Judges by other lists and places from now on.
    pub fn know(&mut self, knowledge: Arc<Knowledge>) {
        self.detect.know(knowledge);
    }

    /// Asks these rules of the user's from now on; those that are the same keep their history.
    pub fn adopt(&mut self, rules: Arc<UserRules>) {
        self.detect.adopt(rules);
    }

    /// Tells of exchanges from now on, or no more.
    pub const fn watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// Nothing that is waited for will come.
    fn give_up(&mut self, out: &mut Output) {
        let all = self.parked.empty().into_iter().chain(self.asked.empty());
        self.done(all, out);
    }

    /// The time of the data: that of the newest input.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    fn admit(&mut self, out: &mut Output) {
        for finding in self.findings.drain(..) {
            self.desk.admit(finding, &mut out.events);
        }
    }
}

/// Whether nobody who was asked says that the token is revoked.
fn stands_well(token: &Token) -> bool {
    !matches!(token.standing, Standing::Listed | Standing::Inactive)
}

/// The first token about which a question is under way.
fn asked_about(tokens: &[TokenUse]) -> Option<crate::token::Fingerprint> {
    tokens.iter().find(|held| held.token.standing == Standing::Asked).map(|held| held.token.fingerprint)
}

/// The first token that still waits for its verdict.
fn unsettled(tokens: &[TokenUse]) -> Option<crate::token::Fingerprint> {
    tokens.iter().find(|held| !held.token.is_settled()).map(|held| held.token.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::staging::{NOW_S, Stage};
    use crate::token::InStep;
    use crate::token::forge::{self, ISSUER, Signer};
    use crate::token::settings::{Algorithm, DenyList, RevocationSettings};

    fn pipeline(signer: &Signer) -> Pipeline {
        let (address, pattern) = ("127.0.0.1:6379".to_owned(), "blacklist:{jti}".to_owned());
        let list = DenyList { address, user: None, password: None, database: 0, pattern };
        let revocation = RevocationSettings { list: Some(list), ..RevocationSettings::default() };
        let fingerprint_key = Some(b"a key for tests".to_vec().into());
        let tokens = TokenSettings { revocation, fingerprint_key, ..forge::settings(vec![signer.issuer()]) };
        let verifier = Box::new(InStep::new(&tokens));
        let mut pipeline = Pipeline::new(Settings { tokens, ..Settings::default() }, verifier).unwrap();
        pipeline.on_keys(signer.ring(), &mut Output::default());
        pipeline.now = Time::from_secs(NOW_S);
        pipeline
    }

    fn token(signer: &Signer) -> String {
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"alice","aud":"orders-api","exp":{},"iat":{NOW_S},"jti":"gone"}}"#,
            NOW_S + 3600
        );
        signer.token_with(&signer.header(), &claims)
    }

    fn request(text: &str, status: u16) -> Box<Exchange> {
        Box::new(Stage::new().status(status).header("Authorization", &format!("Bearer {text}")).exchange)
    }

    fn end(pipeline: &mut Pipeline, exchange: Box<Exchange>) {
        let (shown, tokens, issued) = Default::default();
        pipeline.ended.push(Ended { exchange, at: pipeline.now, shown, tokens, issued });
    }

    fn judge(pipeline: &mut Pipeline, exchange: Box<Exchange>, out: &mut Output) {
        end(pipeline, exchange);
        pipeline.settle(out);
    }

    fn rules(out: &Output) -> Vec<&'static str> {
        let rule = |event: &Event| match event {
            Event::Alert(alert) => Some(alert.finding.rule.id),
            Event::Incident(_) => None,
        };
        out.events.iter().filter_map(rule).collect()
    }

    #[test]
    fn the_first_use_of_a_revoked_token_waits_for_the_answer() {
        let signer = Signer::shared(Algorithm::ES256);
        let (mut pipeline, mut out) = (pipeline(signer), Output::default());
        let text = token(signer);
        judge(&mut pipeline, request(&text, 401), &mut out);
        assert_eq!((rules(&out), pipeline.asked.len()), (vec![], 1));
        let fingerprint = pipeline.tokens.next_inquiry().unwrap().fingerprint;
        let answer = Answer { fingerprint, standing: Some(Standing::Listed), expires: None };
        pipeline.on_answer(&answer, &mut out);
        pipeline.on_answer(&answer, &mut out);
        assert_eq!((rules(&out), pipeline.asked.len()), (vec!["revoked-token"], 0));
    }

    #[test]
    fn a_good_answer_or_none_says_nothing_and_waiting_ends() {
        let signer = Signer::shared(Algorithm::ES256);
        for standing in [Some(Standing::Good), None] {
            let (mut pipeline, mut out) = (pipeline(signer), Output::default());
            judge(&mut pipeline, request(&token(signer), 200), &mut out);
            let fingerprint = pipeline.tokens.next_inquiry().unwrap().fingerprint;
            pipeline.on_answer(&Answer { fingerprint, standing, expires: None }, &mut out);
            assert_eq!((rules(&out), pipeline.asked.len()), (vec![], 0));
        }
        let (mut pipeline, mut out) = (pipeline(signer), Output::default());
        judge(&mut pipeline, request(&token(signer), 200), &mut out);
        pipeline.on_tick(Time::from_secs(NOW_S + 2), &mut out);
        assert_eq!((rules(&out), pipeline.asked.len(), pipeline.asked.given_up), (vec![], 0, 1));
    }

    #[test]
    fn every_exchange_is_told_once_when_nothing_is_waited_for_any_more() {
        let signer = Signer::shared(Algorithm::ES256);
        let answered = |pipeline: &mut Pipeline, out: &mut Output| {
            let fingerprint = pipeline.tokens.next_inquiry().unwrap().fingerprint;
            pipeline.on_answer(&Answer { fingerprint, standing: Some(Standing::Listed), expires: None }, out);
        };
        let late = |pipeline: &mut Pipeline, out: &mut Output| {
            pipeline.on_tick(Time::from_secs(NOW_S + 2), out);
        };
        let over = |pipeline: &mut Pipeline, out: &mut Output| pipeline.finish(out);
        for end in [answered, late, over] {
            let (mut pipeline, mut out) = (pipeline(signer), Output::default());
            pipeline.watch(Watch { exchanges: true, words: false });
            judge(&mut pipeline, Box::new(Stage::new().status(200).exchange), &mut out);
            assert_eq!(out.exchanges.len(), 1, "without a token nothing is waited for");
            for _ in 0..3 {
                judge(&mut pipeline, request(&token(signer), 200), &mut out);
            }
            assert_eq!(out.exchanges.len(), 1);
            end(&mut pipeline, &mut out);
            pipeline.finish(&mut out);
            let verified = out.exchanges.iter().filter(|seen| seen.tokens.iter().any(|t| t.is_verified()));
            assert_eq!((out.exchanges.len(), verified.count()), (4, 3));
            assert!(
                out.exchanges.iter().all(|seen| &*seen.route == "GET /orders/{id}" && seen.words.is_none())
            );
        }
    }

    #[test]
    fn exchanges_are_told_to_those_who_ask_and_words_only_to_watchers() {
        let signer = Signer::shared(Algorithm::ES256);
        let (mut pipeline, mut out) = (pipeline(signer), Output::default());
        let secret = Stage::to("GET", "/reset/a@b.example?token=hush").status(200).exchange;
        judge(&mut pipeline, Box::new(secret.clone()), &mut out);
        assert!(out.exchanges.is_empty());
        pipeline.watch(Watch { exchanges: true, words: true });
        judge(&mut pipeline, Box::new(secret), &mut out);
        let words = out.exchanges[0].words.as_deref().unwrap();
        assert_eq!((&*words.method, &*words.path), ("GET", "/reset/a@b.example"));
    }

    /// What is said of three hundred exchanges, a quarter of a second apart, of which this many are judged at a time.
    fn said_of(signer: &Signer, texts: &[String], many: usize) -> Vec<String> {
        let (mut pipeline, mut out) = (pipeline(signer), Output::default());
        pipeline.watch(Watch { exchanges: true, words: true });
        for n in 0..300_u64 {
            let at = Time::from_secs(NOW_S).plus(std::time::Duration::from_millis(n * 250));
            pipeline.now = pipeline.now.max(at);
            let stage = match n % 5 {
                0 => Stage::to("POST", "/login").account(&format!("user{n}")).status(401),
                1 => Stage::to("GET", "/reset/%27%20OR%201=1--").status(500),
                _ => Stage::to("GET", &format!("/orders/{n}")).status(200),
            };
            let text = &texts[usize::try_from(n).unwrap() * 7 % texts.len()];
            let stage = stage.header("Authorization", &format!("Bearer {text}"));
            let stage = stage.client(&format!("198.51.100.{}", n % 3)).after_ms(n * 250);
            end(&mut pipeline, Box::new(stage.exchange));
            if pipeline.ended.len() >= many {
                pipeline.settle(&mut out);
                assert_eq!(pipeline.now, at);
            }
            if n % 70 == 69 {
                pipeline.on_tick(at, &mut out);
            }
            if n == 130 {
                pipeline.settle(&mut out);
                while let Some(asked) = pipeline.tokens.next_inquiry() {
                    let (fingerprint, standing) = (asked.fingerprint, Some(Standing::Listed));
                    pipeline.on_answer(&Answer { fingerprint, standing, expires: None }, &mut out);
                }
            }
        }
        pipeline.finish(&mut out);
        pipeline.close(&mut out);
        let seen = |seen: &Seen| {
            let held: Vec<_> = seen.tokens.iter().map(|held| (held.fingerprint, held.standing)).collect();
            format!("{:?} {} {:?} {:?} {held:?}", seen.at, seen.route, seen.status, seen.words)
        };
        assert!(out.events.len() > 20 && out.exchanges.len() == 300, "{}", out.events.len());
        out.events.iter().map(|event| format!("{event:?}")).chain(out.exchanges.iter().map(seen)).collect()
    }

    #[test]
    fn how_many_are_judged_at_a_time_makes_no_difference() {
        let signer = Signer::shared(Algorithm::ES256);
        let unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLyIsInN1YiI6ImEifQ.";
        let texts = [token(signer), unsigned.to_owned(), "no.token.either".to_owned(), token(signer)];
        let one = said_of(signer, &texts, 1);
        for many in [2, 7, BATCH, 70] {
            let said = said_of(signer, &texts, many);
            let other = said.iter().zip(&one).find(|(these, those)| these != those);
            assert!(said == one, "{many} at a time: {other:?}");
        }
    }
}
