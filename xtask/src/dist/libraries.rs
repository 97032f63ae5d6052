//! Which shared libraries a program needs, read from its dynamic section and not by running it, so that it works for
//! other machines too.
//!
//! A static program would work too; decision 14 says why it is not one. Since glibc 2.34 the look-ups of names by file and
//! by DNS are part of `libc.so.6` itself, so the libraries that the program names are all that there is to bring.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Arch, ask, package_of};

/// One library.
#[derive(Clone, Debug)]
pub(super) struct Library {
    /// Where it lies here.
    path: PathBuf,
    /// Where the loader looks for it, without the leading slash.
    pub(super) place: String,
    /// The Debian package and its version.
    pub(super) package: Option<(String, String)>,
}

impl Library {
    /// Its bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

/// The loader and every library that the program needs, and that those need, sorted by place.
///
/// # Errors
/// When one is not there.
pub(super) fn of(program: &Path, arch: Arch) -> Result<Vec<Library>> {
    let dirs = ["/lib", "/usr/lib", "/usr"].map(|above| Path::new(above).join(arch.triple()));
    let find = |name: &str| {
        let mut places = dirs.iter().flat_map(|dir| [dir.join(name), dir.join("lib").join(name)]);
        places
            .find(|path| path.exists())
            .with_context(|| format!("the library {name} is not on this machine"))
    };
    let loader = interpreter(&ask("readelf", &["-Wl", &program.to_string_lossy()])?)
        .with_context(|| format!("{} names no loader", program.display()))?;
    let loader_name = loader.rsplit('/').next().unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    found.insert(loader_name.clone(), (find(&loader_name)?, loader.trim_start_matches('/').to_owned()));
    let mut open = vec![program.to_path_buf()];
    while let Some(file) = open.pop() {
        for name in needed(&ask("readelf", &["-Wd", &file.to_string_lossy()])?) {
            if !found.contains_key(&name) {
                let path = find(&name)?;
                open.push(path.clone());
                found.insert(name.clone(), (path, format!("lib/{}/{name}", arch.triple())));
            }
        }
    }
    let library = |(path, place): (PathBuf, String)| {
        let package = package_of(&path);
        Library { path, place, package }
    };
    Ok(found.into_values().map(library).collect())
}

/// `[Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]`
fn interpreter(headers: &str) -> Option<String> {
    let rest = headers.split_once("program interpreter: ")?.1;
    Some(rest.split_once(']')?.0.to_owned())
}

/// `0x0000000000000001 (NEEDED)  Shared library: [libz.so.1]`
fn needed(section: &str) -> Vec<String> {
    let name =
        |line: &str| Some(line.split_once("(NEEDED)")?.1.split_once('[')?.1.split_once(']')?.0.to_owned());
    section.lines().filter_map(name).collect()
}

/// The newest version of glibc's interface that a program asks for: `2.34`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn newest_glibc(program: &Path) -> Result<String> {
    let text = ask("readelf", &["-WV", &program.to_string_lossy()])?;
    newest(&text).with_context(|| format!("{} asks for no version of glibc", program.display()))
}

fn newest(text: &str) -> Option<String> {
    let version = |word: &str| {
        let (major, minor) = word.split_once('.')?;
        let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let (major, minor) = text.split("GLIBC_").skip(1).filter_map(version).max()?;
    Some(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_readelf_prints() {
        let section = " 0x0000000000000001 (NEEDED)             Shared library: [libz.so.1]\n \
                       0x000000000000001e (FLAGS)              BIND_NOW\n";
        assert_eq!(needed(section), ["libz.so.1"]);
        let headers = "      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n";
        assert_eq!(interpreter(headers).as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(
            newest("Name: GLIBC_2.9  Flags\nName: GLIBC_2.34  x GLIBC_2.2.5").as_deref(),
            Some("2.34")
        );
        assert_eq!((newest("none"), interpreter("none")), (None, None));
    }

    #[test]
    fn this_very_program_needs_a_loader_and_a_c_library() {
        let own = std::env::current_exe().unwrap();
        let found = of(&own, Arch::here()).unwrap();
        let has = |part: &str| found.iter().any(|library| library.place.contains(part));
        assert!(has("libc.so.6") && has("ld-linux"), "{found:?}");
        assert!(found.iter().all(|library| !library.read().unwrap().is_empty()));
    }
}
