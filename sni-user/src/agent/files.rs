//! When a file of the configuration has changed: the kernel says that something has happened near it, and a look tells whether that matters.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, timeout_at};

/// A burst of changes (a certificate and its key, an editor's temporary files) is one change once it has been quiet this long.
const QUIET: Duration = Duration::from_millis(300);
/// Changes without end are looked at this often.
const LONGEST: Duration = Duration::from_secs(3);

/// What files and directories were like. What is not there counts, too: some need not exist, and others will come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            changed: metadata.modified().ok(),
            length: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

impl Stamps {
    /// What these paths are like now.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let stamped = paths.into_iter();
        Self(
            stamped
                .map(|path| (path.clone(), Stamp::of(path)))
                .collect(),
        )
    }

    /// What the same paths are like now.
    pub(super) fn anew(&self) -> Self {
        Self::of(self.0.keys())
    }

    /// Those of the paths in `wanted`.
    pub(super) fn only(self, wanted: &HashSet<PathBuf>) -> Self {
        let known = self.0.into_iter();
        Self(known.filter(|(path, _)| wanted.contains(path)).collect())
    }

    /// Adds what is known of further paths. What was seen first stays: it may have changed while the others were read.
    pub(super) fn add(&mut self, later: Self) {
        for (path, stamp) in later.0 {
            self.0.entry(path).or_insert(stamp);
        }
    }

    /// Whether something is not as it was.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Directories to listen in.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = BTreeSet::new();
        for path in self.0.keys() {
            if path.is_dir() {
                directories.insert(path.clone());
            }
            directories.extend(path.parent().map(Path::to_owned));
        }
        directories
    }
}

/// Listens where files lie. Directories rather than files: whoever replaces a file by another one of its name means that one.
pub(super) struct Watch {
    events: EventStream<[u8; 4096]>,
    watches: Watches,
    listening: Vec<WatchDescriptor>,
    /// A burst that has begun.
    burst: Option<Burst>,
}

/// When a burst of changes began, and when it is over if nothing more comes.
#[derive(Clone, Copy)]
struct Burst {
    began: Instant,
    over: Instant,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        Ok(Self {
            events: inotify.into_event_stream([0; 4096])?,
            watches,
            listening: Vec::new(),
            burst: None,
        })
    }

    /// Listens for these files and no others.
    pub(super) fn listen(&mut self, stamps: &Stamps) {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::ATTRIB;
        let mut listening = Vec::new();
        for directory in stamps.directories() {
            match self.watches.add(&directory, mask) {
                Ok(watch) => listening.push(watch),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "changes of files there are not noticed: `snigate reload` after them");
                }
            }
        }
        for old in self.listening.drain(..) {
            if !listening.contains(&old) {
                // It fails where the directory is gone, and the watch with it.
                let _ = self.watches.remove(old);
            }
        }
        self.listening = listening;
    }

    /// As if something had changed now.
    pub(super) fn begin(&mut self) {
        let began = Instant::now();
        self.burst.get_or_insert(Burst {
            began,
            over: began + QUIET,
        });
    }

    /// Waits until something has changed near the files, and until that is over. Cancelling it loses nothing.
    pub(super) async fn changed(&mut self) {
        let burst = match self.burst {
            Some(burst) => burst,
            None => {
                if self.events.next().await.is_none() {
                    std::future::pending::<()>().await;
                }
                let began = Instant::now();
                let over = began + QUIET;
                *self.burst.insert(Burst { began, over })
            }
        };
        let mut over = burst.over;
        while timeout_at(over, self.events.next()).await.is_ok() {
            over = (Instant::now() + QUIET).min(burst.began + LONGEST);
            self.burst = Some(Burst { over, ..burst });
        }
        self.burst = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    #[test]
    fn what_was_seen_first_counts() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("a.pem");
        let mut before = Stamps::of([&file]);
        assert!(!before.have_changed(), "it is missing as it was");
        fs::write(&file, "1").expect("a file");
        assert!(before.have_changed());
        let other = place.path().join("b.pem");
        before.add(Stamps::of([&file, &other]));
        assert!(before.have_changed(), "a file that came while it was read");
        let now = before.anew();
        assert!(!now.have_changed());
        fs::write(&other, "2").expect("a file");
        assert!(now.have_changed());
    }

    #[tokio::test]
    async fn a_change_is_not_lost_to_whatever_else_happens() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("a.pem");
        let mut watch = Watch::new().expect("inotify");
        watch.listen(&Stamps::of([&file]));
        fs::write(&file, "1").expect("a file");
        let mut turns = 0;
        // As in the agent's loop: another branch wins again and again, and drops this one.
        while timeout(Duration::from_millis(50), watch.changed())
            .await
            .is_err()
        {
            turns += 1;
            assert!(turns < 200, "the change was lost");
        }
        assert!(turns > 0, "it waits until the burst is over");
        sleep(Duration::from_millis(1)).await;
        assert!(
            timeout(Duration::from_millis(400), watch.changed())
                .await
                .is_err(),
            "once is enough"
        );
    }
}
