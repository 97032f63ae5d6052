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

    /// Writes these, flushed. False if nobody reads any more.
    ///
    /// # Errors
    /// When the other end is there and does not take them.
    pub fn write(&mut self, events: &[Arc<Told>]) -> io::Result<bool> {
        if self.gone {
            return Ok(false);
        }
        self.text.clear();
        for event in events {
            self.format.told(event, self.colour, &mut self.text);
        }
        let written = self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
}

impl<W: Write + Send> Sink for Stdout<W> {
    fn batch(&self) -> Batch {
        Batch { events: 256, bytes: 1 << 20 }
    }

    fn deliver<'a>(&'a mut self, events: &'a [Arc<Told>]) -> Delivery<'a> {
        Box::pin(async move {
            match self.write(events) {
                Ok(true) => Outcome::done("written"),
                Ok(false) => Outcome::done("nobody reads"),
                Err(error) => Outcome::later(error.to_string()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::staging::event;

    /// Takes so many writes, then fails.
    struct Failing(usize, io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(self.1)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told() -> [Arc<Told>; 1] {
        [Arc::new(Told::of(&event(), None, None))]
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let mut stdout = Stdout::new(Failing(1, io::ErrorKind::BrokenPipe), Format::Compact, false);
        let written = [(); 3].map(|()| stdout.write(&told()).unwrap());
        assert_eq!(written, [true, false, false]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut stdout = Stdout::new(Failing(0, io::ErrorKind::StorageFull), Format::Ocsf, false);
        assert_eq!(stdout.write(&told()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn every_format_ends_its_events() {
        for name in ["compact", "json", "ocsf", "yaml", "ecs", "falco", "cef"] {
            let mut stdout = Stdout::new(Vec::new(), Format::parse(name).unwrap(), false);
            stdout.write(&told()).unwrap();
            assert!(stdout.out.ends_with(b"\n"), "{name}");
        }
        assert_eq!(Format::parse("xml"), None);
    }
}
