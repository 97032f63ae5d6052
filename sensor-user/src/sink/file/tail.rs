//! The end of a file: whether its last line is whole, and which events it holds.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use serde_json::Value;

use crate::render::Format;
use crate::spool::{Cursor, LANES};

/// Longest line that is looked for, in bytes: some hundred times the longest event.
const MAX_LINE: u64 = 4 << 20;

/// How much of a file's end is read to know what it holds, in bytes: far more than what can be written between two
/// savings of a cursor, as one delivery has at most a quarter of it.
const MAX_SCAN: u64 = 4 << 20;

/// Makes the file end with a whole line: what a crash or a full disk left of one of ours is cut, as that event was never
/// acknowledged and comes again; what is not ours gets its line ended. Gives the file's length.
///
/// # Errors
/// When the file cannot be read or changed.
pub(super) fn mend(file: &mut File, format: Format) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let tail = end_of(file, length, 1)?;
    if tail.is_empty() || tail == b"\n" {
        return Ok(length);
    }
    let tail = end_of(file, length, MAX_LINE)?;
    let start = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    let torn = tail.get(start..).unwrap_or_default();
    let whole_line_seen = start > 0 || tail.len() as u64 == length;
    if whole_line_seen && is_ours(torn, format) {
        let cut = length - torn.len() as u64;
        file.set_len(cut)?;
        return Ok(cut);
    }
    file.write_all(b"\n")?;
    Ok(length + 1)
}

fn is_ours(torn: &[u8], format: Format) -> bool {
    let begin: &[u8] = match format {
        Format::Ocsf | Format::Ecs | Format::Falco => b"{\"",
        Format::Cef => b"CEF:",
        // The year.
        Format::Compact => b"2",
        Format::Yaml => b"---",
    };
    let shared = begin.len().min(torn.len());
    begin.get(..shared) == torn.get(..shared)
}

fn end_of(file: &File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Notes the last event of each lane in the whole lines at the file's end, as told by this node.
///
/// The last and not the greatest: after the spool was lost, numbers begin anew.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn held(file: &File, node: &str, held: &mut Cursor) -> io::Result<()> {
    let length = file.metadata()?.len();
    let bytes = end_of(file, length, MAX_SCAN)?;
    let begin =
        if length > MAX_SCAN { memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1) } else { 0 };
    let end = memchr::memrchr(b'\n', &bytes).map_or(begin, |at| at + 1);
    for line in bytes.get(begin..end).unwrap_or_default().split(|b| *b == b'\n') {
        let Some((lane, sequence)) = event(line, node) else { continue };
        if let Some(last) = held.0.get_mut(lane) {
            *last = sequence;
        }
    }
    Ok(())
}

/// The lane and the number of an event in one of the JSON forms.
fn event(line: &[u8], node: &str) -> Option<(usize, u64)> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let first = |places: [&str; 3]| places.into_iter().find_map(|place| event.pointer(place));
    let told_by = first(["/metadata/reporter/name", "/host/name", "/hostname"])?;
    let sequence =
        first(["/metadata/sequence", "/event/sequence", "/output_fields/tokenscope.sequence"])?.as_u64()?;
    let severity = first(["/severity_id", "/event/severity", "/output_fields/tokenscope.severity"])?;
    let at = match severity.as_str() {
        Some(word) => ["Low", "Medium", "High", "Critical"].iter().position(|name| *name == word)?,
        None => usize::try_from(severity.as_u64()?.checked_sub(2)?).ok()?,
    };
    (told_by == node && at < LANES).then_some((at, sequence))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use proptest::prelude::*;

    use super::*;
    use crate::alert::staging::event as staged;
    use crate::render::{Node, Told};

    fn file(content: &[u8]) -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, content).unwrap();
        OpenOptions::new().read(true).append(true).open(path).unwrap()
    }

    fn mended(content: &[u8], format: Format) -> Vec<u8> {
        let mut file = file(content);
        let length = mend(&mut file, format).unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);
        end_of(&file, length, length).unwrap()
    }

    #[test]
    fn what_is_left_of_a_line_of_ours_is_cut() {
        let json = Format::Ocsf;
        assert_eq!(mended(b"", json), b"");
        assert_eq!(mended(b"{\"a\":1}\n", json), b"{\"a\":1}\n");
        assert_eq!(mended(b"{\"a\":1}\n{\"b", json), b"{\"a\":1}\n");
        assert_eq!(mended(b"{", json), b"");
        assert_eq!(mended(b"CEF:0|x\nCE", Format::Cef), b"CEF:0|x\n");
        assert_eq!(mended(b"2026 a\n20", Format::Compact), b"2026 a\n");
    }

    #[test]
    fn what_is_not_ours_is_kept() {
        assert_eq!(mended(b"a: b", Format::Ocsf), b"a: b\n");
        assert_eq!(mended(b"{\"a\":1}\nxyz", Format::Ocsf), b"{\"a\":1}\nxyz\n");
        let mut long = vec![b'{'; usize::try_from(MAX_LINE).unwrap() + 10];
        long[1] = b'"';
        assert_eq!(mended(&long, Format::Ocsf).len(), long.len() + 1, "no line of ours is as long");
    }

    #[test]
    fn every_json_form_says_what_it_holds() {
        for format in [Format::Ocsf, Format::Ecs, Format::Falco] {
            let mut text = String::from("not ours\n");
            for (sequence, node) in [(900, "me"), (7, "me"), (1_000, "other")] {
                format.told(&Told::of(&staged(), Some(sequence), Some(&Node::named(node))), false, &mut text);
            }
            text.push_str("{\"metadata\":{\"sequence\":8");
            let mut held = Cursor::default();
            super::held(&file(text.as_bytes()), "me", &mut held).unwrap();
            assert_eq!(held.0, [0, 0, 0, 7], "{format:?}: the last whole one of this node");
        }
    }

    proptest! {
        #[test]
        fn anything_ends_with_a_whole_line(content in prop::collection::vec(any::<u8>(), 0..200)) {
            for format in Format::ALL {
                let after = mended(&content, format);
                prop_assert!(after.is_empty() || after.ends_with(b"\n"));
                prop_assert!(after.is_empty() || content.starts_with(&after[..after.len() - 1]));
                prop_assert!(super::held(&file(&content), "me", &mut Cursor::default()).is_ok());
            }
        }
    }
}
