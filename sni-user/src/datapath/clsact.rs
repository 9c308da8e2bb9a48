//! Filters of traffic control, for kernels without TCX, and the queueing discipline that they hang on.

use std::io;

use aya::programs::{
    TcAttachType,
    tc::{TcError, qdisc_add_clsact, qdisc_detach_program},
};

use super::error::errno;

/// Sees to the queueing discipline. It stays: others may come to use it.
pub(super) fn add_qdisc(interface: &str) -> Result<(), TcError> {
    match qdisc_add_clsact(interface) {
        Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Removes the filters of a program from the ingress of an interface; none is fine, too.
pub(super) fn remove_filters(interface: &str, program: &str) -> Result<(), TcError> {
    match qdisc_detach_program(interface, TcAttachType::Ingress, program) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // There is no queueing discipline.
        Err(error) if matches!(errno(&error), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        other => other,
    }
}
