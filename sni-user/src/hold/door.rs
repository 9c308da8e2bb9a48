//! The holder's place in the file system, beside the control socket.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    },
};

/// Agents that wait to be let in.
const BACKLOG: i32 = 8;

/// Where the holder of an agent with this control socket is found.
pub(super) fn place(control: &Path) -> PathBuf {
    with_suffix(control, ".holder")
}

/// A door in the place of the one that is there, if any: an earlier holder keeps its own, which nobody finds any longer.
pub(super) fn make(place: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = with_suffix(place, ".new");
    remove(&new)?;
    let socket = unix_socket()?;
    // Linux takes the permissions of the file from the unbound socket: it is nobody else's at any moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(&new)?)?;
    listen(&socket, BACKLOG)?;
    fs::rename(&new, place)?;
    Ok(socket)
}

/// Knocks; `None` where no holder is.
pub(super) fn knock(place: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = unix_socket()?;
    match connect(&socket, &SocketAddrUnix::new(place)?) {
        Ok(()) => Ok(Some(socket)),
        Err(error) => match io::Error::from(error) {
            error
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            error => Err(error),
        },
    }
}

/// Device and inode of a door's file: that of the same name may be a later one's.
pub(super) fn identity(place: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(place).ok()?;
    Some((found.dev(), found.ino()))
}

/// Removes a door's file; none is fine, too.
pub(super) fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
