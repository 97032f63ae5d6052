//! Where cgroup v2 is mounted, and which mount shows the most of the host.
//!
//! A container mostly has a cgroup namespace of its own, and the runtime mounts the tree at /sys/fs/cgroup as seen from
//! there: it begins at the container. The host's tree, mounted elsewhere in the same container, begins higher, and
//! /proc/self/mountinfo says how much: its root then reads `/../../..` (cgroup_namespaces(7)).

use std::path::PathBuf;

/// A mount of cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// How far above the root of this process's cgroup namespace it begins; below 0 is inside.
    pub(super) height: i32,
    /// Where it is.
    pub(super) at: PathBuf,
}

/// Every cgroup2 mount in the text of /proc/self/mountinfo, those that begin highest first, else in the order of the text.
pub(super) fn highest_first(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.height));
    mounts
}

/// `41 31 0:38 /../.. /host/sys/fs/cgroup ro,relatime master:5 - cgroup2 cgroup2 rw` (`proc_pid_mountinfo(5)`).
fn mount(line: &str) -> Option<Mount> {
    let (about_mount, about_system) = line.split_once(" - ")?;
    if about_system.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut fields = about_mount.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    Some(Mount { height: height(root), at: PathBuf::from(unescaped(at)) })
}

fn height(root: &str) -> i32 {
    let step = |part| match part {
        "" => 0,
        ".." => 1,
        _ => -1,
    };
    root.split('/').map(step).sum()
}

/// Undoes the octal escapes that the kernel puts in place of blanks and backslashes.
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(mountinfo: &str) -> Vec<String> {
        highest_first(mountinfo).into_iter().map(|mount| mount.at.display().to_string()).collect()
    }

    #[test]
    fn finds_cgroup2_beside_version_one() {
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw
50 31 0:39 / /odd\\040place rw - cgroup2 none rw
51 31 0:40 / /run rw,relatime - tmpfs tmpfs rw
";
        assert_eq!(places(mounts), ["/sys/fs/cgroup/unified", "/odd place"]);
        assert!(places("\n 1 2 3\n - cgroup2\n").is_empty());
    }

    #[test]
    fn the_hosts_tree_beats_that_of_the_container() {
        let pod = "\
700 690 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
710 680 0:26 /../../../.. /host/sys/fs/cgroup ro,nosuid master:9 - cgroup2 cgroup2 rw,nsdelegate
";
        let found = highest_first(pod);
        assert_eq!(found[0], Mount { height: 4, at: "/host/sys/fs/cgroup".into() });
        assert_eq!(found[1].height, 0);
    }

    #[test]
    fn a_part_of_the_tree_comes_last() {
        // Without a namespace of its own a container may be shown its part of the tree.
        let part = "\
1 2 0:26 /kubepods/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw
3 2 0:26 / /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw
4 2 0:26 /../sibling /mnt ro - cgroup2 cgroup2 rw
";
        assert_eq!(places(part), ["/host/sys/fs/cgroup", "/mnt", "/sys/fs/cgroup"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([ -~]{0,40}( - )?(cgroup2)?[ /.\n]{0,10}){0,6}") {
            highest_first(&text);
        }
    }
}
