//! Segments: files of records, only ever appended to, named by the first number in them.
//!
//! A segment starts with 32 bytes: magic (8), version (4), lane (4), first number (8), four zero bytes and a CRC-32 of
//! the 28 bytes before it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::spool::record::{self, Header, Parsed};

/// Bytes before the first record.
pub(super) const START: u64 = 32;

const MAGIC: &[u8; 8] = b"TSSPOOL\n";

/// Raised when the form of segments or records changes.
const VERSION: u32 = 1;

/// Distance of the places in a segment that are remembered, in bytes: what is read in vain at most to find a record.
const STEP: u64 = 64 << 10;

/// What a reader reads at once: some twenty events.
pub(super) const CHUNK: usize = 64 << 10;

/// Largest segment that is read at all: a record of the largest size in one of its own.
pub(super) const MAX_SEGMENT: u64 = record::MAX_JSON as u64 + (16 << 20);

/// The segment's file.
pub(super) fn path(dir: &Path, lane: usize, first: u64) -> PathBuf {
    dir.join(format!("lane-{lane}")).join(format!("{first:020}.seg"))
}

/// The first number in a segment with this file name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// What a segment starts with.
pub(super) fn preamble(lane: usize, first: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend(u32::try_from(lane).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out.extend([0; 4]);
    out
}

/// Whether a file is the segment that its name says.
pub(super) fn is_sound(file: &File, lane: usize, first: u64) -> io::Result<bool> {
    let expected = preamble(lane, first);
    let mut start = vec![0; expected.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == expected),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a segment to append to it.
pub(super) fn open(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).open(path)
}

/// A record and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its number.
    pub sequence: u64,
    /// Its place in the lane.
    pub ordinal: u64,
    /// Its time.
    pub time_ms: u64,
    /// Where it starts.
    pub offset: u64,
}

/// What is known of a segment. It has at least one record.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The first number, which names the file.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// The ordinal of the last.
    pub last_ordinal: u64,
    /// Records in it.
    pub events: u64,
    /// Where the last record that readers may see ends.
    pub end: u64,
    /// The newest time in it.
    pub newest_ms: u64,
    /// Every so many bytes one record; the first is the segment's first.
    pub marks: Vec<Mark>,
}

impl Segment {
    /// A segment with this record in it.
    pub(super) fn new(name: u64, mark: Mark, size: u64) -> Self {
        let mut segment = Self {
            first: name,
            last: 0,
            last_ordinal: 0,
            events: 0,
            end: 0,
            newest_ms: 0,
            marks: Vec::new(),
        };
        segment.note(mark, size);
        segment
    }

    /// Takes note of the record that was appended.
    pub(super) fn note(&mut self, mark: Mark, size: u64) {
        if self.marks.last().is_none_or(|last| mark.offset >= last.offset + STEP) {
            self.marks.push(mark);
        }
        self.last = mark.sequence;
        self.last_ordinal = mark.ordinal;
        self.events += 1;
        self.end = mark.offset + size;
        self.newest_ms = self.newest_ms.max(mark.time_ms);
    }

    /// Where to start to read for what comes behind a number.
    pub(super) fn mark_for(&self, after: u64) -> Option<Mark> {
        let at = self.marks.partition_point(|mark| mark.sequence <= after + 1);
        self.marks.get(at.saturating_sub(1)).copied()
    }
}

/// Reads the records of a part of a file, in order, over what is damaged.
#[derive(Debug)]
pub(super) struct Scanner {
    file: File,
    /// Where in the file the buffer starts.
    offset: u64,
    /// Nothing is read beyond.
    end: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next record starts.
    at: usize,
    /// The record that was found last: its place in the buffer.
    found: std::ops::Range<usize>,
    /// Places at which something was no record.
    pub damaged: u64,
    /// Where the last sound record ends.
    pub sound_end: u64,
}

impl Scanner {
    /// Reads from one place to another.
    pub(super) fn new(file: File, start: u64, end: u64) -> Self {
        let (buffer, found) = (Vec::new(), 0..0);
        Self { file, offset: start, end, buffer, at: 0, found, damaged: 0, sound_end: start }
    }

    /// The next record and where it starts.
    pub(super) fn next(&mut self) -> io::Result<Option<(Header, u64)>> {
        self.at = self.found.end;
        let mut whole = true;
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            match record::parse(rest) {
                Parsed::Record(header) => {
                    self.found = self.at..self.at + header.size();
                    let offset = self.offset + self.at as u64;
                    self.sound_end = offset + header.size() as u64;
                    return Ok(Some((header, offset)));
                }
                Parsed::Short(size) if self.fill(size)? => {}
                // Cut short, or so it seems: a damaged length may hide what follows.
                Parsed::Short(_) | Parsed::Damaged => {
                    if self.buffer.len() <= self.at {
                        (self.offset, self.at) = (self.end, 0);
                        self.buffer.clear();
                        self.found = 0..0;
                        return Ok(None);
                    }
                    self.damaged += u64::from(whole);
                    whole = false;
                    self.skip()?;
                }
            }
        }
    }

    /// The JSON of the record that was found last.
    pub(super) fn json(&self) -> Option<&str> {
        let bytes = self.buffer.get(self.found.clone())?.get(record::HEADER..)?;
        std::str::from_utf8(bytes).ok()
    }

    /// Goes to where the next record may start.
    fn skip(&mut self) -> io::Result<()> {
        loop {
            if let Some(ahead) = record::resume(self.buffer.get(self.at..).unwrap_or_default()) {
                self.at += ahead;
                return Ok(());
            }
            // A magic may begin in the last bytes.
            self.at = self.buffer.len().saturating_sub(3).max(self.at);
            if !self.fill(CHUNK)? {
                self.at = self.buffer.len();
                return Ok(());
            }
        }
    }

    /// Makes so many bytes available, or as many as there are; whether there are more than before.
    fn fill(&mut self, size: usize) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.offset += self.at as u64;
        self.at = 0;
        self.found = 0..0;
        let have = self.buffer.len();
        let room = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let want = size.max(CHUNK).min(room);
        self.buffer.resize(want.max(have), 0);
        let mut filled = have;
        while let Some(rest) = self.buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, self.offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(have);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(filled > have)
    }
}

/// Reads a whole segment for what it holds behind a number; of what comes twice, the first counts.
///
/// Gives what is known of it, if it has a record at all, and how many places were damaged; `each` is told of every record.
pub(super) fn survey(
    file: File,
    name: u64,
    length: u64,
    after: u64,
    mut each: impl FnMut(&Header),
) -> io::Result<(Option<Segment>, u64)> {
    let mut scanner = Scanner::new(file, START, length);
    let mut segment: Option<Segment> = None;
    while let Some((header, offset)) = scanner.next()? {
        let Header { sequence, ordinal, time_ms, .. } = header;
        if sequence <= segment.as_ref().map_or(after, |segment| segment.last) {
            // Written twice: a write could not be undone.
            continue;
        }
        each(&header);
        let mark = Mark { sequence, ordinal, time_ms, offset };
        match &mut segment {
            Some(segment) => segment.note(mark, header.size() as u64),
            None => segment = Some(Segment::new(name, mark, header.size() as u64)),
        }
    }
    Ok((segment, scanner.damaged))
}
