//! Standard output, or any writer that people and pipes read line by line.

use std::io::{self, Write};

use crate::alert::Event;
use crate::render::{Format, Privacy, Sink};

/// Writes each alert at once. A reader that goes away (`| head`) is no error: what follows is silently not written.
#[derive(Debug)]
pub struct Stdout<W> {
    out: W,
    format: Format,
    colour: bool,
    privacy: Privacy,
    line: String,
    gone: bool,
}

impl<W: Write> Stdout<W> {
    /// Writes to `out` in this form.
    #[must_use]
    pub fn new(out: W, format: Format, colour: bool) -> Self {
        Self { out, format, colour, privacy: Privacy::default(), line: String::new(), gone: false }
    }

    /// Hides what the configuration wants hidden.
    #[must_use]
    pub fn with_privacy(self, privacy: Privacy) -> Self {
        Self { privacy, ..self }
    }

    /// Whether the reader has gone away.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    fn unless_gone(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

impl<W: Write> Sink for Stdout<W> {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        self.line.clear();
        self.format.render(&self.privacy.event(event), self.colour, &mut self.line);
        let written = self.out.write_all(self.line.as_bytes());
        self.unless_gone(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.unless_gone(flushed)
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

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let mut sink = Stdout::new(Failing(1, io::ErrorKind::BrokenPipe), Format::Compact, false);
        for _ in 0..3 {
            sink.emit(&event()).unwrap();
        }
        assert!(sink.is_gone());
        sink.flush().unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut sink = Stdout::new(Failing(0, io::ErrorKind::StorageFull), Format::Ocsf, false);
        assert_eq!(sink.emit(&event()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn every_format_ends_its_events() {
        for name in ["compact", "json", "ocsf", "yaml", "ecs", "falco", "cef"] {
            let mut sink = Stdout::new(Vec::new(), Format::parse(name).unwrap(), false);
            sink.emit(&event()).unwrap();
            assert!(sink.out.ends_with(b"\n"), "{name}");
        }
        assert_eq!(Format::parse("xml"), None);
    }
}
