//! What the agent's sockets are set to.

use std::{
    fs,
    io::Write as _,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    addresses::{EDGE_A, VIP_1},
    gateway::Gateway,
    lab_test,
    peers::EchoEdge,
};
use socket2::SockRef;

use crate::{
    THREE_DOMAINS, both, echo::connect, ensure_counted, hellos::asking_for, quiet, shared,
};

#[test]
fn both_sides_are_kept_alive_and_undelayed() {
    for source in ["preserve", "gateway"] {
        let name = format!("inspect-sockets-{source}");
        lab_test(&name, &quiet(), |lab| {
            let edge = EchoEdge::start(&lab.edge_a, "a")?;
            let gateway = Gateway::start(lab, &shared(source, "hand_off = false", THREE_DOMAINS))?;
            let hello = asking_for("sip.contoso.example")?;
            let mut clients = Vec::new();
            for address in both(VIP_1) {
                let mut client = connect(lab, None, address)?;
                client.write_all(&hello)?;
                clients.push(client);
            }
            ensure_counted(&gateway, "passed", 2)?;
            ensure!(edge.connections() == 2);

            let sockets = sockets_of(gateway.pid()?)?;
            let ends = |wanted: [std::net::IpAddr; 2], local: bool| {
                let mut found = 0;
                for socket in &sockets {
                    let socket = SockRef::from(socket);
                    let end = if local {
                        socket.local_addr()
                    } else {
                        socket.peer_addr()
                    };
                    let end = end.ok().and_then(|end| end.as_socket());
                    let connected = socket.peer_addr().is_ok();
                    if !connected
                        || !end.is_some_and(|end| wanted.contains(&end.ip().to_canonical()))
                    {
                        continue;
                    }
                    found += 1;
                    ensure!(socket.tcp_nodelay()? && socket.keepalive()?);
                    ensure!(socket.tcp_keepalive_time()? == Duration::from_secs(120));
                    ensure!(socket.tcp_keepalive_interval()? == Duration::from_secs(15));
                    ensure!(socket.tcp_user_timeout()? == Some(Duration::from_secs(180)));
                }
                Ok(found)
            };
            ensure!(ends(VIP_1.both(), true)? == 2, "the clients' connections");
            ensure!(ends(EDGE_A.both(), false)? == 2, "the Edges' connections");
            Ok(())
        });
    }
}

/// Duplicates of a process's sockets: what `ss` does not show can be asked of them.
fn sockets_of(pid: u32) -> Result<Vec<OwnedFd>> {
    let process = system_call(libc::SYS_pidfd_open, [pid.into(), 0, 0]).context("pidfd_open")?;
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // One that has been closed since then is no socket of a connection that lasts.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        if target.to_string_lossy().starts_with("socket:") {
            let number: i64 = entry.file_name().to_string_lossy().parse()?;
            let arguments = [process.as_raw_fd().into(), number, 0];
            sockets.push(system_call(libc::SYS_pidfd_getfd, arguments).context("pidfd_getfd")?);
        }
    }
    Ok(sockets)
}

/// A system call that returns a descriptor.
fn system_call(number: libc::c_long, arguments: [i64; 3]) -> Result<OwnedFd> {
    let [one, two, three] = arguments;
    // SAFETY: neither of the two calls above takes a pointer.
    let result = unsafe { libc::syscall(number, one, two, three) };
    ensure!(result >= 0, std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(result)?) })
}
