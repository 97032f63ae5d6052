//! How the program is compiled that is handed out, beyond what the release profile in Cargo.toml says: to few bytes where
//! nobody waits. None of it reaches the builds of developers and tests, which would compile every library anew.

use super::Arch;
use super::profile::{self, Purpose};

/// Tables for unwinding are a twentieth of the program, and one that aborts makes no use of them. The debug information has
/// tables of its own, so that debuggers miss nothing.
const RUST: &str = "-Cforce-unwind-tables=no";

/// The same for libraries in C, and what is needed to leave out functions that nobody calls. No level of optimisation: it
/// would reach all of them, SQLite and AWS-LC too, whatever theirs is.
const C: &str = "-ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables";

/// SQLite without search in texts and trees of rectangles: the store has no such tables.
const SQLITE: &str =
    "-USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE";

/// For the image alone: relocations in their packed form (`DT_RELR`), a twentieth of the program. It needs glibc 2.36, which is
/// packed beside it; a package is for hosts with older ones, too.
pub(super) const PACKED: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// The compiler of librdkafka, below the workspace's root, and what tells it which one that is.
const SMALL: (&str, &str) = ("xtask/small-cc", "TOKENSCOPE_SMALL_CC");

/// The time of compilation. Libraries are compiled once and serve many commits, so it is none's.
const COMPILED: &str = "1";

/// What stands between encoded flags ("The Cargo Book", environment variables).
const SEPARATOR: &str = "\x1f";

/// The program that configures OpenSSL, below the workspace's root.
pub(super) const PERL: &str = "xtask/openssl-perl";

/// What the compilers are told, for a workspace that lies at `root`.
pub(super) fn environment(arch: Arch, purpose: Purpose, root: &str) -> Vec<(String, String)> {
    let name = arch.target().replace('-', "_");
    let compiler = arch.tool("gcc");
    let set = [
        ("CARGO_ENCODED_RUSTFLAGS".to_owned(), rust(arch, purpose, root)),
        (format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler.clone()),
        // What goes by the name for one machine is for the cc crate, the rest for librdkafka, which has a script of its own.
        (format!("CC_{name}"), compiler.clone()),
        (format!("CXX_{name}"), arch.tool("g++")),
        (format!("AR_{name}"), arch.tool("ar")),
        (format!("RANLIB_{name}"), arch.tool("ranlib")),
        ("HOST_CC".to_owned(), "gcc".to_owned()),
        ("CC".to_owned(), format!("{root}/{}", SMALL.0)),
        (SMALL.1.to_owned(), compiler),
        ("CXX".to_owned(), arch.tool("g++")),
        ("AR".to_owned(), arch.tool("ar")),
        ("RANLIB".to_owned(), arch.tool("ranlib")),
        ("CFLAGS".to_owned(), C.to_owned()),
        ("LIBSQLITE3_FLAGS".to_owned(), SQLITE.to_owned()),
        ("OPENSSL_SRC_PERL".to_owned(), format!("{root}/{PERL}")),
        ("SOURCE_DATE_EPOCH".to_owned(), COMPILED.to_owned()),
        ("LC_ALL".to_owned(), "C".to_owned()),
        ("TZ".to_owned(), "UTC".to_owned()),
    ];
    Vec::from(set)
}

/// What rustc is told of all crates.
fn rust(arch: Arch, purpose: Purpose, root: &str) -> String {
    let profile = match purpose {
        Purpose::Train => Some("-Cprofile-generate".to_owned()),
        Purpose::Use => profile::of(arch).map(|_| format!("-Cprofile-use={root}/{}", profile::name(arch))),
    };
    [Some(RUST.to_owned()), profile].into_iter().flatten().collect::<Vec<_>>().join(SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::root;

    #[test]
    fn the_programs_that_the_build_calls_are_there() {
        for program in [PERL, SMALL.0] {
            assert!(root().join(program).is_file(), "{program}");
        }
    }

    #[test]
    fn another_machine_is_compiled_for_by_its_own_tools() {
        let set = environment(Arch::Arm64, Purpose::Use, "/r");
        let of = |name: &str| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(of("OPENSSL_SRC_PERL"), Some("/r/xtask/openssl-perl"));
        assert_eq!(of("CC"), Some("/r/xtask/small-cc"));
        for tool in [
            "TOKENSCOPE_SMALL_CC",
            "CC_aarch64_unknown_linux_gnu",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        ] {
            assert_eq!(of(tool), Some(Arch::Arm64.tool("gcc").as_str()), "{tool}");
        }
    }
}
