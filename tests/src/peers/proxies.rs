//! HAProxy and nginx as SNI proxies: what the gateway is measured against.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::netns::Namespace;
use crate::pki::Identity;
use crate::process::Process;

const START: Duration = Duration::from_secs(20);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// HAProxy, in the mode for TCP.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
}

impl Make {
    /// Both: what a bench loops over.
    pub const BOTH: [Self; 2] = [Self::Haproxy, Self::Nginx];

    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What a proxy does with connections.
#[derive(Clone, Debug)]
pub enum Way<'a> {
    /// Passes them on, as they are, to the Edge of the server name they ask for; without such a name they are closed.
    PassThrough(&'a [(&'a str, SocketAddr)]),
    /// Likewise, with many names in a table.
    ByTable(&'a NameTable<'a>),
    /// Terminates TLS, 1.2 and 1.3, and goes on to one Edge.
    Terminate {
        /// The certificate for all.
        identity: &'a Identity,
        /// The authority of clients, where they need a certificate.
        clients: Option<&'a Path>,
        /// The Edge.
        edge: SocketAddr,
        /// How it goes on; plain TCP without it.
        upstream: Option<Upstream<'a>>,
    },
}

/// Server names and the Edges that they belong to, as each proxy's manual wants many of them: HAProxy has a map in a file of its own, whose strings are looked
/// up in a tree; nginx a map with a hash table that has room for all.
#[derive(Clone, Debug)]
pub struct NameTable<'a> {
    /// The Edges, by name.
    pub edges: &'a [(&'a str, SocketAddr)],
    /// Each server name and its Edge.
    pub names: &'a [(String, &'a str)],
}

/// TLS from a proxy to the Edge.
#[derive(Clone, Debug)]
pub struct Upstream<'a> {
    /// The name that is asked for and that the Edge's certificate must carry.
    pub server_name: &'a str,
    /// The authority of that certificate.
    pub roots: &'a Path,
    /// The certificate that the proxy presents.
    pub identity: &'a Identity,
}

/// How large a proxy is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Threads of HAProxy, processes of nginx.
    pub workers: usize,
    /// Partners' connections at once. Both proxies make tables for them at the start.
    pub connections: usize,
}

impl Size {
    /// With room for as many connections as a load of some hundred needs.
    #[must_use]
    pub fn of(workers: usize) -> Self {
        Self {
            workers,
            connections: 2048,
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// The running program.
    pub process: Process,
    make: Make,
}

impl Proxy {
    /// Starts one of this size in `namespace` that listens on `address` alone.
    ///
    /// # Errors
    /// It does not come up; the message quotes its output.
    pub fn start(
        lab: &Lab,
        make: Make,
        namespace: &Namespace,
        address: SocketAddr,
        size: Size,
        way: &Way<'_>,
    ) -> Result<Self> {
        let name = make.name();
        let mut command = namespace.command(name);
        let config = configure(lab, make, address, size, way)?;
        match make {
            Make::Haproxy => {
                if let Way::ByTable(_) = way {
                    // With a master, who can load it again.
                    command.arg("-W");
                }
                // In the foreground.
                command.args(["-db", "-f"]).arg(config);
            }
            Make::Nginx => {
                command.arg("-c").arg(config);
                command.arg("-e").arg(nginx_log(lab));
                command.arg("-p").arg(lab.dir());
            }
        }
        let mut process = lab.spawn(name, command)?;
        process.wait_for_listener(namespace, address.port(), START)?;
        if make == Make::Nginx {
            ensure_hash_has_room(lab)?;
        }
        Ok(Self { process, make })
    }

    /// Writes another configuration, for [`Proxy::reload`]; all but the way is what it was started with.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn configure(
        &self,
        lab: &Lab,
        address: SocketAddr,
        size: Size,
        way: &Way<'_>,
    ) -> Result<()> {
        configure(lab, self.make, address, size, way).map(drop)
    }

    /// Has the master load its configuration again and replace its workers, as the manual says; returns before that is done. For one that was started with
    /// [`Way::ByTable`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(match self.make {
            Make::Haproxy => Signal::SIGUSR2,
            Make::Nginx => Signal::SIGHUP,
        })
    }
}

/// Writes its configuration.
fn configure(
    lab: &Lab,
    make: Make,
    address: SocketAddr,
    size: Size,
    way: &Way<'_>,
) -> Result<PathBuf> {
    match make {
        Make::Haproxy => haproxy(lab, address, size, way),
        Make::Nginx => nginx(lab, address, size, way),
    }
}

/// HAProxy's `tune.pipesize`, in bytes: as large as those of snigate's relay.
const PIPE: usize = 256 * 1024;

fn haproxy(lab: &Lab, address: SocketAddr, size: Size, way: &Way<'_>) -> Result<PathBuf> {
    let Size {
        workers,
        connections,
    } = size;
    // By default it keeps pipes for splicing a quarter of all connections at once, and wants files for them. Larger pipes, and the ClientHello with the ACK
    // that completes the Edge's handshake, are what its manual has for speed (tune.pipesize, tcp-smart-connect).
    let mut config = format!(
        "global\n nbthread {workers}\n maxconn {connections}\n maxpipes 128\n tune.pipesize {PIPE}\n\
         defaults\n mode tcp\n option tcp-smart-connect\n timeout connect 10s\n timeout client 2h\n timeout server 2h\n\
         frontend partners\n"
    );
    let mut backends = String::new();
    match way {
        Way::PassThrough(routes) => {
            config += &haproxy_inspecting(address);
            for (name, edge) in *routes {
                config += &format!(" use_backend {name} if {{ req.ssl_sni -i {name} }}\n");
                backends += &format!("backend {name}\n server edge {edge}\n");
            }
        }
        Way::ByTable(NameTable { edges, names }) => {
            let lines = names.iter().map(|(name, edge)| format!("{name} {edge}\n"));
            let map = lab.write_file("haproxy.map", &lines.collect::<String>())?;
            config += &haproxy_inspecting(address);
            config += &format!(
                " use_backend %[req.ssl_sni,lower,map_str({})]\n",
                map.display()
            );
            for (name, edge) in *edges {
                backends += &format!("backend {name}\n server edge {edge}\n");
            }
        }
        Way::Terminate {
            identity,
            clients,
            edge,
            upstream,
        } => {
            let certificate = bundle(lab, "haproxy-server", identity)?;
            config += &format!(" bind {address} ssl crt {}", certificate.display());
            if let Some(clients) = clients {
                config += &format!(" verify required ca-file {}", clients.display());
            }
            config += "\n default_backend edge\n";
            backends += &format!("backend edge\n server edge {edge}");
            if let Some(upstream) = upstream {
                let certificate = bundle(lab, "haproxy-client", upstream.identity)?;
                backends += &format!(
                    " ssl verify required ca-file {} crt {} sni str({name}) verifyhost {name}",
                    upstream.roots.display(),
                    certificate.display(),
                    name = upstream.server_name
                );
            }
            backends += "\n";
        }
    }
    lab.write_file("haproxy.cfg", &(config + &backends))
}

/// A frontend that waits for a ClientHello.
fn haproxy_inspecting(address: SocketAddr) -> String {
    format!(
        " bind {address}\n option splice-auto\n tcp-request inspect-delay 5s\n\
         \x20tcp-request content accept if {{ req.ssl_hello_type 1 }}\n"
    )
}

/// HAProxy wants the key and the chain in one file, which is named like a key so that nobody keeps it.
fn bundle(lab: &Lab, name: &str, identity: &Identity) -> Result<PathBuf> {
    let chain = std::fs::read_to_string(&identity.chain)?;
    let key = std::fs::read_to_string(&identity.key)?;
    lab.write_file(&format!("{name}.key"), &(chain + &key))
}

/// nginx's `map_hash_max_size`, if nothing is said.
const LEAST_BUCKETS: usize = 2048;
/// nginx's `map_hash_bucket_size`, in bytes. The manual (docs/hash.html) wants more buckets first, and larger ones where that does not help: a usual name takes
/// more than half of a cache line, which is the default, so that two in one bucket would be too many.
const BUCKET: usize = 256;

fn nginx_log(lab: &Lab) -> PathBuf {
    lab.dir().join("nginx.error.log")
}

/// nginx says so where the sizes of its hash tables are not what the manual wants, and goes on.
fn ensure_hash_has_room(lab: &Lab) -> Result<()> {
    let log = std::fs::read_to_string(nginx_log(lab))?;
    let complaint = log.lines().find(|line| line.contains("map_hash"));
    complaint.map_or(Ok(()), |line| bail!("nginx is not tuned: {line}"))
}

fn nginx(lab: &Lab, address: SocketAddr, size: Size, way: &Way<'_>) -> Result<PathBuf> {
    let directory = lab.dir();
    let directory = directory.display();
    let log = nginx_log(lab);
    let log = log.display();
    let mut server = format!("listen {address} reuseport");
    let mut maps = String::new();
    match way {
        Way::PassThrough(routes) => {
            if routes.is_empty() {
                bail!("nginx needs a route to start");
            }
            server += ";\n ssl_preread on;\n proxy_pass $edge;\n";
            maps += "map $ssl_preread_server_name $edge {\n";
            for (name, edge) in *routes {
                maps += &format!(" {name} {edge};\n");
            }
            maps += "}\n";
        }
        Way::ByTable(NameTable { edges, names }) => {
            server += ";\n ssl_preread on;\n proxy_pass $edge;\n";
            for (name, edge) in *edges {
                maps += &format!("upstream {name} {{ server {edge}; }}\n");
            }
            let buckets = (2 * names.len()).next_power_of_two().max(LEAST_BUCKETS);
            maps += &format!(
                "map_hash_max_size {buckets};\nmap_hash_bucket_size {BUCKET};\n\
                 map $ssl_preread_server_name $edge {{\n"
            );
            for (name, edge) in *names {
                maps += &format!(" {name} {edge};\n");
            }
            maps += "}\n";
        }
        Way::Terminate {
            identity,
            clients,
            edge,
            upstream,
        } => {
            server += &format!(
                " ssl;\n ssl_session_cache shared:sessions:10m;\n ssl_protocols TLSv1.2 TLSv1.3;\n ssl_certificate {};\n ssl_certificate_key {};\n proxy_pass {edge};\n",
                identity.chain.display(),
                identity.key.display()
            );
            if let Some(clients) = clients {
                server += &format!(
                    " ssl_verify_client on;\n ssl_client_certificate {};\n",
                    clients.display()
                );
            }
            if let Some(upstream) = upstream {
                server += &format!(
                    " proxy_ssl on;\n proxy_ssl_protocols TLSv1.2 TLSv1.3;\n proxy_ssl_server_name on;\n\
                     \x20proxy_ssl_name {};\n proxy_ssl_verify on;\n proxy_ssl_trusted_certificate {};\n\
                     \x20proxy_ssl_certificate {};\n proxy_ssl_certificate_key {};\n",
                    upstream.server_name,
                    upstream.roots.display(),
                    upstream.identity.chain.display(),
                    upstream.identity.key.display()
                );
            }
        }
    }
    let workers = size.workers;
    // Two for each, and any process may get them all.
    let connections = 2 * size.connections + 64;
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nuser root;\npid {directory}/nginx.pid;\nworker_processes {workers};\n\
         error_log {log};\n\
         events {{ worker_connections {connections}; }}\n\
         stream {{\n{maps}server {{\n {server} proxy_timeout 2h;\n proxy_half_close on;\n}}\n}}\n"
    );
    lab.write_file("nginx.conf", &config)
}
