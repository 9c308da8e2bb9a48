//! Between the datapath and the host's own sockets: connections to inspected services reach the agent's listener, and Edges' answers its
//! transparent sockets.

mod dispatch;
mod returning;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use sni_common::contract::{Counter, DropReason};
use sni_user::{
    config::Config,
    datapath::{AttachMode, Datapath, Tables},
};
use snigate_tests::{Lab, Namespace};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// For connections that must not come about.
pub(crate) const IN_VAIN: Duration = Duration::from_millis(700);
pub(crate) const ELSEWHERE: u16 = 443;

/// One IP set whose ClientHello decides, on the first VIP; the second VIP is no service.
pub(crate) const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0", "lan0"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[edge]]
name = "edge-a6"
address = "[2001:db8:a::10]:5061"

[[pool]]
name = "edges"
edges = ["edge-a", "edge-a6"]

[[ip_set]]
name = "shared"
addresses = ["198.51.100.10", "2001:db8:1::10"]
inspect = true
default = "edges"
"#;

/// A datapath as an agent brings it up in the lab's gateway; what is pinned stays when it is dropped.
pub(crate) struct Agent {
    pub(crate) datapath: Datapath,
    pub(crate) pins: PathBuf,
}

impl Agent {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let pins = lab.bpffs()?.join("snigate");
        let config = Config::parse(Path::new("/snigate.toml"), CONFIG)?.config;
        let tables = Tables::new(&config, (0, 0), |_| Err("no Edge asks for it".into()))?;
        let datapath = lab.gateway.run(|| {
            let mut datapath = Datapath::load(&pins, 1000)?;
            datapath.dispatch(true)?;
            tables.activate(&mut datapath.maps)?;
            datapath.attach(&interfaces(&["wan0", "lan0"])?, AttachMode::Xdp)?;
            Ok(datapath)
        })?;
        Ok(Self { datapath, pins })
    }

    pub(crate) fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(self.datapath.maps.stats()?.counter(counter))
    }

    pub(crate) fn drops(&self, reason: DropReason) -> Result<u64> {
        Ok(self.datapath.maps.stats()?.drops(reason))
    }
}

/// Names and indices of interfaces, from within their namespace.
pub(crate) fn interfaces(names: &[&str]) -> Result<Vec<(String, u32)>> {
    let interface = |name: &&str| Ok(((*name).to_owned(), if_nametoindex(*name)?));
    names.iter().map(interface).collect()
}

/// A server that says where a connection came from and arrived, and then echoes. It ends with the process.
pub(crate) fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || converse(stream));
        }
    });
}

fn converse(mut stream: TcpStream) -> Result<()> {
    let greeting = format!("{} {}\n", stream.peer_addr()?, stream.local_addr()?);
    stream.write_all(greeting.as_bytes())?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// A connection to such a server.
pub(crate) struct Client {
    stream: TcpStream,
    /// As whom and where the server sees it, as an IPv6 socket may show it.
    pub(crate) seen: [SocketAddr; 2],
}

impl Client {
    pub(crate) fn connect(from: &Namespace, to: SocketAddr) -> Result<Self> {
        let stream = from.run(|| Ok(TcpStream::connect_timeout(&to, TIMEOUT)?));
        Self::new(stream.with_context(|| format!("connecting to {to}"))?)
    }

    pub(crate) fn new(mut stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut greeting = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).context("the greeting")?;
            greeting.push(byte[0]);
        }
        let greeting = String::from_utf8(greeting)?;
        let addresses: Vec<SocketAddr> = greeting
            .split_whitespace()
            .map(|text| Ok(unmapped(text.parse()?)))
            .collect::<Result<_>>()?;
        let seen = addresses.try_into().ok().context("two addresses")?;
        Ok(Self { stream, seen })
    }

    pub(crate) fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Sends, and receives the same.
    pub(crate) fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        let mut writer = self.stream.try_clone()?;
        let mut answer = vec![0; bytes.len()];
        thread::scope(|scope| {
            let sent = scope.spawn(move || writer.write_all(bytes));
            self.stream.read_exact(&mut answer).context("the echo")?;
            sent.join()
                .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
            ensure!(answer == bytes, "the echo is not what was sent");
            Ok(())
        })
    }

    /// Ends it, and waits until the server has done so, too.
    pub(crate) fn close(mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let rest = self.stream.read(&mut [0]).context("the end")?;
        ensure!(rest == 0, "something came instead of the end");
        Ok(())
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
