//! The socket's place in the file system.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group};
use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use tokio::net::{UnixListener, UnixStream};

/// Who may ask without being root or the agent's user; what its members may is the server's to decide.
const GROUP: &str = "snigate";

/// Connections that wait for the agent to take them.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// An agent listens there.
    #[error(
        "another agent is controlled through {path}: stop it first, or set `gateway.control` to another place", path = path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has that name.
    #[error(
        "{path} exists and is no socket: remove it, or set `gateway.control` to another place", path = path.display()
    )]
    NoSocket {
        /// What is there.
        path: PathBuf,
    },
    /// A refusal of the operating system.
    #[error("{what} {path}: {source}; `gateway.control` says where the control socket is", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A listening socket with its file, which goes when this is dropped.
pub(super) struct ControlSocket {
    /// Before the listener, which keeps the inode's number from being used again.
    file: SocketFile,
    pub(super) listener: UnixListener,
}

struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file of the same name may be a later agent's.
    identity: (u64, u64),
}

impl ControlSocket {
    /// Makes the socket. One that a dead agent has left is replaced; agents that start at the same moment are told apart by the claim on
    /// their pin path, not here.
    pub(super) async fn bind(path: &Path) -> Result<Self, ControlError> {
        let io = |what| {
            move |source| ControlError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(io("making the directory of"))?;
        }
        remove_stale(path).await?;
        let socket = listening(path).map_err(io("making the control socket"))?;
        let found = fs::symlink_metadata(path).map_err(io("looking at"))?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: (found.dev(), found.ino()),
        };
        if let Some(group) = group() {
            // Without it, root and the agent's user are still served.
            if let Err(error) = std::os::unix::fs::chown(path, None, Some(group.as_raw())) {
                tracing::warn!(%error, path = %path.display(), "the control socket can't be given to the group {GROUP}");
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .map_err(io("setting the permissions of"))?;
        let listener = UnixListener::from_std(socket.into()).map_err(io("listening at"))?;
        Ok(Self { file, listener })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The socket is nobody else's until it has its group: Linux takes the permissions of the file from the unbound socket.
fn listening(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

async fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let io = |what, source| ControlError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(ControlError::NoSocket {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("looking at", error)),
    }
    match UnixStream::connect(path).await {
        // A full backlog is an agent too.
        Ok(_) => Err(ControlError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ControlError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| io("removing what a dead agent left,", error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("connecting to", error)),
    }
}

fn group() -> Option<Gid> {
    match Group::from_name(GROUP) {
        Ok(group) => group.map(|group| group.gid),
        Err(error) => {
            tracing::warn!(%error, "the group {GROUP} can't be looked up");
            None
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the control socket can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/snigate/control.sock");
        (directory, path)
    }

    #[tokio::test]
    async fn the_file_comes_and_goes_with_the_socket() {
        let (_directory, path) = place();
        let socket = ControlSocket::bind(&path).await.expect("a socket");
        let mode = fs::metadata(&path).expect("the file").mode();
        assert_eq!(mode & 0o7777, 0o660, "{mode:o}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_agent_is_refused_and_a_dead_one_replaced() {
        let (_directory, path) = place();
        let living = ControlSocket::bind(&path).await.expect("a socket");
        let refused = ControlSocket::bind(&path).await.err().expect("a refusal");
        assert!(matches!(refused, ControlError::InUse { .. }), "{refused}");
        assert!(path.exists(), "the living agent's socket stays");
        // Somebody has removed its file, and another agent has come.
        fs::remove_file(&path).expect("the file");
        let next = ControlSocket::bind(&path).await.expect("a socket");
        drop(living);
        assert!(path.exists(), "the file is the next agent's");
        UnixStream::connect(&path).await.expect("a connection");
        drop(next);
        assert!(!path.exists());
        // As after SIGKILL: the file stays, and nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists());
        let next = ControlSocket::bind(&path).await.expect("a socket");
        UnixStream::connect(&path).await.expect("a connection");
        drop(next);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let (_directory, path) = place();
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, "precious").expect("a file");
        let refused = ControlSocket::bind(&path).await.err().expect("a refusal");
        assert!(refused.to_string().contains("is no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
    }
}
