//! Connections that are opened, answered and closed again, many at once on one thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};

use super::stream::{Opener, wait};
use super::stream_edge::GREETING;

/// Everything that happens is told once: what a connection waits for next follows from what has come.
const INTEREST: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLET);

/// One connection of a partner that has nothing to say after its hello.
struct Attempt {
    socket: TcpStream,
    start: Instant,
    stage: Stage,
}

enum Stage {
    /// The SYN is sent.
    Connecting,
    /// The hello is sent; so many bytes of the answer are here.
    Waiting {
        greeting: [u8; GREETING],
        length: usize,
    },
    /// This side has closed, and the Edge has not.
    Closing,
}

/// What one look at a connection has brought.
#[derive(Default)]
struct News {
    /// The time from the SYN to the first byte from the Edge.
    opened: Option<Duration>,
    ended: bool,
}

impl Opener<'_> {
    /// Keeps so many connections under way for so long, and returns how long each took from the SYN to the first byte from the Edge. Each ends
    /// with a FIN from this side and then one from the other, and the next one begins when both have been seen.
    ///
    /// # Errors
    /// One of them fails or stalls.
    pub fn setups(&self, parallel: usize, time: Duration) -> Result<Vec<Duration>> {
        let mut setups = Vec::new();
        self.set_up(parallel, time, &mut setups)?;
        Ok(setups)
    }

    /// Likewise; those that went well before one fails are in `setups` all the same.
    ///
    /// # Errors
    /// One of them fails or stalls.
    pub fn set_up(
        &self,
        parallel: usize,
        time: Duration,
        setups: &mut Vec<Duration>,
    ) -> Result<()> {
        self.namespace.run(|| {
            let end = Instant::now() + time;
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let mut begun = 0;
            let mut begin = |place: usize| {
                begun += 1;
                let attempt = self.begin(begun);
                let attempt =
                    attempt.with_context(|| format!("connection {begun} to {}", self.address))?;
                epoll.add(
                    attempt.socket.as_fd(),
                    EpollEvent::new(INTEREST, place as u64),
                )?;
                Ok::<_, anyhow::Error>(Some(attempt))
            };
            let mut attempts = (0..parallel).map(&mut begin).collect::<Result<Vec<_>>>()?;
            let mut under_way = parallel;
            let mut events = [EpollEvent::empty(); 64];
            while under_way > 0 {
                let ready = wait(&epoll, &mut events)?;
                ensure!(
                    ready > 0,
                    "{under_way} connections have stalled after {} that went well",
                    setups.len()
                );
                for event in &events[..ready] {
                    let place = usize::try_from(event.data())?;
                    let attempt = attempts.get_mut(place).and_then(Option::as_mut);
                    let attempt = attempt.context("an event of a connection that is not there")?;
                    let news = attempt.go_on(&self.hello).with_context(|| {
                        let port = attempt.socket.local_addr().map_or(0, |it| it.port());
                        format!(
                            "a connection from port {port} to {}, after {} that went well",
                            self.address,
                            setups.len()
                        )
                    })?;
                    setups.extend(news.opened);
                    if news.ended {
                        // To close it is not enough: a process that another thread has forked a moment ago has the socket, too, until it has
                        // become another program, and the set would go on telling of it.
                        epoll.delete(attempt.socket.as_fd())?;
                        attempts[place] = None;
                        if Instant::now() < end {
                            attempts[place] = begin(place)?;
                        } else {
                            under_way -= 1;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// In the caller's own namespace.
    fn begin(&self, number: usize) -> Result<Attempt> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = self.sources.get(number % self.sources.len().max(1)) {
            // The port is chosen for this destination when it connects: bind(2) would want one that is free for all.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(*source, 0).into())?;
        }
        let start = Instant::now();
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error).context("connecting");
            }
            Ok(()) | Err(_) => {}
        }
        Ok(Attempt {
            socket: socket.into(),
            start,
            stage: Stage::Connecting,
        })
    }
}

impl Attempt {
    /// As far as it goes without waiting.
    fn go_on(&mut self, hello: &[u8]) -> Result<News> {
        let mut news = News::default();
        if let Stage::Connecting = self.stage {
            if let Some(error) = self.socket.take_error()? {
                return Err(error).context("connecting");
            }
            match self.socket.write(hello) {
                Ok(length) => ensure!(length == hello.len(), "no room for a hello"),
                // The event was older than the connection.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(news);
                }
                Err(error) => return Err(error).context("sending the hello"),
            }
            self.stage = Stage::Waiting {
                greeting: [0; GREETING],
                length: 0,
            };
        }
        if let Stage::Waiting { greeting, length } = &mut self.stage {
            match self.socket.read(&mut greeting[*length..]) {
                Ok(0) => bail!("closed before an answer to the hello"),
                Ok(read) => {
                    if *length == 0 {
                        news.opened = Some(self.start.elapsed());
                    }
                    *length += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(news),
                Err(error) => return Err(error).context("waiting for an answer to the hello"),
            }
            if *length < GREETING {
                return Ok(news);
            }
            ensure!(
                hello.starts_with(greeting),
                "{greeting:02x?} is no answer to the hello"
            );
            SockRef::from(&self.socket)
                .shutdown(Shutdown::Write)
                .context("closing")?;
            self.stage = Stage::Closing;
        }
        match self.socket.read(&mut [0]) {
            Ok(0) => news.ended = true,
            Ok(_) => bail!("bytes came that nobody asked for"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for the other side's end"),
        }
        Ok(news)
    }
}
