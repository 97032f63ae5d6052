//! `tokenscope top`: one screen on the running sensor, or one frame of it as text.

mod draw;
mod model;
mod screen;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::cli::control::lines::Lines;
use crate::cli::control::wishes::Wishes;
use crate::cli::control::{Client, Reach, Unanswered, event_loop};
use crate::cli::{Context, Failure, terminal};
use crate::control::Record;
use crate::render::Told;

use draw::Look;
use model::{MAX_ALERTS, Model};

/// The size of a frame that is text: a usual terminal.
const TEXT: Rect = Rect { x: 0, y: 0, width: 100, height: 40 };
/// News that wait while a frame is drawn.
const NEWS: usize = 1024;
/// The pause before connecting again.
const AGAIN: Duration = Duration::from_secs(1);

/// Watch the running sensor: rates, losses, sinks, who is riskiest, the newest alerts
///
/// Keys: q quits, p holds the picture, / filters the alerts, the arrows scroll them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tokenscope top
  tokenscope top --min-severity high --namespace shop
  tokenscope top --once")]
pub(super) struct Arguments {
    /// Print one frame as text, and end; with -o json the state as an object
    #[arg(long)]
    once: bool,
    /// Seconds between two looks, from 0.2 to 60
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    delay: Duration,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    reach: Reach,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "it must be from 0.2 to 60".into())
}

/// What comes from the sensor.
enum News {
    State(Box<Value>),
    Alert(Arc<Told>),
    Lost(u64),
    Trouble(String),
}

pub(super) fn top(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let json = context.wants_json("top")?;
    if !arguments.once && json {
        return Err(Failure::Usage("-o json is for --once; `tail -o json` follows the alerts".into()));
    }
    if !arguments.once && !terminal::is_interactive() {
        return Err(Failure::Usage("top needs a terminal: use --once to print one frame".into()));
    }
    let mut query = arguments.wishes.filter(super::now())?.parameters();
    query.push(("last", MAX_ALERTS.to_string()));
    query.push(("envelope", "true".into()));
    let client = Arc::new(Client::new(context, &arguments.reach)?);
    let look = Look { colour: terminal::colour_stdout(context.global.color) };
    let watch = Watch { client, query, delay: arguments.delay };
    if arguments.once {
        let text = event_loop()?.block_on(once(&watch, json))?;
        return Ok(terminal::answer(&text)?);
    }
    let result = event_loop()?.block_on(async {
        // Without a sensor there is nothing to show: that is said before the screen is taken.
        watch.client.get("/v1/status", &[]).await?;
        Ok::<_, Unanswered>(screen::run(&watch, look).await)
    });
    Ok(result??)
}

/// What is watched, and how.
struct Watch {
    client: Arc<Client>,
    query: Vec<(&'static str, String)>,
    delay: Duration,
}

/// One frame: two looks, so that there are rates, and the alerts that were.
async fn once(watch: &Watch, json: bool) -> Result<String, Unanswered> {
    let mut model = Model::default();
    let mut lines = Lines::open(&watch.client, "/v1/alerts", &watch.query).await?;
    while let Some(record) = lines.next().await? {
        if let Record::Event(told) = record {
            model.alert(told);
        }
    }
    let interval = ("interval_ms", watch.delay.as_millis().to_string());
    let mut states = Lines::open(&watch.client, "/v1/top", &[interval]).await?;
    let mut last = String::new();
    for _ in 0..2 {
        if let Some(Record::Plain(state)) = states.next().await? {
            model.state(serde_json::from_str(&state).unwrap_or_default());
            last = state.into();
        }
    }
    if json {
        return Ok(format!("{last}\n"));
    }
    let mut buffer = Buffer::empty(TEXT);
    draw::frame(&model, Look { colour: false }, TEXT, &mut buffer);
    Ok(draw::text(&buffer))
}

impl Watch {
    /// Passes on states and alerts until nobody takes them any more, connecting again whenever it must.
    fn start(&self) -> mpsc::Receiver<News> {
        let (send, news) = mpsc::channel(NEWS);
        let interval = vec![("interval_ms", self.delay.as_millis().to_string())];
        tokio::spawn(states(Arc::clone(&self.client), interval, send.clone()));
        tokio::spawn(alerts(Arc::clone(&self.client), self.query.clone(), send));
        news
    }
}

async fn states(client: Arc<Client>, query: Vec<(&'static str, String)>, send: mpsc::Sender<News>) {
    loop {
        let words = match pass_states(&client, &query, &send).await {
            Ok(()) => "the sensor has stopped".to_owned(),
            Err(why) => why.to_string(),
        };
        if send.send(News::Trouble(words)).await.is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn pass_states(
    client: &Client,
    query: &[(&'static str, String)],
    send: &mpsc::Sender<News>,
) -> Result<(), Unanswered> {
    let mut lines = Lines::open(client, "/v1/top", query).await?;
    while let Some(record) = lines.next().await? {
        let Record::Plain(state) = record else { continue };
        let state = serde_json::from_str(&state).unwrap_or_default();
        if send.send(News::State(Box::new(state))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn alerts(client: Arc<Client>, mut query: Vec<(&'static str, String)>, send: mpsc::Sender<News>) {
    query.push(("follow", "true".into()));
    let mut through = None;
    loop {
        // What went wrong is told by the other stream.
        let _ = pass_alerts(&client, &query, &send, &mut through).await;
        if send.is_closed() {
            return;
        }
        if let Some(through) = through {
            query.retain(|(name, _)| !matches!(*name, "last" | "after"));
            query.push(("after", through.to_string()));
        }
        sleep(AGAIN).await;
    }
}

async fn pass_alerts(
    client: &Client,
    query: &[(&'static str, String)],
    send: &mpsc::Sender<News>,
    through: &mut Option<u64>,
) -> Result<(), Unanswered> {
    let mut lines = Lines::open(client, "/v1/alerts", query).await?;
    if lines.head < *through {
        // The sensor counts anew.
        *through = Some(0);
        return Ok(());
    }
    while let Some(record) = lines.next().await? {
        let news = match record {
            Record::Event(told) => {
                *through = Some(told.sequence);
                News::Alert(told)
            }
            Record::Gap(lost) => News::Lost(lost.end.saturating_sub(lost.start)),
            Record::Position(at) => {
                *through = (*through).max(Some(at));
                continue;
            }
            Record::Plain(_) | Record::Missed(_) | Record::Idle => continue,
        };
        if send.send(news).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
