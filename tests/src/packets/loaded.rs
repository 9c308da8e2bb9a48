//! Loaded datapaths, which scenes use one after the other: the verifier takes a second for one, and where a processor is emulated a minute.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, loaded_programs};
use sni_user::datapath::Datapath;

use super::pass;

/// A datapath, with all of its programs and maps.
pub(super) struct Loaded {
    // Before the pins' guard: they are removed after the datapath has let go of them.
    pub(super) datapath: Datapath,
    /// For how many flows FLOWS was made.
    pub(super) max_flows: u32,
    /// The program behind, once it has been asked for.
    behind: Option<SchedClassifier>,
    pins: Pins,
}

impl Loaded {
    fn new(pins: PathBuf, max_flows: u32) -> Result<Self> {
        let pins = Pins(pins);
        Ok(Self {
            datapath: Datapath::load(&pins.0, max_flows)?,
            max_flows,
            behind: None,
            pins,
        })
    }

    /// The directory of its pins.
    pub(super) fn pins(&self) -> &Path {
        &self.pins.0
    }

    /// The program behind. Nobody but the agent's attachment needs it, so the datapath does not hand it out: it is looked for among the loaded ones, by
    /// the maps that it shares with the first one.
    pub(super) fn behind(&mut self) -> Result<&mut SchedClassifier> {
        const NAME: &str = "snigate_return";
        if self.behind.is_none() {
            let maps = self.datapath.program()?.info()?.map_ids()?;
            let maps = maps.context("the kernel does not tell a program's maps")?;
            let mut found = None;
            for program in loaded_programs() {
                // Others come and go meanwhile.
                let Ok(program) = program else { continue };
                if program.name_as_str() == Some(NAME)
                    && let Ok(Some(theirs)) = program.map_ids()
                    && theirs.iter().any(|map| maps.contains(map))
                {
                    found = Some(program.fd()?);
                }
            }
            let program = found.with_context(|| format!("{NAME} is not loaded"))?;
            let pin = self.pins.0.join("behind");
            self.behind = Some(pass::pinned(program.as_fd().as_raw_fd(), &pin, || {
                Ok(SchedClassifier::from_pin(&pin)?)
            })?);
        }
        self.behind.as_mut().context("the program behind")
    }
}

/// The datapaths of a rig that nobody uses.
#[derive(Default)]
pub(super) struct Shelf {
    idle: Mutex<Vec<Loaded>>,
    made: AtomicU32,
}

impl Shelf {
    /// One with room for so many flows, as its last user has left it, or a new one with its pins below `bpffs`.
    pub(super) fn lend(&self, bpffs: &Path, max_flows: u32) -> Result<Lent<'_>> {
        let loaded = match self.take(max_flows) {
            Some(loaded) => loaded,
            None => {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                Loaded::new(bpffs.join(format!("scene-{number}")), max_flows)?
            }
        };
        Ok(Lent {
            loaded: Some(loaded),
            shelf: self,
        })
    }

    fn take(&self, max_flows: u32) -> Option<Loaded> {
        let mut idle = self.idle.lock().expect("no user panics with it");
        let at = idle.iter().position(|it| it.max_flows == max_flows)?;
        Some(idle.swap_remove(at))
    }
}

/// A datapath in use. It goes back when dropped, except by a test that has panicked: nobody knows how that leaves it.
pub(super) struct Lent<'a> {
    /// Until it is dropped.
    loaded: Option<Loaded>,
    shelf: &'a Shelf,
}

impl Deref for Lent<'_> {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        self.loaded.as_ref().expect("until it is dropped")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Loaded {
        self.loaded.as_mut().expect("until it is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(loaded) = self.loaded.take()
            && !thread::panicking()
            && let Ok(mut idle) = self.shelf.idle.lock()
        {
            idle.push(loaded);
        }
    }
}

/// The pins of a datapath, removed when dropped.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = Datapath::remove_pinned(&self.0) {
            eprintln!("{error}");
        }
    }
}
