//! `snigate cert`.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use rustls::pki_types::UnixTime;

use super::{
    CliError, Environment, Output,
    ask::runtime,
    place::Place,
    table::{show, write_json},
    view::cert::{self, Attempted, CertLine},
};
use crate::{
    acme::{Attempt, Renewal, Trigger, Wanted, wanted},
    config::{Acme, Challenge, Config},
    tls::inventory,
};

/// Orders at once; as many as the agent has.
const AT_ONCE: usize = 4;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List every certificate that the configuration names, as it is on disk, and how those by ACME are renewed
    Ls(Output),
    /// Get certificates by ACME for domains that have none yet
    ///
    /// With or without an agent: what this puts on disk, a running one takes up at once. HTTP-01 is answered by the agent, so that it has to run here or
    /// on a gateway with the same directory of tokens; DNS-01 needs none, and works before the name's address is the gateway's.
    Issue(Asking),
    /// Renew certificates that came by ACME and whose time it is
    ///
    /// The running agent does that by itself.
    Renew(Asking),
}

#[derive(clap::Args, Debug)]
pub(super) struct Asking {
    /// SIP domains [default: all that have `acme`]
    #[arg(value_name = "SIP_DOMAIN")]
    domains: Vec<String>,
    /// Prove them in this way, whatever the configuration says
    #[arg(long, value_name = "WAY", value_parser = ["http-01", "dns-01"])]
    challenge: Option<String>,
    /// Ask at once: although there is a certificate, or a pause is to be kept after a failure
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let config = place.load(environment)?;
    match verb {
        Verb::Ls(output) => list(*output, &config, environment),
        Verb::Issue(asking) => ask(asking, Trigger::WhenMissing, &config, environment),
        Verb::Renew(asking) => ask(asking, Trigger::WhenDue, &config, environment),
    }
}

fn list(
    output: Output,
    config: &Config,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let mut lines = cert::lines(inventory(config), UnixTime::now());
    if let Some(acme) = &config.acme {
        let wanted = wanted(config);
        let wanted: HashMap<_, _> = wanted.iter().map(|it| (it.file.as_path(), it)).collect();
        for line in &mut lines {
            let renewal = wanted.get(line.file()).map(|it| Renewal::of(acme, it));
            line.renewed(renewal);
        }
    }
    show(environment, output.json, &lines)?;
    // All are shown; the status says that some can't be used.
    if lines.iter().any(CertLine::is_broken) {
        return Err(CliError::Reported);
    }
    Ok(())
}

fn ask(
    asking: &Asking,
    trigger: Trigger,
    config: &Config,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let Some(acme) = &config.acme else {
        return Err(CliError::Usage(
            "the configuration has no [acme] table, and so no authority to ask: write [acme] with `directory`, and `acme = true` into a [[domain]]".to_owned(),
        ));
    };
    let asked = asked(asking, config)?;
    check(acme, &asked)?;
    let trigger = if asking.force {
        Trigger::Always
    } else {
        trigger
    };
    let attempt = Attempt::new(acme.clone());
    let attempted = runtime()?.block_on(async {
        let attempts = asked.into_iter().map(async |wanted| {
            let outcome = attempt.make(&wanted, trigger).await;
            Attempted::new(&wanted, &outcome)
        });
        let attempts = stream::iter(attempts).buffered(AT_ONCE);
        attempts.collect::<Vec<_>>().await
    });
    if asking.output.json {
        write_json(environment, &attempted)?;
    } else {
        for line in &attempted {
            writeln!(environment.out, "{line}")?;
        }
    }
    match attempted.iter().any(Attempted::has_failed) {
        true => Err(CliError::Reported),
        false => Ok(()),
    }
}

/// The certificates that are asked for.
fn asked(asking: &Asking, config: &Config) -> Result<Vec<Wanted>, CliError> {
    let mut all = wanted(config);
    if let Some(challenge) = &asking.challenge {
        let challenge = match challenge.as_str() {
            "dns-01" => Challenge::Dns01,
            _ => Challenge::Http01,
        };
        all.iter_mut().for_each(|it| it.challenge = challenge);
    }
    if asking.domains.is_empty() {
        return Ok(all);
    }
    let mut found = Vec::new();
    for name in &asking.domains {
        let it = all.iter().find(|it| it.sip_domain.as_str() == *name);
        let it = it.ok_or_else(|| {
            CliError::Usage(format!(
                "no [[domain]] for {name} has `acme`: `snigate cert ls` lists what there is"
            ))
        })?;
        if !found.contains(it) {
            found.push(it.clone());
        }
    }
    Ok(found)
}

/// What the configuration was not asked about, when the way is named here.
fn check(acme: &Acme, asked: &[Wanted]) -> Result<(), CliError> {
    for it in asked {
        let by_dns = it.challenge == Challenge::Dns01;
        if by_dns && acme.dns_hook.is_none() {
            return Err(CliError::Usage(
                "[acme] has no `dns_hook` that would set the record for dns-01".to_owned(),
            ));
        }
        if let Some(name) = it.names.iter().find(|name| name.is_wildcard())
            && !by_dns
        {
            return Err(CliError::Usage(format!(
                "{name} can't be proven by http-01: authorities give wildcards for dns-01 only"
            )));
        }
    }
    Ok(())
}
