//! The two file formats: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
//!
//! Read by hand rather than by a crate: a record costs a few loads, blocks that hold no packet are passed over without
//! being buffered however large they claim to be, and every error knows its offset.

use std::io;

use super::input::Window;
use crate::capture::Time;

/// Longest packet that is believed: twice what BIG TCP sends at once (512 KiB), four times libpcap's largest snaplen.
const MAX_PACKET: u32 = 1 << 20;

/// Most interfaces of one pcapng section; a capture on every interface of a large node has hundreds.
const MAX_INTERFACES: usize = 4096;

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The bytes cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The first bytes belong to neither format.
    #[error("not a pcap or pcapng file (also as .gz or .zst)")]
    Magic,
    /// The file ends inside something.
    #[error("the file ends inside a {what} at offset {offset}: the capture was cut off")]
    CutOff {
        /// What was being read.
        what: &'static str,
        /// Where it began.
        offset: u64,
    },
    /// Something is impossible.
    #[error("{what} at offset {offset}: the file is damaged from here on")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where it began.
        offset: u64,
    },
}

/// One captured packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// When it was captured; none if the format does not say.
    pub(super) at: Option<Time>,
    /// The link type (LINKTYPE_ registry).
    pub(super) link: u16,
    /// Length on the wire.
    pub(super) wire_len: u32,
    /// The captured start.
    pub(super) data: &'a [u8],
}

/// What comes next in a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// A packet.
    Packet(Record<'a>),
    /// Whoever captured lost so many packets that were not told of before.
    Dropped(u64),
    /// Nothing of interest.
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    snaplen: u32,
    /// Units of a timestamp in a second.
    units: u64,
    /// Seconds to add to a timestamp.
    offset: i64,
    /// Packets dropped, as last told.
    dropped: u64,
}

#[derive(Debug)]
enum Format {
    Pcap { big: bool, link: u16, nanos_a_unit: u64, header: usize },
    PcapNg { big: bool, interfaces: Vec<Interface> },
}

/// A capture file being read.
pub(super) struct CaptureFile {
    window: Window,
    format: Format,
}

impl CaptureFile {
    /// Reads the file's header.
    pub(super) fn new(mut window: Window) -> Result<Self, FileError> {
        let head = window.peek(24)?;
        let format = match head.first_chunk().copied().map(u32::from_be_bytes) {
            Some(0x0a0d_0d0a) => Format::PcapNg { big: false, interfaces: Vec::new() },
            Some(magic) => {
                let (big, nanos_a_unit, header) = match magic {
                    0xa1b2_c3d4 => (true, 1000, 16),
                    0xd4c3_b2a1 => (false, 1000, 16),
                    0xa1b2_3c4d => (true, 1, 16),
                    0x4d3c_b2a1 => (false, 1, 16),
                    // Written by old patched libpcaps: 8 more bytes a record.
                    0xa1b2_cd34 => (true, 1000, 24),
                    0x34cd_b2a1 => (false, 1000, 24),
                    _ => return Err(FileError::Magic),
                };
                if head.len() < 24 {
                    return Err(FileError::CutOff { what: "file header", offset: 0 });
                }
                // The upper half holds flags, such as the length of a frame check sequence.
                let link = (number(head, 20, big) & 0xffff) as u16;
                window.advance(24);
                Format::Pcap { big, link, nanos_a_unit, header }
            }
            None => return Err(FileError::Magic),
        };
        Ok(Self { window, format })
    }

    /// Bytes of the stored file read so far, and its size if known.
    pub(super) fn progress(&self) -> (u64, Option<u64>) {
        self.window.progress()
    }

    /// The next item; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Item<'_>>, FileError> {
        match &mut self.format {
            &mut Format::Pcap { big, link, nanos_a_unit, header } => {
                next_pcap(&mut self.window, big, link, nanos_a_unit, header)
            }
            Format::PcapNg { big, interfaces } => next_block(&mut self.window, big, interfaces),
        }
    }
}

fn next_pcap(
    window: &mut Window,
    big: bool,
    link: u16,
    nanos_a_unit: u64,
    header: usize,
) -> Result<Option<Item<'_>>, FileError> {
    let offset = window.offset();
    let head = window.peek(header)?;
    if head.is_empty() {
        return Ok(None);
    }
    let Some(head) = head.first_chunk::<16>().filter(|_| head.len() >= header) else {
        return Err(FileError::CutOff { what: "packet header", offset });
    };
    let (secs, units) = (u64::from(number(head, 0, big)), u64::from(number(head, 4, big)));
    let (captured, wire_len) = (number(head, 8, big), number(head, 12, big));
    if captured > MAX_PACKET {
        return Err(FileError::Damaged { what: "a packet longer than any packet", offset });
    }
    window.advance(header);
    let data = take(window, captured as usize, "packet", offset)?;
    let at = Time(secs.saturating_mul(1_000_000_000).saturating_add(units.saturating_mul(nanos_a_unit)));
    Ok(Some(Item::Packet(Record { at: Some(at), link, wire_len: wire_len.max(captured), data })))
}

/// The next `len` bytes, which must be there.
fn take<'a>(
    window: &'a mut Window,
    len: usize,
    what: &'static str,
    offset: u64,
) -> Result<&'a [u8], FileError> {
    if window.peek(len)?.len() < len {
        return Err(FileError::CutOff { what, offset });
    }
    window.take(len).ok_or(FileError::CutOff { what, offset })
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

fn next_block<'a>(
    window: &'a mut Window,
    big: &mut bool,
    interfaces: &mut Vec<Interface>,
) -> Result<Option<Item<'a>>, FileError> {
    let offset = window.offset();
    let cut = FileError::CutOff { what: "block", offset };
    let head = window.peek(12)?;
    if head.is_empty() {
        return Ok(None);
    }
    if head.len() < 12 {
        return Err(cut);
    }
    if number(head, 0, true) == SECTION {
        *big = match number(head, 8, true) {
            0x1a2b_3c4d => true,
            0x4d3c_2b1a => false,
            _ => return Err(FileError::Damaged { what: "a section of unknown byte order", offset }),
        };
        interfaces.clear();
    }
    let (kind, len) = (number(head, 0, *big), number(head, 4, *big));
    if len < 12 || len % 4 != 0 {
        return Err(FileError::Damaged { what: "a block of impossible length", offset });
    }
    if !matches!(kind, INTERFACE | PACKET | SIMPLE_PACKET | STATISTICS | ENHANCED_PACKET) {
        return if window.skip(u64::from(len))? { Ok(Some(Item::Other)) } else { Err(cut) };
    }
    if len > MAX_PACKET + 64 * 1024 {
        return Err(FileError::Damaged { what: "a block longer than any packet", offset });
    }
    let block = take(window, len as usize, "block", offset)?;
    if number(block, block.len() - 4, *big) != len {
        return Err(FileError::Damaged { what: "a block that ends otherwise than it begins", offset });
    }
    let body = block.get(8..block.len() - 4).unwrap_or_default();
    let damaged = |what| FileError::Damaged { what, offset };
    match kind {
        INTERFACE if interfaces.len() >= MAX_INTERFACES => Err(damaged("one interface too many")),
        INTERFACE => {
            interfaces.push(Interface::read(body, *big).ok_or_else(|| damaged("an unreadable interface"))?);
            Ok(Some(Item::Other))
        }
        STATISTICS => Ok(Some(statistics(body, *big, interfaces))),
        _ => packet(kind, body, *big, interfaces)
            .map(Item::Packet)
            .map(Some)
            .ok_or_else(|| damaged("an unreadable packet")),
    }
}

fn packet<'a>(kind: u32, body: &'a [u8], big: bool, interfaces: &[Interface]) -> Option<Record<'a>> {
    let id = match kind {
        SIMPLE_PACKET => 0,
        PACKET => usize::from(short(body, 0, big)?),
        _ => body.first_chunk::<4>().map(|_| number(body, 0, big) as usize)?,
    };
    let interface = interfaces.get(id)?;
    let (captured, wire_len, data_at, at) = if kind == SIMPLE_PACKET {
        let wire_len = body.first_chunk::<4>().map(|_| number(body, 0, big))?;
        let limit = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
        (wire_len.min(limit), wire_len, 4, None)
    } else {
        body.first_chunk::<20>()?;
        let units = u64::from(number(body, 4, big)) << 32 | u64::from(number(body, 8, big));
        (number(body, 12, big), number(body, 16, big), 20, Some(interface.time(units)))
    };
    let data = body.get(data_at..data_at + captured as usize)?;
    Some(Record { at, link: interface.link, wire_len: wire_len.max(captured), data })
}

impl Interface {
    fn read(body: &[u8], big: bool) -> Option<Self> {
        let mut interface = Self {
            link: short(body, 0, big)?,
            snaplen: body.first_chunk::<8>().map(|_| number(body, 4, big))?,
            units: 1_000_000,
            offset: 0,
            dropped: 0,
        };
        let options = Options { rest: body.get(8..)?, big };
        for (code, value) in options {
            match (code, value) {
                (9, [resolution, ..]) => {
                    let (base, power) =
                        (if resolution & 0x80 == 0 { 10_u64 } else { 2 }, u32::from(resolution & 0x7f));
                    interface.units = base.checked_pow(power)?;
                }
                (14, value) if value.len() == 8 => interface.offset = long(value, big).cast_signed(),
                _ => {}
            }
        }
        Some(interface)
    }

    fn time(&self, units: u64) -> Time {
        let nanos = match self.units {
            1_000_000 => units.saturating_mul(1000),
            1_000_000_000 => units,
            a_second => {
                let nanos = u128::from(units) * 1_000_000_000 / u128::from(a_second.max(1));
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        let offset = self.offset.unsigned_abs().saturating_mul(1_000_000_000);
        Time(if self.offset < 0 { nanos.saturating_sub(offset) } else { nanos.saturating_add(offset) })
    }
}

/// Interface statistics: what the capturing side dropped (`isb_ifdrop`, `isb_osdrop`).
fn statistics<'a>(body: &[u8], big: bool, interfaces: &mut [Interface]) -> Item<'a> {
    let id = body.first_chunk::<4>().map(|_| number(body, 0, big) as usize);
    let Some(interface) = id.and_then(|id| interfaces.get_mut(id)) else { return Item::Other };
    let options = Options { rest: body.get(12..).unwrap_or_default(), big };
    let dropped = options
        .filter(|(code, value)| matches!(code, 5 | 7) && value.len() == 8)
        .fold(0_u64, |sum, (_, value)| sum.saturating_add(long(value, big)));
    let more = dropped.saturating_sub(interface.dropped);
    interface.dropped = interface.dropped.max(dropped);
    if more > 0 { Item::Dropped(more) } else { Item::Other }
}

/// The options of a block: code and value.
struct Options<'a> {
    rest: &'a [u8],
    big: bool,
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, len) = (short(self.rest, 0, self.big)?, usize::from(short(self.rest, 2, self.big)?));
        let value = self.rest.get(4..4 + len)?;
        self.rest = self.rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    }
}

/// The number of four bytes at `at`; 0 if they are not all there.
#[inline]
fn number(bytes: &[u8], at: usize, big: bool) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
}

fn short(bytes: &[u8], at: usize, big: bool) -> Option<u16> {
    let two = *bytes.get(at..)?.first_chunk::<2>()?;
    Some(if big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
}

fn long(bytes: &[u8], big: bool) -> u64 {
    let eight = bytes.first_chunk::<8>().copied().unwrap_or_default();
    if big { u64::from_be_bytes(eight) } else { u64::from_le_bytes(eight) }
}
