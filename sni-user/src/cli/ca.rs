//! `snigate ca`.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustls::pki_types::UnixTime;

use super::{
    CliError, Environment, Output,
    place::Place,
    table::write_json,
    view::{ca::Ca, cert},
};
use crate::{
    config::{Config, IdentityMode, MirrorCa},
    tls::{self, Authority, PemPair},
};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// Make the CA that signs mirrored identities, and the gateway's own certificate if the configuration names one
    Init(Init),
    /// Show the CA and what it is there for
    Show(Output),
}

#[derive(clap::Args, Debug)]
pub(super) struct Init {
    /// Common name of the CA
    #[arg(long, value_name = "NAME", default_value = "snigate mirror CA")]
    name: String,
    /// Name in the gateway's own certificate [default: this host's name]
    #[arg(long, value_name = "NAME")]
    gateway_name: Option<String>,
    /// How long both are valid
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let config = place.load(environment)?;
    let mirror = config
        .identity
        .mirror
        .as_ref()
        .ok_or_else(|| CliError::NoMirror {
            path: place.config().to_owned(),
        })?;
    match verb {
        Verb::Init(arguments) => init(arguments, &config, mirror, environment),
        Verb::Show(output) => show(*output, &config, mirror, environment),
    }
}

fn init(
    arguments: &Init,
    config: &Config,
    mirror: &MirrorCa,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let gateway = config.identity.gateway.as_ref();
    let mut wanted = vec![&mirror.key, &mirror.certificate];
    wanted.extend(gateway.iter().flat_map(|it| [&it.key, &it.certificate]));
    // Before the keys are made, which takes a while; that nothing is overwritten is seen to again when they are written.
    if let Some(path) = wanted.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CliError::InTheWay {
            path: path.to_path_buf(),
        });
    }
    let authority = Authority::new(&arguments.name, arguments.days)?;
    let mut pairs = vec![(authority.pem(), &mirror.certificate, &mirror.key)];
    if let Some(it) = gateway {
        let name = arguments.gateway_name.clone().unwrap_or_else(host_name);
        let pair = authority.gateway(&name, mirror.crl_url.as_deref())?;
        pairs.push((pair, &it.certificate, &it.key));
    }
    let mut written = Vec::new();
    for (PemPair { certificate, key }, certificate_path, key_path) in &pairs {
        for (path, text, mode) in [
            (key_path, key, 0o600),
            (certificate_path, certificate, 0o644),
        ] {
            if let Err(error) = create(path, text, mode) {
                // Half a CA would be in the way of the next try.
                for path in written {
                    fs::remove_file(path).map_err(file("removing", path))?;
                }
                return Err(error);
            }
            written.push(path.as_path());
        }
    }
    for path in written {
        writeln!(environment.out, "made {}", path.display())?;
    }
    writeln!(environment.out, "\n{}", advice(mirror))?;
    Ok(())
}

/// What is left to people.
fn advice(mirror: &MirrorCa) -> String {
    let crl = match &mirror.crl_url {
        Some(url) => {
            format!("The Edge must be able to fetch {url}, which `snigate run` serves.\n")
        }
        None => "[identity] has no `crl_url`: an Edge that checks revocation, as Lync does, refuses what the CA signs.\n".to_owned(),
    };
    format!(
        "Next, on each Edge behind a domain with `identity = \"mirror\"` or \"gateway\", and nowhere else:\n\
         import {certificate} as a trusted root for computers (certlm.msc, Trusted Root Certification Authorities).\n\
         Whoever has {key} can pass for any partner there: it stays on this gateway, and in a backup that is locked away.\n\
         {crl}",
        certificate = mirror.certificate.display(),
        key = mirror.key.display(),
    )
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().to_lowercase()
}

/// Creates a file that is not there yet, in a directory that is made if need be.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(file("making the directory", directory))?;
    }
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(mode).open(path);
    let mut created = created.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CliError::InTheWay {
            path: path.to_owned(),
        },
        _ => file("creating", path)(source),
    })?;
    let written = created
        .write_all(text.as_bytes())
        .and_then(|()| created.sync_all());
    written.map_err(|source| {
        // What is incomplete was made a moment ago, by this command.
        let _ = fs::remove_file(path);
        file("writing", path)(source)
    })
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { what, path, source }
}

fn show(
    output: Output,
    config: &Config,
    mirror: &MirrorCa,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let kept = tls::mirror_ca(mirror);
    let certificate = cert::line(kept, UnixTime::now());
    let domains = config.domains.iter().filter(|domain| {
        let identity = domain
            .terminate
            .as_ref()
            .map(|terminate| terminate.identity);
        identity == Some(IdentityMode::Mirror)
    });
    let ca = Ca {
        certificate,
        key_file: mirror.key.clone(),
        crl_url: mirror.crl_url.clone(),
        domains: domains
            .map(|domain| domain.sip_domain.to_string())
            .collect(),
    };
    if output.json {
        write_json(environment, &ca)?;
    } else {
        for (what, value) in ca.lines() {
            writeln!(environment.out, "{what:<12} {value}")?;
        }
        writeln!(environment.out, "\n{}", advice(mirror))?;
    }
    if ca.is_broken() {
        return Err(CliError::Reported);
    }
    Ok(())
}
