//! Files that a plan is written into.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    super::CliError,
    arguments::{Arguments, Outbound},
};
use crate::{
    config::Config,
    plan::{Former, Writing},
};

/// The gateway's tables, beside the main file.
const TABLES: &str = "plan.toml";
const MAIN: &str = "snigate.toml";
const REQUESTS: &str = "requests";
const OUTBOUND: &str = "outbound";
/// Where the configuration expects what CAs have issued.
const CERTIFICATES: &str = "certs";

/// What became of a plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Files, in the order of their writing.
    pub(super) written: Vec<PathBuf>,
    /// Why there is no configuration among them.
    pub(super) lacks: Option<String>,
}

/// Writes what is to be written; the state last, so that it is not ahead of the files.
pub(super) fn write(arguments: &Arguments, writing: &Writing<'_>) -> Result<Outcome, CliError> {
    let mut outcome = Outcome {
        written: Vec::new(),
        lacks: writing.site.lacks(writing.plan),
    };
    let mut files = Vec::new();
    if let Some(directory) = &arguments.write {
        files = texts(arguments, writing, directory, outcome.lacks.as_deref())?;
    }
    if arguments.dry_run {
        return Ok(outcome);
    }
    for (path, text) in files {
        replace(&path, &text)?;
        outcome.written.push(path);
    }
    if let Some(directory) = &arguments.write {
        for name in &writing.plan.dropped {
            forget(&directory.join(REQUESTS).join(format!("{name}.cnf")))?;
        }
    }
    if let Some(state) = &arguments.state {
        replace(state, &Former::of(writing.plan).text())?;
        outcome.written.push(state.clone());
    }
    Ok(outcome)
}

/// All files with what is in them; nothing is written while any of it is wrong.
fn texts(
    arguments: &Arguments,
    writing: &Writing<'_>,
    directory: &Path,
    lacks: Option<&str>,
) -> Result<Vec<(PathBuf, String)>, CliError> {
    let mut files = Vec::new();
    match lacks {
        Some(lacks) if arguments.has_site() => {
            return Err(CliError::Usage(format!("{lacks}; nothing was written")));
        }
        // Certificates are all that was asked for.
        Some(_) => {}
        None => files.extend(configuration(writing, directory)?),
    }
    for certificate in &writing.plan.certificates {
        let text = writing
            .request(certificate, &arguments.subject)
            .map_err(|error| CliError::Usage(error.to_string()))?;
        let name = format!("{}.cnf", certificate.name);
        files.push((directory.join(REQUESTS).join(name), text));
    }
    if lacks.is_none() {
        let lines = writing.records().into_iter();
        let zone = lines
            .map(|record| record.zone_line(arguments.ttl))
            .collect();
        files.push((directory.join("records.zone"), zone));
    }
    files.push((directory.join("edge.ps1"), writing.power_shell()));
    if let Some(Outbound::Kamailio) = arguments.outbound {
        let pool = arguments.outbound_pool.to_string();
        // Kamailio takes a path that begins with a dot from where it was started.
        let certificates = std::path::absolute(directory.join(CERTIFICATES))
            .map_err(failed("finding", directory))?;
        let certificates = certificates.display().to_string();
        let kamailio = writing
            .kamailio(
                &arguments.outbound_addresses,
                &pool,
                (&certificates, &arguments.outbound_roots),
            )
            .map_err(|needed| {
                CliError::Usage(format!(
                    "the outbound gateway needs an address for each certificate, {needed} in all: write further ones behind --outbound-address"
                ))
            })?;
        let outbound = directory.join(OUTBOUND);
        files.push((outbound.join("kamailio.cfg"), kamailio.main));
        files.push((outbound.join("tls.cfg"), kamailio.tls));
    }
    Ok(files)
}

/// The configuration, judged as `snigate check` does. The main file is made only where there is none.
fn configuration(
    writing: &Writing<'_>,
    directory: &Path,
) -> Result<Vec<(PathBuf, String)>, CliError> {
    let tables = writing.configuration();
    let main = writing.main_configuration(TABLES);
    let alone: String = main
        .lines()
        .filter(|line| !line.starts_with("include"))
        .map(|line| format!("{line}\n"))
        .collect();
    if let Err(found) = Config::parse(&directory.join(TABLES), &format!("{alone}\n{tables}")) {
        let mistakes: Vec<_> = found.errors().map(|it| it.message().to_owned()).collect();
        return Err(CliError::Usage(format!(
            "addresses, Edges and list don't make a configuration: {}; nothing was written",
            mistakes.join("; ")
        )));
    }
    let mut files = vec![(directory.join(TABLES), tables)];
    let main_path = directory.join(MAIN);
    if main_path.symlink_metadata().is_err() {
        files.push((main_path, main));
    }
    Ok(files)
}

/// Replaces a file as a whole, or makes it and its directory.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let written = fs::create_dir_all(directory).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(failed("writing", path))
}

/// Removes the request of a certificate that is no more.
fn forget(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { what, path, source }
}
