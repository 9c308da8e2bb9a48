//! The smallest XDP program: it passes every packet.
//!
//! Attached to a veth it makes the kernel register the receive queues that BPF_PROG_TEST_RUN wants to know, without running the datapath
//! on whatever the kernel itself sends there; and run by itself it shows what a test run costs without a program.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_TYPE_XDP: u32 = 6;
const XDP_PASS: u64 = 2;

/// `r0 = XDP_PASS; exit`, as in `struct bpf_insn`: opcode, registers, offset, and the immediate value in the upper half.
const INSTRUCTIONS: [u64; 2] = [XDP_PASS << 32 | 0xb7, 0x95];

/// The part of `union bpf_attr` that loads a program (linux/bpf.h).
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part that pins an object.
#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Loads the program. aya takes programs from object files and from pins only, so it goes by way of a pin.
///
/// # Errors
/// No privileges, or `pin` is not on a BPF filesystem.
pub fn load(pin: &Path) -> Result<Xdp> {
    let license = c"GPL";
    let attributes = Load {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let descriptor = bpf(BPF_PROG_LOAD, &attributes).context("loading the empty XDP program")?;
    // SAFETY: the kernel has just handed out this descriptor, to nobody else.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    pinned(program.as_raw_fd(), pin, || {
        Ok(Xdp::from_pin(pin, XdpAttachType::Interface)?)
    })
}

/// Calls `open` while a program is pinned.
///
/// # Errors
/// `pin` is not on a BPF filesystem, or what `open` returns.
pub(super) fn pinned<T>(program: RawFd, pin: &Path, open: impl FnOnce() -> Result<T>) -> Result<T> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = Pin {
        path: path.as_ptr() as u64,
        descriptor: program as u32,
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attributes).with_context(|| format!("pinning {}", pin.display()))?;
    let opened = open();
    fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
    opened
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are of the command's kind, and what they point to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}
