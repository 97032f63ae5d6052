//! The bytes of a capture file: plain, gzip or Zstandard, from a file or standard input, in bounded memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at a time: fits the second-level cache, so that a packet is decoded while it is near.
const CHUNK: usize = 128 * 1024;

/// Largest Zstandard window that is accepted, as its base-2 logarithm: 128 MiB, what `zstd --long` writes by default.
const MAX_WINDOW_LOG: u32 = 27;

/// Counts what passes.
struct Counting<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A window that slides over the bytes of a capture.
pub(super) struct Window {
    inner: Box<dyn Read + Send>,
    buf: Vec<u8>,
    /// Invariant: `start <= end <= buf.len()`.
    start: usize,
    end: usize,
    /// Position of `start` in the decompressed stream.
    offset: u64,
    /// Bytes read of the file as it is stored.
    read: Arc<AtomicU64>,
    /// Size of the file as it is stored, if it is a file.
    total: Option<u64>,
}

impl Window {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Self::new(Box::new(io::stdin()), None);
        }
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a directory"));
        }
        Self::new(Box::new(file), Some(meta.len()).filter(|_| meta.is_file()))
    }

    /// Reads from anything, decompressing by its first bytes.
    pub(super) fn new(inner: Box<dyn Read + Send>, total: Option<u64>) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = Counting { inner, read: Arc::clone(&read) };
        let mut magic = Vec::with_capacity(4);
        counted.by_ref().take(4).read_to_end(&mut magic)?;
        let whole = io::Cursor::new(magic.clone()).chain(counted);
        let inner: Box<dyn Read + Send> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => {
                Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(CHUNK, whole)))
            }
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut decoder = zstd::stream::read::Decoder::new(whole)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Box::new(decoder)
            }
            _ => Box::new(whole),
        };
        Ok(Self { inner, buf: vec![0; CHUNK], start: 0, end: 0, offset: 0, read, total })
    }

    /// Where reading is, in the decompressed stream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the stored file read so far, and its size if known.
    pub(super) fn progress(&self) -> (u64, Option<u64>) {
        (self.read.load(Ordering::Relaxed), self.total)
    }

    /// The next `len` bytes, or all that are left if that is fewer.
    #[inline]
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.fill(len)?;
        }
        let end = self.end.min(self.start + len);
        Ok(self.buf.get(self.start..end).unwrap_or_default())
    }

    /// The next `len` bytes, moving on over them, if so many were [peeked](Self::peek) at.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<&[u8]> {
        let from = self.start;
        if self.end - from < len {
            return None;
        }
        self.advance(len);
        self.buf.get(from..from + len)
    }

    /// Moves on over bytes that were peeked at.
    #[inline]
    pub(super) fn advance(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.offset += len as u64;
    }

    /// Moves on over any number of bytes. Says whether there were so many.
    pub(super) fn skip(&mut self, mut len: u64) -> io::Result<bool> {
        while len > 0 {
            let step = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
            let got = self.peek(step)?.len();
            self.advance(got);
            len -= got as u64;
            if got < step {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cold]
    fn fill(&mut self, len: usize) -> io::Result<()> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        while self.end < len {
            let room = self.buf.get_mut(self.end..).unwrap_or_default();
            match self.inner.read(room) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
