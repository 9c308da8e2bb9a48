//! The memory that reading a configuration takes: several times what the configuration takes then.

/// Gives back to the kernel what is free. glibc would keep it for the next reload, which may never come.
///
/// Takes some milliseconds for a large configuration; who allocates from the part that is being looked through waits.
pub(super) fn trim() {
    // SAFETY: takes no pointer, and may be called by any thread at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
