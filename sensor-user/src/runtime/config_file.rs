//! The configuration file, looked at every two seconds (`run --watch-config`), where nobody can send SIGHUP: the kubelet
//! replaces what a ConfigMap holds by turning a symbolic link, and tells no process.
//!
//! A change is taken over once it has looked the same twice, so that no half of a file is read. A file that goes away
//! changes nothing.

use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::services::News;
use super::user_rules::{EVERY, Stamp, stamp};

/// A file that may change.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// As it was when it was read last.
    in_force: Stamp,
    /// As the last look found it.
    seen: Stamp,
}

impl ConfigFile {
    /// Looks at the file before anybody reads it, so that what changes in between is read again.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let now = stamp(path);
        Self { path: path.to_owned(), in_force: now, seen: now }
    }

    /// Whether it is to be read again. Links are followed.
    fn look(&mut self) -> bool {
        self.judge(stamp(&self.path))
    }

    fn judge(&mut self, now: Stamp) -> bool {
        let settled = std::mem::replace(&mut self.seen, now) == now;
        if !settled || now.is_none() || now == self.in_force {
            return false;
        }
        self.in_force = now;
        true
    }
}

/// Tells the capture thread whenever the file has changed.
pub(super) async fn watch(mut file: ConfigFile, tell: SyncSender<News>) {
    let mut timer = tokio::time::interval(EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if !file.look() {
            continue;
        }
        tracing::info!("{} has changed", file.path.display());
        if tell.try_send(News::Reload).is_err() {
            // The capture thread is behind: it is told at the look after the next.
            file.in_force = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What the kubelet does: a fresh directory, and a link to it that replaces the old one.
    fn publish(dir: &Path, version: &str, text: &str) {
        fs::create_dir(dir.join(version)).unwrap();
        fs::write(dir.join(version).join("config.yaml"), text).unwrap();
        symlink(version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }

    #[test]
    fn a_turned_link_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), "..1", "labels: [a=1]");
        symlink("..data/config.yaml", dir.path().join("config.yaml")).unwrap();
        let mut file = ConfigFile::new(&dir.path().join("config.yaml"));
        assert!(!file.look() && !file.look(), "nothing has changed");
        publish(dir.path(), "..2", "labels: [a=2]");
        fs::remove_dir_all(dir.path().join("..1")).unwrap();
        assert!(!file.look(), "it may be changing still");
        assert!(file.look(), "it is as it was");
        assert!(!file.look() && !file.look(), "once");
    }

    #[test]
    fn a_file_that_goes_away_and_comes_back_as_it_was_changes_nothing() {
        let mut file = ConfigFile::new(Path::new("/nowhere/config.yaml"));
        let one = Some((std::time::SystemTime::UNIX_EPOCH, 7, 1));
        let two = Some((std::time::SystemTime::UNIX_EPOCH, 7, 2));
        file.in_force = one;
        let looks = [None, None, one, one, two, one, one, two, two, two];
        let found: Vec<bool> = looks.into_iter().map(|stamp| file.judge(stamp)).collect();
        let mut expected = [false; 10];
        expected[8] = true;
        assert_eq!(found, expected);
    }

    #[test]
    fn who_could_not_be_told_is_told_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "a").unwrap();
        let file = ConfigFile::new(&path);
        fs::write(&path, "longer").unwrap();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        tell.send(News::Reopen).unwrap();
        runtime.unwrap().block_on(async {
            tokio::spawn(watch(file, tell));
            tokio::time::sleep(EVERY * 5).await;
            assert!(matches!(told.try_recv(), Ok(News::Reopen)));
            tokio::time::sleep(EVERY * 5).await;
            assert!(matches!(told.try_recv(), Ok(News::Reload)));
            tokio::time::sleep(EVERY * 5).await;
            assert!(told.try_recv().is_err(), "told once");
        });
    }
}
