//! Changes on disk that can be taken back.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A change on disk that is undone unless it is kept: also when the agent ends in the middle of a reload.
pub(super) struct Change {
    pub(super) file: PathBuf,
    pub(super) undo: Option<Undo>,
}

pub(super) enum Undo {
    /// What was made goes.
    Remove { file: bool, directory: bool },
    /// What was removed comes back.
    Restore(Content),
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
            Some(Undo::Restore(content)) => content.write(&self.file),
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

/// A file with what it is besides its bytes.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    /// User and group; `None` for the writer's own.
    pub(super) owner: Option<(u32, u32)>,
}

impl Content {
    /// What is in a regular file, and nothing where there is none.
    pub(super) fn read(file: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(file) {
            Ok(found) if found.is_file() => Ok(Some(Self {
                bytes: fs::read(file)?,
                mode: found.mode() & 0o7777,
                owner: Some((found.uid(), found.gid())),
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it as a new file: a reader sees all of it or nothing, and so does whoever comes after a power cut.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let mut temporary: NamedTempFile = tempfile::Builder::new()
            .prefix(".snigate-")
            .suffix(".new")
            .tempfile_in(directory)?;
        io::Write::write_all(&mut temporary, &self.bytes)?;
        let opened = temporary.as_file();
        if let Some((user, group)) = self.owner {
            chown(temporary.path(), Some(user), Some(group))?;
        }
        opened.set_permissions(fs::Permissions::from_mode(self.mode))?;
        opened.sync_all()?;
        temporary.persist_noclobber(file)?;
        sync_directory(file)
    }
}

/// Makes the names in a file's directory last.
pub(super) fn sync_directory(file: &Path) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    fs::File::open(directory)?.sync_all()
}
