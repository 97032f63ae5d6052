//! Chunked coding (RFC 9112 section 7.1): sizes, extensions and trailers are passed over, nothing is buffered.
//!
//! Strict in what it believes and lenient in what it survives: a bare line feed or a blank in a size line is read as
//! lenient servers do, and noted; a size that is no number ends the reading.

/// How reading goes on after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More is needed.
    More,
    /// The body and its trailers ended after so many of the bytes given.
    Done(usize),
    /// This is no chunked coding; nothing after it can be trusted.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Size,
    /// After a digit.
    Digits,
    /// Blanks after the size.
    Blank,
    /// In extensions.
    Extension,
    /// After the CR of a size line.
    SizeEnd,
    /// In data.
    Data,
    /// After data: CR is due.
    DataCr,
    /// After data and CR.
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    /// Inside a trailer line.
    TrailerLine,
    /// After the CR of what may be the empty line.
    TrailerEnd,
    /// Never again.
    Broken,
}

/// A body in chunked coding, read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunks {
    state: State,
    /// Something was tolerated that another reader might read differently.
    odd: bool,
    /// The size being read, or the bytes of data still to come.
    left: u64,
    /// Bytes of data announced by all sizes so far.
    total: u64,
}

/// No server takes chunks of an exbibyte: a longer size is an attempt at overflow.
const MAX_CHUNK: u64 = 1 << 60;

impl Chunks {
    /// Reads on. Never called again after [`Step::Done`].
    pub fn feed(&mut self, bytes: &[u8]) -> Step {
        self.feed_to(bytes, |_data| {})
    }

    /// [`Self::feed`], handing out the data in it.
    pub fn feed_to(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Step {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.state == State::Data {
                let rest = (bytes.len() - at) as u64;
                let taken = self.left.min(rest);
                self.left -= taken;
                let end = at + usize::try_from(taken).unwrap_or(bytes.len());
                data(bytes.get(at..end).unwrap_or_default());
                at = end;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(byte) {
                return Step::Done(at);
            }
            if self.state == State::Broken {
                return Step::Broken;
            }
        }
        Step::More
    }

    /// Bytes of data from here on that need not be seen.
    #[must_use]
    pub fn skippable(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Passes over bytes that were not seen. Says whether they were all data.
    pub fn skip(&mut self, len: u64) -> bool {
        if self.skippable() < len {
            return false;
        }
        self.left -= len;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        true
    }

    /// Whether anything was ambiguous.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.odd
    }

    /// Bytes of data announced so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes one byte outside data. Says whether it was the last one of the body.
    fn step(&mut self, byte: u8) -> bool {
        self.state = match (self.state, byte) {
            (State::Size | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Digits | State::Blank, b' ' | b'\t') => self.tolerate(State::Blank),
            (State::Digits | State::Blank | State::Extension, b'\r') => State::SizeEnd,
            (State::Digits | State::Blank | State::Extension, b'\n') => {
                self.odd = true;
                self.sized()
            }
            (State::SizeEnd, b'\n') => self.sized(),
            (State::Digits | State::Blank, b';') | (State::Extension, _) => State::Extension,
            // A carriage return that ends no line: some readers end the line here.
            (State::SizeEnd, _) => self.tolerate(State::Extension),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataCr, b'\n') => self.tolerate(State::Size),
            (State::DataLf, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::Trailer, b'\n') => {
                self.odd = true;
                return true;
            }
            (State::TrailerEnd, b'\n') => return true,
            (State::TrailerEnd, _) => self.tolerate(State::TrailerLine),
            (State::TrailerLine, b'\n') => State::Trailer,
            (State::Trailer | State::TrailerLine, _) => State::TrailerLine,
            _ => self.tolerate(State::Broken),
        };
        false
    }

    fn tolerate(&mut self, next: State) -> State {
        self.odd = true;
        next
    }

    fn digit(&mut self, byte: u8) -> State {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.left = self.left.saturating_mul(16).saturating_add(u64::from(value));
        if self.left > MAX_CHUNK { self.tolerate(State::Broken) } else { State::Digits }
    }

    /// A size line has ended.
    fn sized(&mut self) -> State {
        self.total = self.total.saturating_add(self.left);
        if self.left == 0 { State::Trailer } else { State::Data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &[u8]) -> (Step, bool, u64) {
        let mut chunks = Chunks::default();
        let step = chunks.feed(body);
        (step, chunks.is_odd(), chunks.total())
    }

    #[test]
    fn reads_extensions_and_trailers() {
        let body = b"5;a=b;c=\"d\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\nZ: \r\n\r\nGET";
        assert_eq!(read(body), (Step::Done(body.len() - 3), false, 15));
    }

    #[test]
    fn survives_and_notes_what_lenient_servers_take() {
        for body in [
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\n\n",
            "0;\ra\r\n\r\n",
        ] {
            let (step, odd, _) = read(body.as_bytes());
            assert_eq!((step, odd), (Step::Done(body.len()), true), "{body:?}");
        }
    }

    #[test]
    fn ends_at_a_size_that_is_no_number() {
        for body in ["x\r\n", "\r\n", "-1\r\n", "0x5\r\n", "5\r\nhelloX", "10000000000000001\r\n", ";a\r\n"] {
            assert_eq!(read(body.as_bytes()).0, Step::Broken, "{body:?}");
        }
    }

    #[test]
    fn passes_unseen_data_only() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.feed(b"10\r\nab"), Step::More);
        assert_eq!(chunks.skippable(), 14);
        assert!(!chunks.skip(15));
        assert!(chunks.skip(14));
        assert_eq!(chunks.feed(b"\r\n0\r\n\r\n"), Step::Done(7));
    }

    proptest! {
        #[test]
        fn splitting_does_not_matter(body in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64) {
            let cut = cut.min(body.len());
            let mut whole = Chunks::default();
            let mut parts = Chunks::default();
            let expected = whole.feed(&body);
            let first = parts.feed(&body[..cut]);
            let got = match first {
                Step::More => match parts.feed(&body[cut..]) {
                    Step::Done(n) => Step::Done(n + cut),
                    other => other,
                },
                other => other,
            };
            prop_assert_eq!(got, expected);
        }
    }
}
