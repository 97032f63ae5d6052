//! The user's rules as their directory changes: looked at every two seconds and on SIGHUP, read when a time stamp, size or
//! inode has changed. A file with errors is refused with its messages; its last good version goes on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::Report;
use crate::config::user::{append, file, files, unique};
use crate::detect::user::model::MAX_RULES;
use crate::detect::user::{UserRule, UserRules};

/// Between two looks: a person who saves a file waits no longer than that.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// How a file looks from outside; none if it is not there.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len(), data.ino()))
}

/// What is known of a rule file.
#[derive(Default)]
struct Entry {
    /// Of the file itself and of its lists.
    stamps: Vec<(PathBuf, Stamp)>,
    good: Option<Arc<UserRule>>,
    bad: bool,
}

/// A directory of rules.
pub(super) struct Library {
    dir: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    /// The complaint about the directory itself, so that it is made once.
    unreadable: Option<String>,
    begun: bool,
    reloads: u64,
    refusals: u64,
}

impl Library {
    /// Nothing read yet.
    pub(super) fn new(dir: &Path) -> Self {
        let (dir, entries) = (dir.to_owned(), BTreeMap::new());
        Self { dir, entries, unreadable: None, begun: false, reloads: 0, refusals: 0 }
    }

    /// Looks at the directory: the rules, if anything has changed, and what is wrong with what was read.
    pub(super) fn scan(&mut self) -> (Option<Arc<UserRules>>, Report) {
        let mut report = Report::default();
        let Some(paths) = self.paths(&mut report) else { return (self.first(), report) };
        let before = self.entries.len();
        self.entries.retain(|path, _| paths.contains(path));
        let mut changed = self.entries.len() != before;
        for path in paths {
            let entry = self.entries.entry(path.clone()).or_default();
            if !entry.stamps.is_empty() && entry.stamps.iter().all(|(path, seen)| stamp(path) == *seen) {
                continue;
            }
            changed = true;
            entry.read(&path, &mut report);
        }
        if !changed {
            return (self.first(), report);
        }
        let rules = self.assemble(&mut report);
        if report.errors() > 0 {
            self.refusals += 1;
        } else {
            self.reloads += 1;
        }
        self.begun = true;
        let bad_files = self.entries.values().filter(|entry| entry.bad).count() as u64;
        let rules = UserRules { rules, bad_files, reloads: self.reloads, refusals: self.refusals };
        (Some(Arc::new(rules)), report)
    }

    /// An empty set, the first time.
    fn first(&mut self) -> Option<Arc<UserRules>> {
        (!std::mem::replace(&mut self.begun, true)).then(Arc::default)
    }

    /// The files; none if the directory cannot be read, and then what is in force stays. A directory that never was is
    /// an empty one.
    fn paths(&mut self, report: &mut Report) -> Option<Vec<PathBuf>> {
        if !self.dir.exists() && self.entries.is_empty() {
            return Some(Vec::new());
        }
        let read = if self.dir.is_dir() { files(&self.dir) } else { Err("is no directory any more".into()) };
        match read {
            Ok(paths) => {
                self.unreadable = None;
                Some(paths)
            }
            Err(why) => {
                if self.unreadable.as_ref() != Some(&why) {
                    append(report, Report::whole(self.dir.display().to_string(), why.clone()));
                    self.refusals += 1;
                }
                self.unreadable = Some(why);
                None
            }
        }
    }

    /// The good rules of all files, each id once.
    fn assemble(&mut self, report: &mut Report) -> Vec<Arc<UserRule>> {
        let mut rules: Vec<Arc<UserRule>> = Vec::new();
        for entry in self.entries.values_mut() {
            let Some(rule) = &entry.good else { continue };
            let read = crate::config::user::Read { rule: Arc::clone(rule), warnings: Report::default() };
            match unique(&rules, read) {
                Ok(read) if rules.len() < MAX_RULES => rules.push(read.rule),
                Ok(_) => {}
                Err(twin) => {
                    entry.bad = true;
                    append(report, twin);
                }
            }
        }
        rules
    }
}

impl Entry {
    fn read(&mut self, path: &Path, report: &mut Report) {
        // Stamped before it is read: what changes in between is read again.
        let own = (path.to_owned(), stamp(path));
        let read = file(path);
        let lists = match &read {
            Ok(read) => read.rule.list_files.as_slice(),
            Err(_) => self.good.as_ref().map_or(&[][..], |rule| &rule.list_files),
        };
        let lists: Vec<(PathBuf, Stamp)> = lists.iter().map(|path| (path.clone(), stamp(path))).collect();
        match read {
            Ok(read) => {
                append(report, read.warnings);
                // The same text is the same rule: its figures go on.
                let same = |old: &Arc<UserRule>| old.version_hash == read.rule.version_hash;
                if !self.good.as_ref().is_some_and(same) {
                    self.good = Some(read.rule);
                }
                self.bad = false;
            }
            Err(problems) => {
                append(report, problems);
                self.bad = true;
            }
        }
        self.stamps = std::iter::once(own).chain(lists).collect();
    }
}

/// Says what was found.
fn tell(rules: Option<&Arc<UserRules>>, report: &Report, dir: &Path) {
    if report.errors() > 0 {
        tracing::error!("rules were refused, their last good versions stay:\n{}", report.render(false));
    } else {
        report.lines().for_each(|warning| tracing::warn!("{warning}"));
    }
    if let Some(rules) = rules.filter(|rules| rules.reloads + rules.refusals > 0) {
        tracing::info!("{} user rules from {}", rules.rules.len(), dir.display());
    }
}

/// The task that looks, from the capture thread's side.
pub(super) struct Watching {
    rules: watch::Receiver<Arc<UserRules>>,
    dir: watch::Sender<PathBuf>,
}

impl Watching {
    /// Reads the rules, and starts the task.
    pub(super) fn start(events: &Handle, dir: &Path) -> Self {
        let mut library = Library::new(dir);
        let (first, report) = library.scan();
        tell(first.as_ref(), &report, dir);
        let (publish, mut rules) = watch::channel(first.unwrap_or_default());
        rules.mark_changed();
        let (dir, asked) = watch::channel(dir.to_owned());
        events.spawn(look(library, asked, publish));
        Self { rules, dir }
    }

    /// The rules, if they have changed since the last call.
    pub(super) fn changed(&mut self) -> Option<Arc<UserRules>> {
        self.rules.has_changed().unwrap_or(false).then(|| Arc::clone(&self.rules.borrow_and_update()))
    }

    /// Looks now, at this directory.
    pub(super) fn reread(&self, dir: &Path) {
        let _ = self.dir.send(dir.to_owned());
    }
}

async fn look(
    mut library: Library,
    mut asked: watch::Receiver<PathBuf>,
    publish: watch::Sender<Arc<UserRules>>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            news = asked.changed() => if news.is_err() { return },
        }
        let dir = asked.borrow_and_update().clone();
        if dir != library.dir {
            library = Library::new(&dir);
        }
        // Reading is blocking work, and this thread also serves keys and metrics.
        let scan = tokio::task::spawn_blocking(move || {
            let found = library.scan();
            (library, found)
        });
        let Ok((back, (rules, report))) = scan.await else { return };
        library = back;
        tell(rules.as_ref(), &report, &library.dir);
        if let Some(rules) = rules {
            let _ = publish.send(rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "id: NAME\ntitle: t\nseverity: low\nwhen: response.status == 200\n";

    struct Dir {
        dir: tempfile::TempDir,
        library: Library,
    }

    impl Dir {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let library = Library::new(dir.path());
            Self { dir, library }
        }

        fn put(&self, name: &str, text: &str) {
            // A new inode each time: time stamps may be too coarse for a test.
            let path = self.dir.path().join(name);
            let fresh = self.dir.path().join(format!(".{name}.new"));
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, path).unwrap();
        }

        fn ids(&mut self) -> (Option<Vec<&'static str>>, usize) {
            let (rules, report) = self.library.scan();
            (rules.map(|r| r.rules.iter().map(|rule| rule.about.id).collect()), report.errors())
        }
    }

    #[test]
    fn follows_what_is_added_changed_and_removed() {
        let mut dir = Dir::new();
        assert_eq!(dir.ids(), (Some(vec![]), 0), "the first look always tells");
        assert_eq!(dir.ids(), (None, 0));
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        dir.put("b.yaml", &RULE.replace("NAME", "second-rule"));
        assert_eq!(dir.ids(), (Some(vec!["first-rule", "second-rule"]), 0));
        assert_eq!(dir.ids(), (None, 0));
        dir.put("a.yaml", &RULE.replace("NAME", "third-rule"));
        assert_eq!(dir.ids(), (Some(vec!["third-rule", "second-rule"]), 0));
        std::fs::remove_file(dir.dir.path().join("b.yaml")).unwrap();
        assert_eq!(dir.ids(), (Some(vec!["third-rule"]), 0));
    }

    #[test]
    fn a_bad_file_is_refused_and_its_last_good_version_stays() {
        let mut dir = Dir::new();
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        dir.ids();
        dir.put("a.yaml", "id: first-rule\nwhen: nonsense(\n");
        dir.put("b.yaml", &RULE.replace("NAME", "second-rule"));
        let (rules, report) = dir.library.scan();
        let rules = rules.unwrap();
        assert_eq!(rules.rules.len(), 2, "the others go on");
        assert_eq!((rules.bad_files, rules.refusals), (1, 1));
        assert!(report.render(false).contains("a.yaml:2:"), "{}", report.render(false));
        assert_eq!(dir.ids(), (None, 0), "it is told once");
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        let (rules, _) = dir.library.scan();
        assert_eq!(rules.unwrap().bad_files, 0);
    }

    #[test]
    fn a_list_file_is_part_of_its_rule() {
        let mut dir = Dir::new();
        dir.put("names.txt", "alice # no\n\nbob\n");
        let rule = "id: listed\ntitle: t\nseverity: low\nlists: {names: {file: names.txt}}\nwhen: account in names\n";
        dir.put("a.yaml", rule);
        let (rules, _) = dir.library.scan();
        let before = rules.unwrap().rules[0].version_hash;
        dir.put("names.txt", "carol\n");
        let (rules, _) = dir.library.scan();
        assert_ne!(rules.unwrap().rules[0].version_hash, before);
    }

    #[test]
    fn what_did_not_change_is_the_same_rule() {
        let mut dir = Dir::new();
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        let before = dir.library.scan().0.unwrap();
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        let after = dir.library.scan().0.unwrap();
        assert!(Arc::ptr_eq(&before.rules[0], &after.rules[0]));
    }

    #[test]
    fn twins_are_refused_and_a_directory_that_goes_away_changes_nothing() {
        let mut dir = Dir::new();
        dir.put("a.yaml", &RULE.replace("NAME", "first-rule"));
        dir.put("b.yaml", &RULE.replace("NAME", "first-rule"));
        assert_eq!(dir.ids(), (Some(vec!["first-rule"]), 1));
        std::fs::remove_dir_all(dir.dir.path()).unwrap();
        assert_eq!(dir.ids(), (None, 1));
        assert_eq!(dir.ids(), (None, 0), "it is told once");
    }
}
