//! HAProxy and nginx as SNI proxies: what the gateway is measured against.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

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
        match make {
            Make::Haproxy => {
                let config = haproxy(lab, address, size, way)?;
                // In the foreground.
                command.args(["-db", "-f"]).arg(config);
            }
            Make::Nginx => {
                let config = nginx(lab, address, size, way)?;
                let errors = lab.dir().join("nginx.error.log");
                command.arg("-c").arg(config).arg("-e").arg(errors);
                command.arg("-p").arg(lab.dir());
            }
        }
        let mut process = lab.spawn(name, command)?;
        process.wait_for_listener(namespace, address.port(), START)?;
        Ok(Self { process })
    }
}

fn haproxy(lab: &Lab, address: SocketAddr, size: Size, way: &Way<'_>) -> Result<PathBuf> {
    let Size {
        workers,
        connections,
    } = size;
    // By default it keeps pipes for splicing a quarter of all connections at once, and wants files for them.
    let mut config = format!(
        "global\n nbthread {workers}\n maxconn {connections}\n maxpipes 128\n\
         defaults\n mode tcp\n timeout connect 10s\n timeout client 2h\n timeout server 2h\n\
         frontend partners\n"
    );
    let mut backends = String::new();
    match way {
        Way::PassThrough(routes) => {
            config += &format!(
                " bind {address}\n option splice-auto\n tcp-request inspect-delay 5s\n\
                 \x20tcp-request content accept if {{ req.ssl_hello_type 1 }}\n"
            );
            for (name, edge) in *routes {
                config += &format!(" use_backend {name} if {{ req.ssl_sni -i {name} }}\n");
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

/// HAProxy wants the key and the chain in one file, which is named like a key so that nobody keeps it.
fn bundle(lab: &Lab, name: &str, identity: &Identity) -> Result<PathBuf> {
    let chain = std::fs::read_to_string(&identity.chain)?;
    let key = std::fs::read_to_string(&identity.key)?;
    lab.write_file(&format!("{name}.key"), &(chain + &key))
}

fn nginx(lab: &Lab, address: SocketAddr, size: Size, way: &Way<'_>) -> Result<PathBuf> {
    let directory = lab.dir();
    let directory = directory.display();
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
         error_log {directory}/nginx.error.log;\n\
         events {{ worker_connections {connections}; }}\n\
         stream {{\n{maps}server {{\n {server} proxy_timeout 2h;\n proxy_half_close on;\n}}\n}}\n"
    );
    lab.write_file("nginx.conf", &config)
}
