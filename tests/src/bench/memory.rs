//! What one more of a kind takes: a live token, a principal, a connection.
//!
//! Each figure is the difference between the peaks of two replays, one of twice as many as the other, by how many more
//! they are. Tables that double are filled alike in both, so that what they keep free is in the figure, and what the
//! sensor takes of itself is not. Connections are those of `replay`, whose own table of them (the kernel has it, live)
//! is measured by those that say nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::offline::{CONNECTIONS, Out, SMALL_BODY, generate, replay, stored};
use super::{Figure, Options};
use crate::capture::{Conversation, file_header};
use crate::client::get;
use crate::golden::START;
use crate::mint::{GOLDEN_NOW, Mint};
use crate::sensor::Config;

/// Bytes of a head that does not end: 100,000 of them fit what the sensor holds of unfinished messages, 64 MiB.
const HALF: usize = 400;

/// How far a connection comes.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// Its handshake.
    Opened,
    /// The middle of its first head, where it waits: a slow loris.
    HalfAHead,
    /// The end of an exchange, after which it is kept alive.
    Idle,
}

/// Replays what is needed for each figure.
pub(super) fn measure(options: &Options) -> Result<Vec<Figure>> {
    let mint = Mint::at(GOLDEN_NOW)?;
    let dir = tempfile::tempdir()?;
    let config = &Config::new(&mint)?.write(dir.path())?;
    let token = a_piece(options.tokens, config, |count| {
        stored("memory-tokens", count, |file| {
            generate(file, count, SMALL_BODY, |n| {
                Ok(mint.eddsa_named(&format!("user{}", n % CONNECTIONS), &format!("id-{n:032}")))
            })
        })
    })?;
    let holder = a_piece(options.tokens, config, |count| {
        stored("memory-principals", count, |file| {
            generate(file, count, SMALL_BODY, |n| {
                Ok(mint.eddsa_named(&format!("user{n}"), &format!("id-{n:032}")))
            })
        })
    })?;
    let mut figures = vec![
        Figure::new("memory of one more live token", "bytes", vec![token]),
        Figure::new("memory of one more principal, without its token", "bytes", vec![holder - token]),
    ];
    let kinds = [
        (Until::Opened, "memory of one more connection, the table of replay included", "opened"),
        (Until::HalfAHead, "the same beyond it, with half a head of 400 bytes", "half"),
        (Until::Idle, "the same beyond it, idle after an exchange", "idle"),
    ];
    let mut opened = 0.0;
    for (until, name, file) in kinds {
        let bytes = a_piece(options.tokens, config, |count| {
            stored(&format!("memory-{file}"), count, |file| connections(file, count, until))
        })?;
        figures.push(Figure::new(name, "bytes", vec![bytes - opened]));
        if matches!(until, Until::Opened) {
            opened = bytes;
        }
    }
    Ok(figures)
}

/// Bytes that one more takes, by replays of half of so many and of all.
fn a_piece(count: u64, config: &Path, capture: impl Fn(u64) -> Result<PathBuf>) -> Result<f64> {
    let (half, all) = (capture(count / 2)?, capture(count)?);
    let more = replay(&all, config)?.1 - replay(&half, config)?.1;
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens fits a double")]
    let pieces = (count - count / 2) as f64;
    Ok(more * 1024.0 * 1024.0 / pieces)
}

/// Writes a capture of so many connections that are open at the same time, all from one network of clients.
fn connections(file: &mut dyn Write, count: u64, until: Until) -> Result<()> {
    file.write_all(&file_header())?;
    let server = SocketAddr::from(([10, 0, 0, 1], 8080));
    // A token would be judged; connections are measured here.
    let request = get("/orders/7", None);
    let long = format!("GET /orders/7 HTTP/1.1\r\nHost: shop.test\r\nX-Long: {}", "x".repeat(HALF));
    let half = long.as_bytes().get(..HALF).unwrap_or_default();
    let mut out = Out { file, at: START, frame: Vec::new() };
    for n in 0..count {
        // A thousand clients, so that no history of addresses grows with the connections.
        let host = u8::try_from(n % 1_000 % 250)?;
        let net = u8::try_from(n % 1_000 / 250)?;
        let port = u16::try_from(n / 1_000)? + 20_000;
        let mut talk = Conversation::open(SocketAddr::from(([10, 0, 4 + net, host], port)), server);
        match until {
            Until::Opened => {}
            Until::HalfAHead => {
                talk.request(half);
            }
            Until::Idle => {
                talk.request(&request).response(b"HTTP/1.1 204 No Content\r\nServer: nginx\r\n\r\n");
            }
        }
        out.write(&mut talk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(until: Until) -> String {
        let mut file = Vec::new();
        connections(&mut file, 1_001, until).unwrap();
        String::from_utf8_lossy(&file).into_owned()
    }

    #[test]
    fn every_connection_comes_as_far_as_it_is_said_to() {
        let texts = [Until::Opened, Until::HalfAHead, Until::Idle].map(written);
        let count = |mark: &str| texts.each_ref().map(|text| text.matches(mark).count());
        assert_eq!(count("GET /orders/7"), [0, 1_001, 1_001]);
        assert_eq!(count("X-Long: x"), [0, 1_001, 0]);
        assert_eq!(count("204 No Content"), [0, 0, 1_001]);
        assert_eq!(count("\r\n\r\n"), [0, 0, 2_002]);
    }
}
