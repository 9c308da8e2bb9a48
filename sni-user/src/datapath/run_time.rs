//! What the programs cost, as the kernel measures it (BPF_ENABLE_STATS): how often each has run, and for how long in all.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use aya::{
    programs::ProgramFd,
    sys::{Stats, enable_stats},
};

use super::{Datapath, DatapathError};

/// Has the kernel measure the programs of the whole host for as long as this lives: two readings of the clock for each run of a program.
#[derive(Debug)]
pub struct Measuring {
    #[expect(dead_code, reason = "the kernel measures until it is closed")]
    statistics: OwnedFd,
}

impl Measuring {
    /// Begins.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, which the kernel wants for what concerns the whole host.
    pub fn begin() -> Result<Self, DatapathError> {
        // Not by `DatapathError::kernel`, which would name other capabilities.
        let refused = |source| DatapathError::Kernel {
            what: "having the kernel measure BPF programs".into(),
            source: Box::new(source),
        };
        let statistics = enable_stats(Stats::RunTime).map_err(refused)?;
        Ok(Self { statistics })
    }
}

/// The loaded programs of one agent.
pub struct Programs(Vec<(String, ProgramFd)>);

/// What the kernel has measured of a program, since it was loaded and while anybody had it measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTime {
    /// Its name in the object.
    pub program: String,
    /// How often it has run.
    pub runs: u64,
    /// How long in all, on all CPUs.
    pub time: Duration,
}

impl Datapath {
    /// The programs that are loaded so far, to be asked what they cost. See [`Datapath::facts`].
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn programs(&self) -> Result<Programs, DatapathError> {
        let mut programs = Vec::new();
        for (name, program) in self.ebpf.programs() {
            let Ok(fd) = program.fd() else { continue };
            let fd = fd
                .try_clone()
                .map_err(|e| DatapathError::kernel(format!("keeping {name}"), e))?;
            programs.push((name.to_owned(), fd));
        }
        Ok(Programs(programs))
    }
}

impl Programs {
    /// What each has cost; nothing of those that have not run while the kernel measured.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn run_times(&self) -> Result<Vec<RunTime>, DatapathError> {
        let all = self.0.iter().map(|(program, fd)| {
            // aya asks the kernel about a descriptor only where it is the object's own.
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(&path)
                .map_err(|e| DatapathError::kernel(format!("reading {path}"), e))?;
            Ok(run_time(program, &text))
        });
        let all: Result<Vec<_>, DatapathError> = all.collect();
        Ok(all?.into_iter().filter(|it| it.runs != 0).collect())
    }
}

/// Reads the lines of a program's fdinfo (`bpf_prog_show_fdinfo` of kernel/bpf/syscall.c); zero where they are missing.
fn run_time(program: &str, text: &str) -> RunTime {
    let number = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let value = lines.find(|(found, _)| *found == key);
        value.and_then(|(_, value)| value.trim().parse().ok())
    };
    RunTime {
        program: program.to_owned(),
        runs: number("run_cnt").unwrap_or_default(),
        time: Duration::from_nanos(number("run_time_ns").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_of_a_program() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t6\nprog_jited:\t1\nrun_time_ns:\t1500000042\nrun_cnt:\t31\nrecursion_misses:\t0\n";
        let expected = RunTime {
            program: "snigate_xdp".to_owned(),
            runs: 31,
            time: Duration::from_nanos(1_500_000_042),
        };
        assert_eq!(run_time("snigate_xdp", text), expected);
        assert_eq!(run_time("snigate_xdp", "prog_type:\t6\n").runs, 0);
    }
}
