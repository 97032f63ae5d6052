//! `tokenscope tail`: the alerts of the running sensor, those that were and those that come.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::control::lines::Lines;
use crate::cli::control::tally::Tally;
use crate::cli::control::wishes::Wishes;
use crate::cli::control::{Client, Reach, Unanswered, event_loop};
use crate::cli::{Context, Failure, terminal};
use crate::config::Secrets;
use crate::control::feed::{Feed, MAX_LAST, Start};
use crate::control::{Filter, Record};
use crate::render::{Format, Told};
use crate::spool::Spool;

/// Alerts that are shown of those that were, unless somebody says otherwise.
const FEW: usize = 20;
/// The spool's directory in `state.dir`.
const SPOOL: &str = "spool";
/// The first pause before connecting again, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Show the running sensor's alerts, and follow them
///
/// Alerts go to standard output, what happens to the connection to standard error. A gap in the numbers is told there
/// too. When the sensor restarts, `-f` connects again and goes on behind the last alert that was shown. While no sensor
/// runs, the alerts that it has left in its state directory are shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope tail
  tokenscope tail -f --min-severity high
  tokenscope tail -f --rule 'token-*' --namespace shop
  tokenscope tail --since 2h --address 10.0.0.0/8 -o json | jq .message")]
pub(super) struct Arguments {
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    /// The newest so many of those that were [default: 20, or all with --since]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<usize>,
    /// End when the connection does
    #[arg(long, requires = "follow")]
    no_reconnect: bool,
    /// Where the sensor keeps its state, for when none runs [default: `state.dir` of the configuration]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["connect", "follow"])]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn tail(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.lines.is_some_and(|lines| lines > MAX_LAST) {
        return Err(Failure::Usage(format!("-n is at most {MAX_LAST}; use --since for more")));
    }
    let filter = arguments.wishes.filter(super::now())?;
    let client = Client::new(context, &arguments.reach)?;
    let offline = offline(context, arguments);
    let last = match arguments.lines {
        None if arguments.wishes.has_since() => None,
        lines => Some(lines.unwrap_or(FEW)),
    };
    let mut tail = Tail {
        filter,
        follow: arguments.follow,
        last,
        through: None,
        connected: false,
        out: Out::new(context),
        tally: Tally::default(),
        quiet: context.global.quiet > 0,
    };
    let result = event_loop()?.block_on(tail.run(&client, !arguments.no_reconnect));
    match result {
        Ok(()) | Err(Ended::Asked) => {
            if arguments.follow && context.global.quiet == 0 {
                terminal::complain(&tail.tally.summary("alerts"));
            }
            Ok(())
        }
        Err(Ended::NobodyReads) => Ok(()),
        Err(Ended::Unanswered(why)) if why.is_nobody() => match offline {
            Some(dir) => tail.read_offline(&dir, &why),
            None => Err(why.into()),
        },
        Err(Ended::Unanswered(why)) => Err(why.into()),
        Err(Ended::Output(error)) => Err(error.into()),
    }
}

/// The spool that may be read while no sensor runs: there is one, and nobody asked for another sensor.
fn offline(context: &Context, arguments: &Arguments) -> Option<PathBuf> {
    if arguments.follow {
        return None;
    }
    let state = match &arguments.state_dir {
        Some(dir) => dir.clone(),
        None if arguments.reach.is_named() => return None,
        None => {
            let loaded = context.load(context.config_path().as_deref(), Secrets::Optional);
            loaded.ok()?.config.state.dir?
        }
    };
    Some(state.join(SPOOL)).filter(|dir| dir.is_dir())
}

/// Why a stream is read no more.
pub(super) enum Ended {
    /// SIGINT or SIGTERM.
    Asked,
    /// Whoever read standard output has gone.
    NobodyReads,
    /// The sensor does not answer.
    Unanswered(Unanswered),
    /// Standard output cannot be written.
    Output(std::io::Error),
}

impl From<Unanswered> for Ended {
    fn from(why: Unanswered) -> Self {
        Self::Unanswered(why)
    }
}

/// Standard output, in the form that was asked for.
pub(super) struct Out {
    /// The form.
    pub(super) format: Format,
    /// Whether compact lines are coloured.
    pub(super) colour: bool,
}

impl Out {
    /// As the flags say; compact on a terminal and OCSF otherwise.
    pub(super) fn new(context: &Context) -> Self {
        let default = if terminal::stdout_is_terminal() { Format::Compact } else { Format::Ocsf };
        let format = context.global.output.map_or(default, Into::into);
        Self { format, colour: terminal::colour_stdout(context.global.color) }
    }

    /// Writes at once, so that pipes and people have it now.
    pub(super) fn write(&self, text: &str) -> Result<(), Ended> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Ended::NobodyReads,
            _ => Ended::Output(error),
        })
    }
}

struct Tail {
    filter: Filter,
    follow: bool,
    last: Option<usize>,
    /// Everything up to this number was shown, or is not wanted.
    through: Option<u64>,
    /// Whether the sensor has ever answered.
    connected: bool,
    out: Out,
    tally: Tally,
    quiet: bool,
}

impl Tail {
    async fn run(&mut self, client: &Client, again: bool) -> Result<(), Ended> {
        let mut pause = PAUSE;
        let mut asked = Asked::new().map_err(Ended::Output)?;
        // Whether it was said that the sensor is gone: once is enough until it is back.
        let mut is_told = false;
        loop {
            let before = self.tally.clone();
            let result = tokio::select! {
                result = self.read(client) => result,
                () = asked.wait() => return Err(Ended::Asked),
            };
            is_told &= self.tally == before;
            let words = match result {
                Ok(()) if !self.follow || !again => return Ok(()),
                Ok(()) => "the sensor has ended the stream".to_owned(),
                Err(Ended::Unanswered(why)) if again && self.follow && self.connected && why.may_pass() => {
                    why.to_string()
                }
                Err(ended) => return Err(ended),
            };
            if !is_told {
                self.note(&format!("{words}; connecting again"));
                is_told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked.wait() => return Err(Ended::Asked),
            }
            pause = if self.tally.shown > before.shown { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        }
    }

    fn note(&self, words: &str) {
        if !self.quiet {
            terminal::complain(&format!("{words}\n"));
        }
    }

    /// Reads one stream to its end.
    async fn read(&mut self, client: &Client) -> Result<(), Ended> {
        let mut lines = Lines::open(client, "/v1/alerts", &self.query()).await?;
        if self.connected {
            self.tally.again += 1;
            if lines.head < self.through {
                self.note("the sensor counts anew: going on with the first alert it has");
                self.through = Some(0);
                lines = Lines::open(client, "/v1/alerts", &self.query()).await?;
            } else {
                self.note("connected again");
            }
        }
        self.connected = true;
        while let Some(record) = lines.next().await? {
            self.take(record)?;
        }
        Ok(())
    }

    /// Shows what a sensor has left behind.
    fn read_offline(&mut self, dir: &Path, why: &Unanswered) -> Result<(), Failure> {
        let spool = Spool::open_read_only(dir);
        let spool = spool.map_err(|error| {
            let dir = dir.display();
            Failure::Failed(anyhow::anyhow!("{why}; nor can the spool be read: {dir}: {error}"))
        })?;
        self.note(&format!("no sensor runs: these are the alerts in {}", dir.display()));
        let start = self.last.map_or(Start::Oldest, Start::Last);
        let mut feed = Feed::new(spool, None, self.filter.clone(), start);
        loop {
            let batch = feed.next();
            for record in batch.records {
                match self.take(record) {
                    Ok(()) => {}
                    Err(Ended::Output(error)) => return Err(error.into()),
                    Err(_) => return Ok(()),
                }
            }
            if !batch.more {
                return Ok(());
            }
        }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = self.filter.parameters();
        query.push(("envelope", "true".into()));
        query.push(("follow", self.follow.to_string()));
        match (self.through, self.last) {
            (Some(through), _) => query.push(("after", through.to_string())),
            (None, Some(last)) => query.push(("last", last.to_string())),
            (None, None) => {}
        }
        query
    }

    fn take(&mut self, record: Record) -> Result<(), Ended> {
        match record {
            Record::Event(told) => self.show(&told),
            // A position follows: a gap may span numbers of other severities, which are still to come.
            Record::Gap(lost) => {
                let words = self.tally.gap(&lost);
                terminal::complain(&words);
                Ok(())
            }
            Record::Position(through) => {
                self.through = self.through.max(Some(through));
                Ok(())
            }
            Record::Plain(_) | Record::Missed(_) | Record::Idle => Ok(()),
        }
    }

    fn show(&mut self, told: &Arc<Told>) -> Result<(), Ended> {
        if self.through.is_some_and(|through| told.sequence <= through) {
            return Ok(());
        }
        let mut text = String::new();
        self.out.format.told(told, self.out.colour, &mut text);
        self.out.write(&text)?;
        self.through = Some(told.sequence);
        self.tally.shown += 1;
        Ok(())
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Asked {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Asked {
    /// Listens for them from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Until one comes.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
