//! When a file of the configuration has changed: the kernel says that something has happened near it, and a look tells whether that matters.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::timeout;

/// A burst of changes (a certificate and its key, an editor's temporary files) is one change once it has been quiet this long.
const QUIET: Duration = Duration::from_millis(300);
/// Changes without end are looked at this often.
const LONGEST: Duration = Duration::from_secs(3);

/// What files were like when they were read. A file that is not there counts, too: some need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

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
    /// The directories where files may appear that the main file includes.
    pub(super) fn of_directory(main: &Path) -> Self {
        let beside = main.parent().map(|directory| directory.join("domains.d"));
        let mut stamps = Self::default();
        stamps.add(&beside.into_iter().collect::<Vec<_>>());
        stamps
    }

    pub(super) fn add(&mut self, files: &[PathBuf]) {
        let stamped = files.iter().map(|path| (path.clone(), Stamp::of(path)));
        self.0.extend(stamped);
    }

    /// The same files, as they are now.
    pub(super) fn anew(&self) -> Self {
        let paths = self.0.iter().map(|(path, _)| path);
        Self(paths.map(|path| (path.clone(), Stamp::of(path))).collect())
    }

    /// Whether a file is not as it was.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Directories to listen in.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = BTreeSet::new();
        for (path, _) in &self.0 {
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
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        Ok(Self {
            events: inotify.into_event_stream([0; 4096])?,
            watches,
            listening: Vec::new(),
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

    /// Waits until something has changed near the files, and until that is over. Cancelling it may merge two changes into one.
    pub(super) async fn changed(&mut self) {
        if self.events.next().await.is_none() {
            std::future::pending::<()>().await;
        }
        let burst = async { while timeout(QUIET, self.events.next()).await.is_ok() {} };
        let _ = timeout(LONGEST, burst).await;
    }
}
