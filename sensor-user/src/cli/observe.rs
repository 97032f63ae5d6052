//! `tokenscope observe`: the API exchanges themselves, as they come.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::control::lines::Lines;
use crate::cli::control::tally::Tally;
use crate::cli::control::wishes::Wishes;
use crate::cli::control::{Client, Reach, event_loop};
use crate::cli::tail::{Asked, Ended, Out};
use crate::cli::{Context, Failure, terminal};
use crate::control::{Filter, Record};
use crate::render::{Format, exchange, yaml};

/// The pause before connecting again.
const PAUSE: Duration = Duration::from_secs(1);

/// Show API exchanges as they come
///
/// Secrets are never in them, and privacy applies as it does to alerts. Exchanges are kept nowhere: what comes faster
/// than it is read is told as a gap. Without `-f` it ends after 20, or after ten seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope observe -f
  tokenscope observe -f --principal alice@idp
  tokenscope observe -n 100 --address 10.0.3.0/24 -o json | jq .api.operation")]
pub(super) struct Arguments {
    /// Go on until interrupted
    #[arg(short, long)]
    follow: bool,
    /// So many at most [default: 20, without a bound with -f]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<u64>,
    /// For so long at most: 10s, 5m, 1h [default: 10s, without a bound with -f]
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    /// End when the connection does
    #[arg(long, requires = "follow")]
    no_reconnect: bool,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn observe(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let filter = arguments.wishes.filter(super::now())?;
    if let Some(name) = filter.about_alerts() {
        let name = name.replace('_', "-");
        let what = format!("exchanges have no {name}: --{name} is for `tail`; `trace` tells of the past");
        return Err(Failure::Usage(what));
    }
    let out = Out::new(context);
    if matches!(out.format, Format::Falco | Format::Cef) {
        return Err(Failure::Usage(
            "exchanges have no such form: use compact, json, yaml, ocsf or ecs".into(),
        ));
    }
    let client = Client::new(context, &arguments.reach)?;
    let mut observer = Observer { filter, arguments, out, tally: Tally::default() };
    let quiet = context.global.quiet > 0;
    match event_loop()?.block_on(observer.run(&client, quiet)) {
        Ok(()) | Err(Ended::Asked) => {
            if !quiet {
                terminal::complain(&observer.tally.summary("exchanges"));
            }
            Ok(())
        }
        Err(Ended::NobodyReads) => Ok(()),
        Err(Ended::Unanswered(why)) => Err(why.into()),
        Err(Ended::Output(error)) => Err(error.into()),
    }
}

struct Observer<'a> {
    filter: Filter,
    arguments: &'a Arguments,
    out: Out,
    tally: Tally,
}

impl Observer<'_> {
    async fn run(&mut self, client: &Client, quiet: bool) -> Result<(), Ended> {
        let mut asked = Asked::new().map_err(Ended::Output)?;
        let again = self.arguments.follow && !self.arguments.no_reconnect;
        let mut connected = false;
        loop {
            let result = tokio::select! {
                result = self.read(client, &mut connected) => result,
                () = asked.wait() => return Err(Ended::Asked),
            };
            match result {
                Ok(()) if !again || self.is_done() => return Ok(()),
                Err(Ended::Unanswered(why)) if again && connected && why.may_pass() => {}
                Ok(()) => {}
                Err(ended) => return Err(ended),
            }
            if connected && !quiet {
                terminal::complain(
                    "the sensor went away; connecting again, what comes meanwhile is not seen\n",
                );
            }
            self.tally.again += 1;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = asked.wait() => return Err(Ended::Asked),
            }
        }
    }

    fn is_done(&self) -> bool {
        self.arguments.lasts.is_some() || self.arguments.lines.is_some_and(|lines| self.tally.shown >= lines)
    }

    async fn read(&mut self, client: &Client, connected: &mut bool) -> Result<(), Ended> {
        let mut query = self.filter.parameters();
        query.push(("follow", self.arguments.follow.to_string()));
        let left = self.arguments.lines.map(|lines| lines.saturating_sub(self.tally.shown));
        query.extend(left.map(|left| ("limit", left.to_string())));
        query.extend(self.arguments.lasts.clone().map(|lasts| ("for", lasts)));
        let mut lines = Lines::open(client, "/v1/exchanges", &query).await?;
        *connected = true;
        while let Some(record) = lines.next().await? {
            match record {
                Record::Plain(json) => self.show(&json)?,
                Record::Missed(count) => terminal::complain(&self.tally.missed(count)),
                _ => {}
            }
        }
        Ok(())
    }

    fn show(&mut self, json: &str) -> Result<(), Ended> {
        let mut text = String::new();
        let event = || serde_json::from_str::<Value>(json).unwrap_or_default();
        match self.out.format {
            Format::Compact => exchange::line(&event(), self.out.colour, &mut text),
            Format::Yaml => yaml::document(&event(), &mut text),
            Format::Ecs => text = format!("{}\n", exchange::ecs(&event())),
            Format::Ocsf | Format::Falco | Format::Cef => text = format!("{json}\n"),
        }
        Out::write(&text)?;
        self.tally.shown += 1;
        Ok(())
    }
}
