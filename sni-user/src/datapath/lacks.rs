//! What a kernel lacks: what it can be done without, and what it can't.

use super::AttachMode;

/// What this kernel lacks that the datapath makes use of where it is there, each with what that means, as a sentence.
#[must_use]
pub fn lacks() -> Vec<&'static str> {
    lacks_with(AttachMode::traffic_control())
}

fn lacks_with(traffic_control: AttachMode) -> Vec<&'static str> {
    let mut lacks = Vec::new();
    if traffic_control != AttachMode::Tcx {
        lacks.push(
            "this kernel has no TCX (Linux 6.6 has it): at traffic control the datapath is a filter (clsact), and the one that brings Edges' answers to \
             the agent and to bound connections goes with an agent that ends in good order, also with `run --leave`: until the next one runs, bound \
             connections get no answer. Those of an agent that is killed stay",
        );
    }
    lacks
}

/// What the kernel lacks that there is no datapath without, by what its verifier says in its refusal.
pub(super) fn lacking(log: &str) -> Option<&'static str> {
    if log.contains("not allowed in non-JITed programs") {
        return Some(
            "the compiler of BPF programs: switch it on with `sysctl -w net.core.bpf_jit_enable=1`, or take a kernel with CONFIG_BPF_JIT",
        );
    }
    // Before Linux 6.12 it is an unknown function, then one that a program of this type cannot use.
    if log.contains("func bpf_tcp_raw_") || log.contains("helper bpf_tcp_raw_") {
        return Some("SYN cookies for BPF programs: take a kernel with CONFIG_SYN_COOKIES");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_before_tcx_is_told_of() {
        assert!(lacks_with(AttachMode::Tcx).is_empty());
        let lacks = lacks_with(AttachMode::Clsact);
        assert_eq!(lacks.len(), 1);
        assert!(lacks[0].contains("Linux 6.6"), "{lacks:?}");
    }

    #[test]
    fn refusals_are_read() {
        for (log, what) in [
            (
                "callbacks are not allowed in non-JITed programs\nprocessed 10 insns",
                "net.core.bpf_jit_enable=1",
            ),
            (
                "unknown func bpf_tcp_raw_gen_syncookie_ipv4#204",
                "CONFIG_SYN_COOKIES",
            ),
            (
                "program of this type cannot use helper bpf_tcp_raw_check_syncookie_ipv6#207",
                "CONFIG_SYN_COOKIES",
            ),
        ] {
            let found = lacking(log).expect("a sentence");
            assert!(found.contains(what), "{found}");
        }
        assert_eq!(lacking("R1 type=scalar expected=map_value"), None);
    }
}
