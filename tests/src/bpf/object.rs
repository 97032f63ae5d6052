//! The smallest kernel program there is, as an object file that `bpftool` loads: no compiler is needed for two
//! instructions. The layout is ELF-64 (System V ABI, chapters 4 and 5) for machine 247, BPF.

/// The program's name.
const NAME: &str = "somebody_else";

/// `r0 = 1; exit`: let the packet pass.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Bytes of the file's header, of a section's, and of a symbol.
const FILE_HEADER: usize = 64;
const SYMBOL: usize = 24;

/// A section: its name, type, flags, link, info, size of an entry, content.
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    link: u32,
    info: u32,
    entry: u64,
    bytes: Vec<u8>,
}

/// `SHT_PROGBITS`, `SHT_SYMTAB`, `SHT_STRTAB`.
const PROGRAM: u32 = 1;
const SYMBOLS: u32 = 2;
const STRINGS: u32 = 3;

/// A `cgroup_skb` program that lets everything pass.
pub(super) fn pass() -> Vec<u8> {
    let names = ["", "cgroup_skb/ingress", "license", ".symtab", ".strtab", NAME];
    let strings: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let at = |name: &str| -> u32 {
        let before =
            names.iter().take_while(|other| **other != name).map(|other| other.len() + 1).sum::<usize>();
        u32::try_from(before).unwrap_or_default()
    };
    let plain = |name, flags, bytes: &[u8]| Section {
        name,
        kind: PROGRAM,
        flags,
        link: 0,
        info: 0,
        entry: 0,
        bytes: bytes.to_vec(),
    };
    // A symbol: name, type FUNC and binding GLOBAL, section 1, its place and size.
    let mut symbols = vec![0; SYMBOL];
    symbols.extend(at(NAME).to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend(0_u64.to_le_bytes());
    symbols.extend((CODE.len() as u64).to_le_bytes());
    let sections = [
        Section { kind: 0, ..plain("", 0, &[]) },
        // SHF_ALLOC and SHF_EXECINSTR; SHF_WRITE and SHF_ALLOC.
        plain("cgroup_skb/ingress", 6, &CODE),
        plain("license", 3, b"GPL\0"),
        Section { kind: SYMBOLS, link: 4, info: 1, entry: SYMBOL as u64, ..plain(".symtab", 0, &symbols) },
        Section { kind: STRINGS, ..plain(".strtab", 0, &strings) },
    ];
    file(&sections, at)
}

fn file(sections: &[Section], name: impl Fn(&str) -> u32) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    let mut headers: Vec<u8> = Vec::new();
    for section in sections {
        body.resize(body.len().next_multiple_of(8), 0);
        let offset = (FILE_HEADER + body.len()) as u64;
        headers.extend(name(section.name).to_le_bytes());
        headers.extend(section.kind.to_le_bytes());
        for word in [section.flags, 0, offset, section.bytes.len() as u64] {
            headers.extend(word.to_le_bytes());
        }
        headers.extend(section.link.to_le_bytes());
        headers.extend(section.info.to_le_bytes());
        for word in [8, section.entry] {
            headers.extend(word.to_le_bytes());
        }
        body.extend(&section.bytes);
    }
    body.resize(body.len().next_multiple_of(8), 0);
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_REL, EM_BPF; version; entry, program headers, section headers.
    out.extend([1, 0, 247, 0]);
    out.extend(1_u32.to_le_bytes());
    for word in [0, 0, (FILE_HEADER + body.len()) as u64] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0_u32.to_le_bytes());
    // Sizes and counts: this header, no program headers, sections, and the last of them holds the names.
    let count = u16::try_from(sections.len()).unwrap_or_default();
    for half in [64, 0, 0, 64, count, count - 1] {
        out.extend(half.to_le_bytes());
    }
    out.extend(body);
    out.extend(headers);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_where_its_parts_are() {
        let file = pass();
        let word =
            |at: usize| usize::try_from(u64::from_le_bytes(file[at..at + 8].try_into().unwrap())).unwrap();
        let headers = word(40);
        assert_eq!(headers + 5 * 64, file.len());
        let code = word(headers + 64 + 24);
        assert_eq!(&file[code..code + 16], &CODE);
        assert!(String::from_utf8_lossy(&file).contains(NAME));
    }
}
