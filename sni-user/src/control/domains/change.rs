//! Changes on disk that can be taken back.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};

/// Everybody may read a domain's file; keys are in files of their own.
const MODE: u32 = 0o644;

/// A change on disk that is undone unless it is kept: also when the agent ends in the middle of a reload.
pub(super) struct Change {
    pub(super) file: PathBuf,
    pub(super) undo: Option<Undo>,
}

pub(super) enum Undo {
    /// What was made goes.
    Remove { file: bool, directory: bool },
    /// What was removed comes back: it is only out of the way until then, so that this needs no room on the disk.
    Restore(TempPath),
}

impl Change {
    pub(super) fn keep(mut self) -> PathBuf {
        self.undo = None;
        std::mem::take(&mut self.file)
    }

    pub(super) fn undo(mut self) -> io::Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> io::Result<()> {
        match self.undo.take() {
            Some(Undo::Restore(aside)) => {
                aside.persist_noclobber(&self.file).map_err(|failed| {
                    // Whoever sees to it finds it there.
                    let _ = failed.path.keep();
                    failed.error
                })?;
                sync_directory(&self.file)
            }
            Some(Undo::Remove { file, directory }) => {
                if file {
                    fs::remove_file(&self.file)?;
                    sync_directory(&self.file)?;
                }
                match self.file.parent() {
                    // Somebody else may have put a file there in between.
                    Some(made) if directory => match fs::remove_dir(made) {
                        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                        outcome => outcome,
                    },
                    _ => Ok(()),
                }
            }
            None => Ok(()),
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            tracing::error!(%error, file = %self.file.display(), "the file of a domain could not be put back as it was");
        }
    }
}

/// What is in a regular file, and nothing where there is none.
pub(super) fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(file) {
        Ok(found) if found.is_file() => fs::read(file).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a new file: a reader sees all of it or nothing, and so does whoever comes after a power cut or finds the disk full.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary: NamedTempFile = beside(".new").tempfile_in(directory(file))?;
    io::Write::write_all(&mut temporary, bytes)?;
    let opened = temporary.as_file();
    opened.set_permissions(fs::Permissions::from_mode(MODE))?;
    opened.sync_all()?;
    temporary.persist_noclobber(file)?;
    sync_directory(file)
}

/// Puts a file out of the way, under a name that no configuration includes, until what is returned is dropped.
pub(super) fn set_aside(file: &Path) -> io::Result<TempPath> {
    let aside = beside(".old").make_in(directory(file), |aside| fs::rename(file, aside))?;
    Ok(aside.into_temp_path())
}

fn beside(suffix: &str) -> tempfile::Builder<'static, '_> {
    let mut names = tempfile::Builder::new();
    names.prefix(".snigate-").suffix(suffix);
    names
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// Makes the names in a file's directory last.
pub(super) fn sync_directory(file: &Path) -> io::Result<()> {
    fs::File::open(directory(file))?.sync_all()
}
