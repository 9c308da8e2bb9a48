#!/bin/sh
# The guest's first process. It makes of the archive's files a system that the lab runs in, does one step after the other, and goes down.
#
# What happens is told at the second serial port: `@begin STEP`, what the step prints, `@end STEP STATUS`. The first one is the kernel's.
export PATH=/usr/sbin:/usr/bin TMPDIR=/tmp HOME=/root SNIGATE_LAB=1 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
exec </dev/null >/dev/ttyS1 2>&1

step() {
    step=$1
    shift
    echo "@begin $step"
    "$@"
    echo "@end $step $?"
}

# Without its compiler the kernel refuses the datapath, and snigate must say so.
refused_without_jit() {
    echo 0 >/proc/sys/net/core/bpf_jit_enable
    snigate-lab kernel >/tmp/refused 2>&1
    status=$?
    echo 1 >/proc/sys/net/core/bpf_jit_enable
    while read -r line; do
        echo "$line"
        case $line in
        *net.core.bpf_jit_enable=1*) [ $status -ne 0 ] && return 0 ;;
        esac
    done </tmp/refused
    return 1
}

step programs snigate-lab kernel
step packets packets --color never
step xdp snigate-lab demo --hook xdp
step traffic-control snigate-lab demo --hook tcx
step refusal refused_without_jit

# Closing the port waits until all is sent; QEMU ends at the reboot.
exec >/dev/null 2>&1
echo b >/proc/sysrq-trigger
