//! Live capture: the loop that owns the pipeline.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::control::Control;
use super::delivery::Delivery;
use super::figures::{self, Losses, Reloads};
use super::history::History;
use super::hosts::Hosts;
use super::identity;
use super::life::{LAST_ALERTS, LAST_RECORDS, LAST_VERDICTS, keep_memory_private};
use super::past::Past;
use super::records::{self, Records};
use super::services::{News, Services};
use super::stages::Stages;
use super::standby;
use super::supervisor::Doing;
use super::writer::Writer;
use super::{Options, RuntimeError, outward, settings};
use crate::capture::ebpf::{self, EbpfSource};
use crate::capture::{Progress, Source as _};
use crate::config::Config;
use crate::control::Overview;
use crate::pipeline::{Output, Pipeline, Settings};
use crate::store::StoreError;
use crate::telemetry::Totals;
use crate::token::settings::TokenSettings;
use crate::token::verifier::{self, Pooled, Verdict};

/// Jobs that wait for a verify worker: a quarter of a second's work of one core.
const VERIFY_QUEUE: usize = 4096;

/// How long the loop may sleep when nothing comes: signals and news of other threads wait as long, at most.
const NAP: Duration = Duration::from_millis(500);

/// How long it may sleep while verdicts are on their way.
const SHORT_NAP: Duration = Duration::from_millis(2);

/// How long somebody may hold the lock of the state directory who is no sensor.
const SHORT_LOCK: Duration = Duration::from_millis(100);

/// How often figures are shown.
const SHOW: Duration = Duration::from_secs(1);

/// Captures on this host until a signal says stop.
///
/// # Errors
/// When capture cannot start or go on, or alerts cannot be written.
pub fn run(config: &Config, options: &Options) -> Result<Totals, RuntimeError> {
    keep_memory_private();
    let open = || History::open(config.state.dir.as_deref(), config.state.save_every);
    let mut opened = open();
    if matches!(opened, Err(StoreError::InUse(_))) {
        // `doctor` holds the lock for a moment, to see whether it can.
        std::thread::sleep(SHORT_LOCK);
        opened = open();
    }
    let taken = match opened {
        Err(StoreError::InUse(dir)) if options.take_over => Err(dir),
        other => Ok(other?),
    };
    let mut source = EbpfSource::open(&capture(config))?;
    let hosts = Hosts::new(source.cgroup().to_owned());
    let mut services = Services::start(config, options.watch.clone(), Arc::clone(&hosts.cluster))?;
    let (mut losses, mut reload) = (Losses::default(), false);
    let mut history = match taken {
        Ok(history) => history,
        Err(dir) => {
            let Some(turn) = standby::wait(&dir, &config.state, &mut source, &mut services)? else {
                services.end();
                services.stop();
                return Ok(Totals::default());
            };
            reload = turn.reload;
            source.take_over(turn.begin, &mut |input| losses.note(&input));
            turn.history
        }
    };
    let mut config = config.clone();
    history.name_tokens(&mut config.tokens);
    let config = &config;
    let identity = identity::Watching::start(hosts.clone(), config.watch.clone())?;
    let delivery = Delivery::start(history.dir(), config, options)?;
    let writer = Writer::start(config, &delivery, hosts.clone(), identity.tally.clone())?;
    let records = Records::start(records::Plan {
        dir: records::dir(config, history.dir()),
        bounds: records::bounds(config),
        veil: settings::veil(config),
        privacy: settings::privacy(config),
        spool: delivery.spool.clone(),
        hosts,
    })?;
    let overview = Arc::clone(&services.board) as Arc<dyn Overview>;
    let past = Past::of(config, history.dir());
    let control = Control::start(config, &delivery, records.watchers.clone(), past, overview)?;
    let (verdicts, pool) = verify(&config.tokens)?;
    let settings = settings::of(config);
    let mut pipeline = Pipeline::new(settings.clone(), Box::new(pool))?;
    history.restore(&mut pipeline);
    pipeline.chosen.ask();
    pipeline.know(services.knowledge());
    let stages = Stages::default();
    pipeline.time(Box::new(stages.stopwatch()));
    tracing::info!("watching {}", source.cgroup().display());
    let mut live = Live {
        source,
        pipeline,
        settings,
        began_with: config.clone(),
        verdicts,
        services,
        identity,
        writer,
        records,
        delivery,
        control,
        history,
        losses,
        out: Output::default(),
        began: Instant::now(),
        shown: None,
        reloads: Reloads::begin(),
        ring_bytes: config.capture.ring_bytes,
        stages: stages.clone(),
    };
    if reload {
        live.reload(options);
    }
    live.watch(options)?;
    live.stop()
}

fn capture(config: &Config) -> ebpf::Options {
    let cgroup = config.capture.cgroup.path().map(std::path::Path::to_owned);
    ebpf::Options {
        cgroup,
        ports: config.capture.ports.clone(),
        ring_bytes: config.capture.ring_bytes,
        answers: config.tokens.learn_issued,
    }
}

/// Starts the workers: one, or a quarter of the cores on large hosts. They end when their pool is dropped.
fn verify(settings: &TokenSettings) -> Result<(Receiver<Verdict>, Pooled), RuntimeError> {
    let (pool, workers) = verifier::pool(settings, VERIFY_QUEUE);
    let (deliver, verdicts): (SyncSender<Verdict>, _) = sync_channel(VERIFY_QUEUE);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..(cores / 4).max(1) {
        let (workers, deliver) = (workers.clone(), deliver.clone());
        let run = move || workers.run(|verdict| deliver.send(verdict).is_ok());
        let thread = std::thread::Builder::new().name("verify".into()).spawn(run);
        thread.map_err(|cause| RuntimeError::Start { what: "a verify worker", cause })?;
    }
    Ok((verdicts, pool))
}

struct Live {
    source: EbpfSource,
    pipeline: Pipeline,
    /// What the pipeline was made with.
    settings: Settings,
    /// The configuration at the start.
    began_with: Config,
    verdicts: Receiver<Verdict>,
    services: Services,
    identity: identity::Watching,
    writer: Writer,
    records: Records,
    delivery: Delivery,
    control: Control,
    history: History,
    losses: Losses,
    out: Output,
    began: Instant,
    shown: Option<Instant>,
    reloads: Reloads,
    ring_bytes: u32,
    stages: Stages,
}

impl Live {
    /// Until a signal says stop.
    fn watch(&mut self, options: &Options) -> Result<(), RuntimeError> {
        self.take_rules();
        loop {
            self.capture()?;
            self.take_verdicts();
            while let Ok(news) = self.services.news.try_recv() {
                match news {
                    News::Stop => return Ok(()),
                    News::Reload => self.reload(options),
                    News::Reopen => self.delivery.sinks.reopen(),
                }
            }
            self.take_keys();
            if let Some(knowledge) = self.services.new_knowledge() {
                self.pipeline.know(knowledge);
            }
            self.take_answers();
            if let Some(marks) = self.services.new_marks() {
                self.pipeline.obey(marks);
            }
            self.take_rules();
            self.hand_over();
            self.history.step(&mut self.pipeline);
            self.show();
        }
    }

    /// Takes what the source has. Says whether there may be more at once.
    fn capture(&mut self) -> Result<bool, RuntimeError> {
        let Self { source, pipeline, losses, out, records, .. } = self;
        let nap = if pipeline.tokens.in_flight() > 0 { SHORT_NAP } else { NAP };
        let progress = source.poll(nap, &mut |input| {
            losses.note(&input);
            pipeline.on_input(&input, out);
            records.fold(&mut out.exchanges, pipeline.now());
        });
        pipeline.settle(out);
        records.fold(&mut out.exchanges, pipeline.now());
        let progress = progress?;
        for grant in out.grants.drain(..) {
            source.grant(grant);
        }
        Ok(progress == Progress::More)
    }

    fn take_verdicts(&mut self) {
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.pipeline.on_verdict(verdict, &mut self.out);
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.services.new_answer() {
            self.pipeline.on_answer(&answer, &mut self.out);
        }
        self.services.ask(|| self.pipeline.tokens.next_inquiry());
    }

    /// Takes keys that have come, and asks for those that are missing.
    fn take_keys(&mut self) {
        if let Some(keys) = self.services.new_keys() {
            self.pipeline.on_keys(keys, &mut self.out);
        }
        self.services.want(self.pipeline.tokens.take_wanted());
    }

    /// Takes over the user's rules, if they have changed.
    fn take_rules(&mut self) {
        if let Some(rules) = self.services.new_rules() {
            self.pipeline.adopt(rules);
        }
    }

    fn hand_over(&mut self) {
        for event in self.out.events.drain(..) {
            self.writer.send(event);
        }
        self.writer.push();
        self.identity.step(&mut self.pipeline.chosen);
        self.records.hand_over(&mut self.out.exchanges, &mut self.pipeline);
    }

    /// SIGHUP: takes the new configuration, or keeps the old one and says why.
    fn reload(&mut self, options: &Options) {
        let config = match (options.reload)() {
            Ok(config) => config,
            Err(report) => {
                tracing::error!(
                    "the configuration was not reloaded, the old one stays:\n{}",
                    report.render(false)
                );
                self.reloads.note(false);
                return;
            }
        };
        let mut config = config;
        self.history.name_tokens(&mut config.tokens);
        self.services.reread_rules(&config.rules_dir.path);
        let replaced = self.replace(&config, settings::of(&config));
        self.reloads.note(replaced.is_ok());
        match replaced {
            Ok(()) => {
                self.delivery.reconfigure(&config, options);
                tracing::info!("configuration reloaded");
                let fixed = self.began_with.fixed_differences(&config);
                if !fixed.is_empty() {
                    tracing::warn!("restart the sensor for what has changed in: {}", fixed.join(", "));
                }
            }
            Err(error) => tracing::error!("the configuration was not reloaded, the old one stays: {error}"),
        }
    }

    /// Replaces what has changed, so that verdicts and the history of rules outlive a reload that is not about them.
    fn replace(&mut self, config: &Config, new: Settings) -> Result<(), RuntimeError> {
        if new.tokens != self.settings.tokens {
            let (verdicts, pool) = verify(&new.tokens)?;
            self.services.reconfigure(&new.tokens)?;
            self.pipeline.replace_tokens(&new.tokens, Box::new(pool), &mut self.out)?;
            self.verdicts = verdicts;
        }
        if new.detect != self.settings.detect {
            self.pipeline.replace_rules(new.detect.clone());
        }
        self.settings = new;
        self.services.know_by(config);
        self.services.follow_by(config);
        self.identity.wish(config.watch.clone());
        Ok(())
    }

    /// Shows figures, at most once a second.
    fn show(&mut self) {
        if self.shown.is_some_and(|shown| shown.elapsed() < SHOW) {
            return;
        }
        self.shown = Some(Instant::now());
        let mut all = figures::metrics(&self.pipeline, &self.losses);
        figures::issuers(&mut all, &self.settings.tokens.issuers, self.pipeline.tokens.ring());
        figures::weight(&mut all, &self.history);
        self.reloads.show(&mut all);
        figures::kernel(&mut all, &self.source, &self.pipeline, self.ring_bytes);
        outward::metrics(&mut all, &self.delivery, &self.writer);
        self.records.metrics(&mut all);
        self.control.metrics(&mut all);
        self.identity.metrics(&mut all, &self.pipeline.chosen);
        all.extend(self.stages.metrics());
        self.services.show(Doing::Watching, all);
    }

    /// Takes what is still in the ring and under way, and ends everything.
    fn stop(mut self) -> Result<Totals, RuntimeError> {
        let deadline = Instant::now() + LAST_VERDICTS;
        self.services.end();
        let ended = self.source.end();
        while (self.capture()? || self.pipeline.tokens.in_flight() > 0 || self.pipeline.tokens.awaits_look())
            && Instant::now() < deadline
        {
            self.take_verdicts();
            self.take_keys();
        }
        self.pipeline.finish(&mut self.out);
        self.hand_over();
        let Self {
            source,
            mut pipeline,
            services,
            writer,
            records,
            delivery,
            control,
            history,
            losses,
            began,
            ..
        } = self;
        drop(source);
        // Whoever waits for the directory gets it when this process is done with all that is in it.
        let held = history.finish(&mut pipeline, ended);
        services.stop();
        let (tally, lost) = writer.stop(LAST_ALERTS);
        if lost > 0 {
            tracing::warn!("{lost} alerts were lost: the disk hung for too long");
        }
        records.stop(LAST_RECORDS);
        control.stop();
        delivery.stop();
        drop(held);
        Ok(figures::totals(&pipeline, &losses, tally.0, began.elapsed()))
    }
}
