//! The terminal: taken at the start, given back at the end, whatever the end is.

use std::io::{self, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

use crate::cli::tail::Asked;
use crate::cli::top::draw::{Look, frame};
use crate::cli::top::model::{Model, Next};
use crate::cli::top::{News, Watch};

/// Keys that wait while a frame is drawn.
const KEYS: usize = 64;
/// How long the thread of the keys looks for one before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Frames are not drawn more often: nobody could see it, and a slow line would lag behind.
const FRAME: Duration = Duration::from_millis(50);

/// The terminal, ours until dropped.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn take() -> io::Result<Self> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            hook(info);
        }));
        enable_raw_mode()?;
        // From here on dropping it gives everything back.
        let screen = Self(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        give_back();
    }
}

/// What a terminal that went away cannot take any more is nobody's loss.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// Shows it until somebody quits.
pub(super) async fn run(watch: &Watch, look: Look) -> io::Result<()> {
    let mut asked = Asked::new()?;
    let mut screen = Screen::take()?;
    let mut news = watch.start();
    let mut keys = Keys::start()?;
    let mut model = Model::default();
    let mut timer = tokio::time::interval(FRAME);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut is_stale = true;
    loop {
        tokio::select! {
            some = news.recv() => {
                take(&mut model, some);
                is_stale = true;
            }
            event = keys.events.recv() => {
                match event {
                    Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                        if model.key(key) == Next::Quit {
                            return Ok(());
                        }
                    }
                    Some(_) => {}
                    None => return Err(io::Error::other("the terminal cannot be read any more")),
                }
                is_stale = true;
            }
            () = asked.wait() => return Ok(()),
            _ = timer.tick(), if is_stale => {
                screen.0.draw(|f| frame(&model, look, f.area(), f.buffer_mut()))?;
                is_stale = false;
            }
        }
    }
}

fn take(model: &mut Model, news: Option<News>) {
    match news {
        Some(News::State(state)) => model.state(*state),
        Some(News::Alert(told)) => model.alert(told),
        Some(News::Lost(count)) => model.lost += count,
        Some(News::Trouble(words)) => model.trouble = Some(words),
        None => {}
    }
}

/// The thread that waits for keys. It ends soon after it is dropped.
struct Keys {
    events: mpsc::Receiver<Event>,
    wanted: Arc<AtomicBool>,
}

impl Keys {
    fn start() -> io::Result<Self> {
        let (send, events) = mpsc::channel(KEYS);
        let wanted = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&wanted);
        let watch = move || {
            while still.load(Ordering::Relaxed) {
                let event = match event::poll(LOOK) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(_) => return,
                };
                let Ok(event) = event else { return };
                if send.blocking_send(event).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("keys".into()).spawn(watch)?;
        Ok(Self { events, wanted })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}
