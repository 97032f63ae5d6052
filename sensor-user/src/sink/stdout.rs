//! Standard output: each event in the form that was asked for, flushed once a batch.

use std::io::{self, Write};
use std::sync::Arc;

use crate::render::{Format, Told};
use crate::sink::{Batch, Delivery, Outcome, Sink};

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How events are written.
    pub format: Format,
    /// Whether compact lines are coloured.
    pub colour: bool,
}

/// Standard output. A reader that goes away (`| head`) is no error: what follows is silently not written.
#[derive(Debug)]
pub struct Stdout<W> {
    out: W,
    format: Format,
    colour: bool,
    text: String,
    gone: bool,
}

impl<W: Write> Stdout<W> {
    /// Writes to `out` in this form.
    #[must_use]
    pub fn new(out: W, format: Format, colour: bool) -> Self {
        Self { out, format, colour, text: String::new(), gone: false }
    }

    fn write(&mut self, events: &[Arc<Told>]) -> io::Result<()> {
        self.text.clear();
        for event in events {
            self.format.told(event, self.colour, &mut self.text);
        }
        self.out.write_all(self.text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write + Send> Sink for Stdout<W> {
    fn batch(&self) -> Batch {
        Batch { events: 256, bytes: 1 << 20 }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            if self.gone {
                return Outcome::done("nobody reads");
            }
            match self.write(events) {
                Ok(()) => Outcome::done("written"),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.gone = true;
                    Outcome::done("nobody reads")
                }
                Err(error) => Outcome::later(error.to_string()),
            }
        })
    }
}
