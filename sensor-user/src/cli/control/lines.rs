//! The lines of a stream, as they come over the wire.

use std::time::Duration;

use tokio::time::timeout;

use crate::cli::control::{Client, Unanswered};
use crate::control::record::Record;
use crate::control::routes::HEAD;

/// Longest line, in bytes: a hundred times the largest event that we write.
const MAX_LINE: usize = 8 << 20;
/// Silence after which the sensor counts as gone: it shows every 15 s that it lives.
const SILENCE: Duration = Duration::from_secs(45);

/// A stream that is read line by line.
pub(in crate::cli) struct Lines {
    answer: reqwest::Response,
    bytes: Vec<u8>,
    /// Where in `bytes` there is certainly no end of a line before.
    looked: usize,
    /// The newest event's number when the stream began.
    pub(in crate::cli) head: Option<u64>,
}

impl Lines {
    /// Begins a stream.
    pub(in crate::cli) async fn open(
        client: &Client,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Self, Unanswered> {
        let answer = client.get(path, query).await?;
        let head = answer.headers().get(HEAD).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Self { answer, bytes: Vec::new(), looked: 0, head })
    }

    /// The next record; none at the end.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Record>, Unanswered> {
        let strange = |why: &str| Unanswered::Cut(why.to_owned());
        loop {
            if let Some(line) = self.line()? {
                let record = Record::read(&line).ok_or_else(|| strange("it sent what is no record"))?;
                return Ok(Some(record));
            }
            match timeout(SILENCE, self.answer.chunk()).await {
                Err(_elapsed) => return Err(strange("it has said nothing for 45 seconds")),
                Ok(Err(error)) => return Err(Unanswered::Cut(super::words(&error.without_url()))),
                Ok(Ok(Some(piece))) => self.bytes.extend_from_slice(&piece),
                // A line that was cut short is none.
                Ok(Ok(None)) => return Ok(None),
            }
        }
    }

    /// A line that has come whole.
    fn line(&mut self) -> Result<Option<String>, Unanswered> {
        let from = self.bytes.get(self.looked..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', from) else {
            self.looked = self.bytes.len();
            return if self.looked > MAX_LINE {
                Err(Unanswered::Cut("it sent a line without an end".into()))
            } else {
                Ok(None)
            };
        };
        let line: Vec<u8> = self.bytes.drain(..=self.looked + end).collect();
        self.looked = 0;
        let text = String::from_utf8(line);
        text.map(Some).map_err(|_not_text| Unanswered::Cut("it sent what is no text".into()))
    }
}
