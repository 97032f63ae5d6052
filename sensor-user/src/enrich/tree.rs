//! The cgroup tree as it was walked: which cgroup has which id, without walking it anew for every question.
//!
//! A cgroup's id is the inode of its directory and is never used again (`kernfs_new_node` in fs/kernfs/dir.c counts up), so
//! what was found stays true until the directory is gone. A walk asks every known directory for its metadata and reads
//! only those whose number of subdirectories has changed (`kernfs_refresh_inode` keeps it in `st_nlink`); a cgroup that
//! took another's place between two walks changes no number, so that one that is still not found is looked for in every
//! directory. Walks keep a distance that grows with the tree: at most some 6 % of a core, however fast cgroups come and go.
//!
//! Not seen: cgroups that came and went between two walks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::{Place, place};

/// Most cgroups that are known: the kernel's own limit is 65,535 for cgroup v1, and a full node has a thousand. Some
/// 300 bytes each.
const MAX_CGROUPS: usize = 65_536;
/// Deepest cgroup that is looked at; systemd inside a pod inside a cluster inside a container is twelve deep.
const MAX_DEPTH: usize = 24;
/// Most cgroups that are remembered after they are gone, some 200 bytes each: seven a second for as long as
/// [`REMEMBERED`].
const MAX_GONE: usize = 4096;
/// How long a cgroup that is gone is remembered: alerts may come that late.
pub const REMEMBERED: Duration = Duration::from_mins(10);
/// Between two walks at least.
const PAUSE: Duration = Duration::from_millis(250);
/// And this for each cgroup: a walk takes 1 to 2 microseconds for one.
const PAUSE_EACH: Duration = Duration::from_micros(20);

/// A cgroup.
#[derive(Debug)]
struct Node {
    parent: Option<u64>,
    name: Box<str>,
    /// `st_nlink` when it was read last: two and its subdirectories. None if that is unknown or tells nothing.
    links: Option<u64>,
    children: Vec<u64>,
    place: Place,
}

/// The tree below one directory.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    nodes: HashMap<u64, Node>,
    gone: HashMap<u64, Place>,
    /// When those went that are gone, oldest first.
    went: VecDeque<(Instant, u64)>,
    walked: Option<Instant>,
    /// Walks so far: of what has changed, of everything.
    pub walks: [u64; 2],
    /// Cgroups that found no room.
    pub refused: u64,
}

impl Tree {
    /// The tree below `root`, of which nothing is known yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            nodes: HashMap::new(),
            gone: HashMap::new(),
            went: VecDeque::new(),
            walked: None,
            walks: [0; 2],
            refused: 0,
        }
    }

    /// What is known of a cgroup, without looking.
    #[must_use]
    pub fn known(&self, id: u64) -> Option<&Place> {
        self.nodes.get(&id).map(|node| &node.place).or_else(|| self.gone.get(&id))
    }

    /// Whether a cgroup is remembered that is no more.
    #[must_use]
    pub fn is_gone(&self, id: u64) -> bool {
        self.gone.contains_key(&id)
    }

    /// Looks for those of these cgroups that are not known, unless the tree was walked just now.
    pub fn look_for(&mut self, ids: &[u64], now: Instant) {
        let unknown = |tree: &Self| ids.iter().any(|id| *id != 0 && tree.known(*id).is_none());
        if !unknown(self) || self.walked.is_some_and(|walked| now.duration_since(walked) < self.pause()) {
            return;
        }
        self.walk(false, now);
        if unknown(self) {
            self.walk(true, now);
        }
        self.walked = Some(now);
    }

    /// Looks for what has come and gone, unless the tree was walked just now: then false.
    pub fn refresh(&mut self, now: Instant) -> bool {
        if self.walked.is_some_and(|walked| now.duration_since(walked) < self.pause()) {
            return false;
        }
        self.walk(false, now);
        self.walked = Some(now);
        true
    }

    /// The cgroups that are there.
    pub fn live(&self) -> impl Iterator<Item = (u64, &Place)> {
        self.nodes.iter().map(|(id, node)| (*id, &node.place))
    }

    fn pause(&self) -> Duration {
        PAUSE + PAUSE_EACH * u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// The directory of a cgroup that is there.
    #[must_use]
    pub fn directory(&self, id: u64) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(&id)?;
        while let Some(parent) = node.parent {
            names.push(&*node.name);
            node = self.nodes.get(&parent).filter(|_| names.len() <= MAX_DEPTH)?;
        }
        let mut path = self.root.clone();
        path.extend(names.into_iter().rev());
        Some(path)
    }

    /// Cgroups that are known, and those remembered.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.nodes.len(), self.gone.len())
    }

    /// Makes a cgroup known, for tests.
    #[cfg(test)]
    pub(crate) fn stage(&mut self, id: u64, place: Place) {
        let node = Node { parent: None, name: "".into(), links: None, children: Vec::new(), place };
        self.nodes.insert(id, node);
    }

    /// Forgets what has been gone for long.
    pub fn tend(&mut self, now: Instant) {
        while let Some((went, id)) = self.went.front().copied() {
            if now.duration_since(went) < REMEMBERED && self.went.len() <= MAX_GONE {
                return;
            }
            self.went.pop_front();
            self.gone.remove(&id);
        }
    }

    /// Walks the tree: reads the directories that have changed, or every one.
    fn walk(&mut self, whole: bool, now: Instant) {
        if let Some(walks) = self.walks.get_mut(usize::from(whole)) {
            *walks += 1;
        }
        let mut open =
            vec![Visit { dir: self.root.clone(), path: "/".into(), parent: None, was: None, depth: 0 }];
        while let Some(visit) = open.pop() {
            self.visit(&visit, whole, now, &mut open);
        }
        self.tend(now);
    }

    fn visit(&mut self, visit: &Visit, whole: bool, now: Instant, open: &mut Vec<Visit>) {
        let meta = std::fs::symlink_metadata(&visit.dir).ok().filter(std::fs::Metadata::is_dir);
        let id = meta.as_ref().map(MetadataExt::ino);
        if let Some(was) = visit.was.filter(|was| Some(*was) != id) {
            self.lose(was, now);
        }
        let (Some(meta), Some(id)) = (meta, id) else { return };
        if !self.nodes.contains_key(&id) && !self.meet(id, visit) {
            return;
        }
        let links = Some(meta.nlink()).filter(|links| *links >= 2);
        let Some(node) = self.nodes.get(&id) else { return };
        let unchanged = !whole && links.is_some() && node.links == links;
        if visit.depth >= MAX_DEPTH || (links == Some(2) && node.children.is_empty()) {
            self.read(id, links);
            return;
        }
        let known: Vec<(Box<str>, u64)> = node
            .children
            .iter()
            .filter_map(|child| Some((self.nodes.get(child)?.name.clone(), *child)))
            .collect();
        if unchanged {
            open.extend(known.into_iter().map(|(name, was)| visit.child(&name, id, Some(was))));
            return;
        }
        let Some(names) = names(&visit.dir) else { return };
        for (_, child) in known.iter().filter(|(name, _)| !names.contains(name)) {
            self.lose(*child, now);
        }
        let was: HashMap<Box<str>, u64> = known.into_iter().collect();
        open.extend(names.iter().map(|name| visit.child(name, id, was.get(name).copied())));
        self.read(id, links);
    }

    fn read(&mut self, id: u64, links: Option<u64>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.links = links;
        }
    }

    /// Notes a cgroup that is new. False if there is no room.
    fn meet(&mut self, id: u64, visit: &Visit) -> bool {
        if self.nodes.len() >= MAX_CGROUPS {
            self.refused += 1;
            return false;
        }
        if let Some(parent) = visit.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.push(id);
        }
        let name = visit.path.rsplit('/').next().unwrap_or_default().into();
        let node =
            Node { parent: visit.parent, name, links: None, children: Vec::new(), place: place(&visit.path) };
        self.nodes.insert(id, node);
        true
    }

    /// A cgroup is gone, and so is what was below it.
    fn lose(&mut self, id: u64, now: Instant) {
        let parent = self.nodes.get(&id).and_then(|node| node.parent);
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.retain(|child| *child != id);
        }
        let mut lost = vec![id];
        while let Some(id) = lost.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            lost.extend(node.children);
            self.gone.insert(id, node.place);
            self.went.push_back((now, id));
        }
        self.tend(now);
    }
}

/// A directory that is to be looked at.
struct Visit {
    dir: PathBuf,
    /// Its path below the root.
    path: String,
    parent: Option<u64>,
    /// The cgroup that had this name when it was looked at last.
    was: Option<u64>,
    depth: usize,
}

impl Visit {
    fn child(&self, name: &str, parent: u64, was: Option<u64>) -> Self {
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        Self { dir: self.dir.join(name), path, parent: Some(parent), was, depth: self.depth + 1 }
    }
}

/// The directories of a directory. A name that is no text is no cgroup of any runtime.
fn names(dir: &Path) -> Option<HashSet<Box<str>>> {
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = std::fs::read_dir(dir).ok()?.flatten().filter(is_dir);
    let names = entries.filter_map(|entry| entry.file_name().to_str().map(Box::from));
    Some(names.take(MAX_CGROUPS).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        tree: Tree,
        now: Instant,
    }

    impl Bench {
        #[allow(clippy::disallowed_methods, reason = "a test's first moment")]
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::new(dir.path().to_owned());
            Self { dir, tree, now: Instant::now() }
        }

        fn make(&self, path: &str) -> u64 {
            let path = self.dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::metadata(path).unwrap().ino()
        }

        fn remove(&self, path: &str) {
            fs::remove_dir_all(self.dir.path().join(path)).unwrap();
        }

        /// A while later.
        fn look_for(&mut self, id: u64) -> Option<String> {
            self.now += Duration::from_secs(2);
            self.tree.look_for(&[id], self.now);
            self.tree.known(id).map(|place| place.unit.as_deref().unwrap_or("-").to_owned())
        }
    }

    #[test]
    fn a_cgroup_is_found_and_found_again_without_looking() {
        let mut bench = Bench::new();
        let id = bench.make("system.slice/nginx.service");
        assert_eq!(bench.look_for(id).as_deref(), Some("nginx.service"));
        let walks = bench.tree.walks;
        assert_eq!(bench.look_for(id).as_deref(), Some("nginx.service"));
        assert_eq!(bench.tree.walks, walks);
        assert_eq!(bench.tree.directory(id).unwrap(), bench.dir.path().join("system.slice/nginx.service"));
        assert_eq!(bench.tree.directory(7), None);
    }

    #[test]
    fn one_that_is_new_is_found_among_the_known() {
        let mut bench = Bench::new();
        let first = bench.make("system.slice/a.service");
        bench.look_for(first);
        let second = bench.make("system.slice/b.service/inner");
        assert_eq!(bench.look_for(second).as_deref(), Some("b.service"));
        assert_eq!(bench.tree.known(first).unwrap().unit.as_deref(), Some("a.service"));
    }

    #[test]
    fn one_that_took_anothers_place_is_found() {
        let mut bench = Bench::new();
        let old = bench.make("system.slice/a.service");
        let keep = bench.make("system.slice/c.service");
        bench.look_for(old);
        // It is made before the old one goes, lest it gets its inode: cgroups never do.
        let elsewhere = tempfile::tempdir_in(bench.dir.path().parent().unwrap()).unwrap();
        let new = fs::metadata(elsewhere.path()).unwrap().ino();
        bench.remove("system.slice/a.service");
        fs::rename(elsewhere.keep(), bench.dir.path().join("system.slice/b.service")).unwrap();
        assert_eq!(bench.look_for(new).as_deref(), Some("b.service"));
        assert!(bench.tree.is_gone(old) && !bench.tree.is_gone(keep));
        assert_eq!(bench.tree.known(old).unwrap().unit.as_deref(), Some("a.service"));
    }

    #[test]
    fn what_is_gone_is_remembered_for_a_while_with_all_below_it() {
        let mut bench = Bench::new();
        let inner = bench.make("kubepods/podU/x.service");
        bench.look_for(inner);
        bench.remove("kubepods");
        assert_eq!(bench.look_for(1), None);
        assert!(bench.tree.is_gone(inner) && bench.tree.directory(inner).is_none());
        assert_eq!(bench.tree.len(), (1, 3));
        bench.tree.tend(bench.now + REMEMBERED);
        assert_eq!((bench.tree.len(), bench.tree.known(inner)), ((1, 0), None));
    }

    #[test]
    fn nobody_makes_it_walk_all_the_time() {
        let mut bench = Bench::new();
        for id in 1..1000 {
            bench.tree.look_for(&[u64::MAX - id], bench.now);
        }
        assert_eq!(bench.tree.walks, [1, 1]);
        bench.tree.look_for(&[0], bench.now + PAUSE * 2);
        assert_eq!(bench.tree.walks, [1, 1], "0 is no cgroup");
        bench.tree.look_for(&[u64::MAX], bench.now + PAUSE * 2);
        assert_eq!(bench.tree.walks, [2, 2]);
    }

    #[test]
    fn memory_of_the_gone_is_bounded() {
        let mut bench = Bench::new();
        let root = bench.make("");
        for round in 0..3 {
            for number in 0..2000 {
                bench.make(&format!("pod{round}-{number}"));
            }
            bench.look_for(1);
            for number in 0..2000 {
                bench.remove(&format!("pod{round}-{number}"));
            }
            bench.look_for(1);
        }
        // Directories of other file systems may have the inodes of those that are gone.
        assert!(bench.tree.len().0 == 1 && bench.tree.len().1 <= MAX_GONE);
        assert!(bench.tree.known(root).is_some() && bench.tree.went.len() == MAX_GONE);
    }

    #[test]
    fn links_lead_nowhere_and_a_missing_tree_is_empty() {
        let mut bench = Bench::new();
        let inner = bench.make("system.slice");
        std::os::unix::fs::symlink(bench.dir.path(), bench.dir.path().join("system.slice/loop")).unwrap();
        bench.look_for(inner);
        assert_eq!(bench.tree.len(), (2, 0));
        let mut nowhere = Tree::new("/nowhere".into());
        nowhere.look_for(&[1], bench.now);
        assert_eq!(nowhere.len(), (0, 0));
    }
}
