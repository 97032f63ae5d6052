//! Lists and databases in files: read, looked at every few seconds, and read again when they have changed.
//!
//! A file that cannot be used is told of once for each state that it is in, and what it held before stays. It is told
//! apart from a changed one by what the file system says of it: device, inode, size, and the times of both.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::config::{Config, Geo, Lists};
use crate::detect::Knowledge;
use crate::detect::spelling::{Directory, Spelling};
use crate::enrich::geo::{self, Database, Databases, GeoError, Kind};
use crate::enrich::lists::{self, ListError, Passed};

/// How often files are looked at: some stat calls each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is no file")]
    NoFile,
    #[error("has {0} bytes; at most {1} are read")]
    TooLarge(u64, u64),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Geo(#[from] GeoError),
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Denied,
    Departed,
    Revoked,
    Directory,
    Bad,
    City,
    Asn,
}

impl Use {
    const fn database(self) -> Option<Kind> {
        match self {
            Self::City => Some(Kind::City),
            Self::Asn => Some(Kind::Asn),
            _ => None,
        }
    }
}

/// What a file held when it could be read last.
enum Content {
    Nothing,
    Names(Vec<Box<str>>),
    Networks(Vec<IpNet>),
    Database(Arc<Database>),
}

/// The state of a file, as far as the file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64, u64),
    times: [i64; 4],
}

impl Stamp {
    fn of(data: &fs::Metadata) -> Self {
        Self {
            file: (data.dev(), data.ino(), data.size()),
            times: [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()],
        }
    }
}

/// A file and what it held.
struct Watched {
    path: PathBuf,
    use_: Use,
    /// The state in which it was tried last; none before the first time, and while it is missing.
    tried: Option<Stamp>,
    /// The last refusal, so that it is told of once.
    refused: Option<String>,
    content: Content,
}

impl Watched {
    fn new(path: &Path, use_: Use) -> Self {
        Self { path: path.to_owned(), use_, tried: None, refused: None, content: Content::Nothing }
    }

    /// Reads it if it has changed. Whether it holds something new.
    fn look(&mut self) -> bool {
        let stamp = match fs::metadata(&self.path) {
            Ok(data) => Stamp::of(&data),
            Err(error) => {
                self.tried = None;
                self.refuse(&error.into());
                return false;
            }
        };
        if self.tried == Some(stamp) {
            return false;
        }
        self.tried = Some(stamp);
        match self.read() {
            Ok((content, passed)) => {
                self.tell(&content, &passed);
                self.refused = None;
                self.content = content;
                true
            }
            Err(error) => {
                self.refuse(&error);
                false
            }
        }
    }

    fn read(&mut self) -> Result<(Content, Passed), FileError> {
        let largest = if self.use_.database().is_some() { geo::MAX_BYTES } else { lists::MAX_BYTES };
        let bytes = read_file(&self.path, largest, &mut self.tried)?;
        if let Some(kind) = self.use_.database() {
            let database = Database::read(bytes, kind)?;
            return Ok((Content::Database(Arc::new(database)), Passed::default()));
        }
        if self.use_ == Use::Bad {
            let (found, passed) = lists::networks(&bytes)?;
            return Ok((Content::Networks(found), passed));
        }
        let (found, passed) = lists::names(&bytes)?;
        Ok((Content::Names(found), passed))
    }

    fn tell(&self, content: &Content, passed: &Passed) {
        let path = self.path.display();
        match content {
            Content::Nothing => {}
            Content::Names(found) => tracing::info!("{path}: {} entries", found.len()),
            Content::Networks(found) => tracing::info!("{path}: {} networks", found.len()),
            Content::Database(database) => {
                let (kind, built) = database.about();
                let day = i64::try_from(built).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
                let day = day.map_or_else(String::new, |day| format!(", built {}", day.strftime("%F")));
                tracing::info!("{path}: {kind}{day}");
            }
        }
        if passed.count > 0 {
            tracing::warn!("{path}: {} entries make no sense and are passed over: {passed}", passed.count);
        }
    }

    fn refuse(&mut self, error: &FileError) {
        let why = error.to_string();
        if self.refused.as_ref() == Some(&why) {
            return;
        }
        let stays = if matches!(self.content, Content::Nothing) { "" } else { "; what it held before stays" };
        tracing::error!("{} {why}{stays}", self.path.display());
        self.refused = Some(why);
    }
}

/// Reads a whole file, and notes the state in which it was.
fn read_file(path: &Path, largest: u64, stamp: &mut Option<Stamp>) -> Result<Vec<u8>, FileError> {
    // Looked at before it is opened: to open a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::NoFile);
    }
    let file = File::open(path)?;
    let data = file.metadata()?;
    *stamp = Some(Stamp::of(&data));
    if data.len() > largest {
        return Err(FileError::TooLarge(data.len(), largest));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or_default() + 1);
    file.take(largest + 1).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    if read > largest { Err(FileError::TooLarge(read, largest)) } else { Ok(bytes) }
}

/// Everything that one configuration knows from outside.
pub(super) struct Reader {
    lists: Lists,
    geo: Geo,
    files: Vec<Watched>,
    revision: u32,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub(super) fn new(config: &Config) -> Self {
        let (lists, geo) = (config.lists.clone(), config.geo.clone());
        Self { files: watched(&lists, &geo), lists, geo, revision: 0 }
    }

    /// Reads what another configuration says from now on. Files that it names too keep what they held.
    fn follow(&mut self, lists: Lists, geo: Geo) {
        let mut files = watched(&lists, &geo);
        for file in &mut files {
            if let Some(at) = self.files.iter().position(|old| old.use_ == file.use_ && old.path == file.path)
            {
                *file = self.files.swap_remove(at);
            }
        }
        (self.lists, self.geo, self.files) = (lists, geo, files);
    }

    /// Reads the lists that have changed. Whether there are any.
    pub(super) fn read_lists(&mut self) -> bool {
        let lists = self.files.iter_mut().filter(|file| file.use_.database().is_none());
        lists.fold(false, |changed, file| file.look() | changed)
    }

    /// Reads what has changed. Whether there is anything.
    fn read(&mut self) -> bool {
        self.files.iter_mut().fold(false, |changed, file| file.look() | changed)
    }

    /// Everything, as it was read last.
    pub(super) fn knowledge(&mut self) -> Arc<Knowledge> {
        self.revision = self.revision.wrapping_add(1);
        let spelling = Spelling::new(self.lists.account_domains.iter().map(String::as_str));
        let account = |name: &str| spelling.of(name).into_owned().into_boxed_str();
        let names = |inline: &[String], use_, as_: &dyn Fn(&str) -> Box<str>| {
            let files = self.names(use_).map(as_);
            inline.iter().map(|name| as_(name)).chain(files).collect()
        };
        let lists = &self.lists;
        let databases = Databases { city: self.database(Use::City), asn: self.database(Use::Asn) };
        let known = databases.city.is_some() || databases.asn.is_some();
        Arc::new(Knowledge {
            revision: self.revision,
            geo: known.then(|| Arc::new(databases) as Arc<dyn crate::detect::knowledge::Geo>),
            directory: self.directory(&spelling),
            denied_accounts: names(&lists.denied_accounts, Use::Denied, &account),
            departed_accounts: names(&lists.departed_accounts, Use::Departed, &account),
            revoked_ids: names(&lists.revoked_ids, Use::Revoked, &|id| id.into()),
            privileged_roles: lists.privileged_roles.iter().map(|role| role.to_uppercase().into()).collect(),
            spelling: spelling.clone(),
            allowed_countries: self.geo.allowed_countries.iter().map(|country| country.0).collect(),
            bad_addresses: lists.bad_addresses.iter().copied().chain(self.bad_addresses()).collect(),
        })
    }

    fn contents(&self, use_: Use) -> impl Iterator<Item = &Content> {
        self.files.iter().filter(move |file| file.use_ == use_).map(|file| &file.content)
    }

    fn names<'a>(&'a self, use_: Use) -> impl Iterator<Item = &'a str> {
        let names = |content: &'a Content| -> &'a [Box<str>] {
            if let Content::Names(names) = content { names } else { &[] }
        };
        self.contents(use_).flat_map(names).map(AsRef::as_ref)
    }

    /// Every account that there is, once all files of them were read: those in a file that is missing would be unknown.
    fn directory(&self, spelling: &Spelling) -> Option<Directory> {
        let mut files = self.contents(Use::Directory).peekable();
        let whole = files.peek().is_some() && files.all(|content| matches!(content, Content::Names(_)));
        whole.then(|| Directory::new(self.names(Use::Directory), spelling))
    }

    fn bad_addresses<'a>(&'a self) -> impl Iterator<Item = IpNet> + 'a {
        let nets = |content: &'a Content| -> &'a [IpNet] {
            if let Content::Networks(nets) = content { nets } else { &[] }
        };
        self.contents(Use::Bad).flat_map(nets).copied()
    }

    fn database(&self, use_: Use) -> Option<Arc<Database>> {
        self.contents(use_).find_map(|content| match content {
            Content::Database(database) => Some(Arc::clone(database)),
            _ => None,
        })
    }
}

/// The files that a configuration names.
fn watched(lists: &Lists, geo: &Geo) -> Vec<Watched> {
    let files = [
        (&lists.files.denied_accounts, Use::Denied),
        (&lists.files.departed_accounts, Use::Departed),
        (&lists.files.revoked_ids, Use::Revoked),
        (&lists.files.directory, Use::Directory),
        (&lists.files.bad_addresses, Use::Bad),
    ];
    let files = files.iter().flat_map(|(paths, use_)| paths.iter().map(|path| Watched::new(path, *use_)));
    let databases = [(&geo.city, Use::City), (&geo.asn, Use::Asn)];
    let databases = databases.into_iter().filter_map(|(path, use_)| Some(Watched::new(path.as_ref()?, use_)));
    files.chain(databases).collect()
}

/// Reads everything once, for replay: what cannot be read is told of and missing.
pub(super) fn read_once(config: &Config) -> Arc<Knowledge> {
    let mut reader = Reader::new(config);
    reader.read();
    reader.knowledge()
}

/// What another configuration says.
pub(super) type Change = (Lists, Geo);

/// Looks at the files for ever, and publishes what has changed. Reading is done beside the event loop, as it takes
/// seconds for a large database.
pub(super) async fn tend(
    mut reader: Reader,
    publish: watch::Sender<Arc<Knowledge>>,
    mut changes: mpsc::Receiver<Change>,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let change = tokio::select! {
            change = changes.recv() => match change {
                None => return,
                change => change,
            },
            _ = look.tick() => None,
        };
        if change.is_none() && reader.files.is_empty() {
            continue;
        }
        let read = move || {
            let followed = change.map(|(lists, geo)| reader.follow(lists, geo)).is_some();
            let fresh = (reader.read() | followed).then(|| reader.knowledge());
            (reader, fresh)
        };
        let Ok((back, fresh)) = tokio::task::spawn_blocking(read).await else { return };
        reader = back;
        if let Some(fresh) = fresh
            && publish.send(fresh).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Secrets};
    use crate::enrich::mmdb::{Writer, city};

    fn reader(dir: &Path, text: &str) -> Reader {
        let environment = Environment::default();
        let loaded = config::parse("test", text, dir, &environment, &[], Secrets::Optional).unwrap();
        Reader::new(&loaded.config)
    }

    fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(dir.join(name), bytes).unwrap();
    }

    #[test]
    fn lists_come_from_the_configuration_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "left.txt", "Alice\n# a comment\nbob@shop.example # since May\n");
        write(dir.path(), "bad.txt", "192.0.2.0/24\n");
        write(
            dir.path(),
            "feed.json",
            r#"{"Event":{"Attribute":[{"type":"ip-src","value":"198.51.100.7"}]}}"#,
        );
        write(dir.path(), "revoked", "AbC\n");
        let text = "lists:\n  denied_accounts: [Mallory]\n  departed_accounts: [carol]\n  privileged_roles: [root]\n  \
                    bad_addresses: [203.0.113.9]\n  files:\n    departed_accounts: [left.txt]\n    \
                    bad_addresses: [bad.txt, feed.json]\n    revoked_ids: [revoked]\n";
        let mut reader = reader(dir.path(), text);
        assert!(reader.read());
        let known = reader.knowledge();
        let list = |list: &std::collections::BTreeSet<Box<str>>| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list(&known.denied_accounts), ["mallory"]);
        assert_eq!(list(&known.departed_accounts), ["alice", "bob@shop.example", "carol"]);
        assert_eq!(list(&known.revoked_ids), ["AbC"]);
        assert_eq!(list(&known.privileged_roles), ["ROOT"]);
        for bad in ["192.0.2.9", "198.51.100.7", "203.0.113.9"] {
            assert!(known.bad_addresses.contains(bad.parse().unwrap()), "{bad}");
        }
        assert!(known.geo.is_none() && known.revision == 1);
    }

    #[test]
    fn accounts_are_kept_as_they_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "left.txt", "CORP\\Alice\nALICE@corp.example\n\u{ff42}ob\ncarol@other.example\n");
        let text = "lists: {account_domains: [corp.example, CORP], files: {departed_accounts: [left.txt]}}\n";
        let mut reader = reader(dir.path(), text);
        assert!(reader.read());
        let known = reader.knowledge();
        let all: Vec<&str> = known.departed_accounts.iter().map(AsRef::as_ref).collect();
        assert_eq!(all, ["alice", "bob", "carol@other.example"]);
        assert!(known.departed_accounts.contains(&*known.spelling.of("Alice@Corp.Example")));
    }

    #[test]
    fn a_directory_counts_only_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "staff", "Alice\nbob@corp.example\n");
        let text = "lists: {account_domains: [corp.example], files: {directory: [staff, guests]}}\n";
        let mut reader = reader(dir.path(), text);
        assert!(reader.read());
        assert!(reader.knowledge().directory.is_none(), "half of it");
        write(dir.path(), "guests", "carol\n");
        assert!(reader.read());
        let known = reader.knowledge();
        let directory = known.directory.as_ref().unwrap();
        for name in ["ALICE", "bob", "Bob@Corp.example", "carol"] {
            assert!(directory.knows(name, &known.spelling), "{name}");
        }
        assert!(directory.len() == 3 && !directory.knows("mallory", &known.spelling));
        fs::remove_file(dir.path().join("staff")).unwrap();
        assert!(!reader.read() && reader.knowledge().directory.is_some(), "what it held stays");
    }

    #[test]
    fn a_change_is_seen_and_nonsense_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "denied", "alice\n");
        let mut reader = reader(dir.path(), "lists: {files: {denied_accounts: [denied]}}\n");
        let denied = |reader: &mut Reader| {
            reader.knowledge().denied_accounts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(reader.read() && !reader.read());
        assert_eq!(denied(&mut reader), ["alice"]);
        for broken in [b"\xff\xff\n".as_slice(), &b"x".repeat(300)] {
            write(dir.path(), "denied", broken);
            assert!(!reader.read());
            assert_eq!(denied(&mut reader), ["alice"]);
        }
        fs::remove_file(dir.path().join("denied")).unwrap();
        assert!(!reader.read());
        assert_eq!(denied(&mut reader), ["alice"]);
        fs::create_dir(dir.path().join("denied")).unwrap();
        assert!(!reader.read());
        fs::remove_dir(dir.path().join("denied")).unwrap();
        write(dir.path(), "next", "bob\ncarol\n");
        fs::rename(dir.path().join("next"), dir.path().join("denied")).unwrap();
        assert!(reader.read());
        assert_eq!(denied(&mut reader), ["bob", "carol"]);
        write(dir.path(), "denied", "# nobody any more\n");
        assert!(reader.read() && denied(&mut reader).is_empty());
    }

    #[test]
    fn a_broken_database_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let database = |country| {
            Writer::new("Test-City").network("203.0.113.0/24", &city(country, "EU", 52.5, 13.4, 20)).bytes()
        };
        let mut reader = reader(dir.path(), "geo: {city: city.mmdb, allowed_countries: [de, FR]}\n");
        let country = |reader: &mut Reader| {
            let known = reader.knowledge();
            known.geo.as_ref().and_then(|geo| geo.place("203.0.113.1".parse().unwrap()).country)
        };
        assert!(!reader.read(), "not there yet");
        assert_eq!(country(&mut reader), None);
        write(dir.path(), "city.mmdb", database("DE"));
        assert!(!reader.read_lists(), "a database is no list");
        assert!(reader.read());
        assert_eq!(country(&mut reader), Some(*b"DE"));
        let new = database("FR");
        write(dir.path(), "city.mmdb", &new[..new.len() - 40]);
        assert!(!reader.read());
        assert_eq!(country(&mut reader), Some(*b"DE"));
        write(dir.path(), "city.mmdb", new);
        assert!(reader.read());
        assert_eq!(country(&mut reader), Some(*b"FR"));
        assert_eq!(reader.knowledge().allowed_countries, [*b"DE", *b"FR"].into());
    }

    #[test]
    fn another_configuration_keeps_what_its_files_held() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "alice\n");
        let mut old = reader(dir.path(), "lists: {files: {denied_accounts: [a]}}\n");
        old.read();
        write(dir.path(), "a", b"\xff");
        write(dir.path(), "b", "bob\n");
        let new = reader(dir.path(), "lists: {denied_accounts: [carol], files: {denied_accounts: [b, a]}}\n");
        old.follow(new.lists, new.geo);
        assert!(old.read());
        let denied: Vec<String> = old.knowledge().denied_accounts.iter().map(ToString::to_string).collect();
        assert_eq!(denied, ["alice", "bob", "carol"]);
    }

    #[test]
    fn changes_are_published_until_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "alice\n");
        let one = reader(dir.path(), "lists: {files: {denied_accounts: [a]}}\n");
        let two = reader(dir.path(), "lists: {denied_accounts: [bob]}\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (publish, mut knowledge) = watch::channel(Arc::default());
            let (change, changes) = mpsc::channel(1);
            let task = tokio::spawn(tend(one, publish, changes));
            knowledge.changed().await.unwrap();
            assert!(knowledge.borrow_and_update().denied_accounts.contains("alice"));
            change.send((two.lists, two.geo)).await.unwrap();
            knowledge.changed().await.unwrap();
            assert!(knowledge.borrow_and_update().denied_accounts.contains("bob"));
            drop(change);
            task.await.unwrap();
        });
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("list")).unwrap().set_len(lists::MAX_BYTES + 1).unwrap();
        let mut watched = Watched::new(&dir.path().join("list"), Use::Bad);
        assert!(!watched.look());
        assert_eq!(watched.refused.as_deref(), Some("has 67108865 bytes; at most 67108864 are read"));
    }
}
