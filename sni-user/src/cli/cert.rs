//! `snigate cert`.

use rustls::pki_types::UnixTime;

use super::{CliError, Environment, Output, place::Place, table::show, view::cert};
use crate::tls::inventory;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List every certificate that the configuration names, as it is on disk
    Ls(Output),
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let Verb::Ls(output) = verb;
    let config = place.load(environment)?;
    let lines = cert::lines(inventory(&config), UnixTime::now());
    show(environment, output.json, &lines)?;
    // All are shown; the status says that some can't be used.
    if lines.iter().any(cert::CertLine::is_broken) {
        return Err(CliError::Reported);
    }
    Ok(())
}
