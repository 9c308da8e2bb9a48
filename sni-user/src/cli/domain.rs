//! `snigate domain`.

use std::path::PathBuf;

use super::{
    CliError, Environment, Output, ask::ask, place::Place, reload, table::show,
    view::domain::DomainLine,
};
use crate::{config::Config, control::DomainTable};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Verb {
    /// List the domains of the configuration, and where each is defined
    Ls(Output),
    /// Define a domain in a file of its own, and reload
    ///
    /// The file is `domains.d/<SIP domain>.toml` beside the configuration, which has to include it. When the agent refuses the configuration
    /// with the new domain, the file goes again and nothing has changed.
    Add(Box<Addition>),
    /// Remove a domain that is alone in a file of its own in domains.d, and reload
    Rm {
        /// The SIP domain, such as fabrikam.example
        sip_domain: String,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct Addition {
    /// The SIP domain, such as fabrikam.example
    sip_domain: String,
    /// The pool that its connections go to
    #[arg(long, value_name = "POOL")]
    pool: String,
    /// A server name that partners ask for, or *. and one; several times for several [default: sip.<SIP domain>]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// An application protocol of which clients must offer one; several times for several
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// End TLS here: PEM file with the chain, the domain's own certificate first
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file with the private key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Whether partners must show a certificate [default: optional]
    #[arg(long, value_name = "WHEN", requires = "certificate", value_parser = ["required", "optional", "none"])]
    client_certificate: Option<String>,
    /// Who may have signed it: a PEM file, or system [default: system]
    #[arg(long, value_name = "FILE", requires = "certificate")]
    client_roots: Option<PathBuf>,
    /// PEM file with a revocation list; several times for several
    #[arg(long = "client-crl", value_name = "FILE", requires = "certificate")]
    client_crls: Vec<PathBuf>,
    /// What the Edge is shown of the partner [default: none]
    #[arg(long, value_name = "WHAT", requires = "certificate", value_parser = ["none", "gateway", "mirror"])]
    identity: Option<String>,
}

pub(super) fn run(
    verb: &Verb,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let (changed, how) = match verb {
        Verb::Ls(output) => return list(*output, place, environment),
        Verb::Add(addition) => {
            let table = addition.table()?;
            let changed = ask(place, environment, async |client| {
                client.add_domain(table).await
            });
            (changed?, "added in")
        }
        Verb::Rm { sip_domain } => {
            let changed = ask(place, environment, async |client| {
                client.remove_domain(sip_domain).await
            });
            (changed?, "removed with")
        }
    };
    writeln!(
        environment.out,
        "{} {how} {}",
        changed.sip_domain,
        changed.file.display()
    )?;
    reload::tell(&changed.reloaded, environment)
}

fn list(output: Output, place: &Place, environment: &mut Environment<'_>) -> Result<(), CliError> {
    match Config::load(place.config()) {
        Ok(loaded) => {
            let domains = loaded.config.domains.iter().zip(&loaded.domains_at);
            let lines = domains.map(|(domain, at)| DomainLine::new(domain, at));
            show(environment, output.json, lines)
        }
        Err(diagnostics) => {
            let found = diagnostics.render(environment.colour);
            write!(environment.err, "{found}")?;
            Err(CliError::Reported)
        }
    }
}

impl Addition {
    fn table(&self) -> Result<DomainTable, CliError> {
        let mut more = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| more.insert(key.to_owned(), value);
        if !self.alpn.is_empty() {
            set("alpn", self.alpn.clone().into());
        }
        for (key, word) in [
            ("client_certificate", &self.client_certificate),
            ("identity", &self.identity),
        ] {
            if let Some(word) = word {
                set(key, word.clone().into());
            }
        }
        if let Some(roots) = &self.client_roots {
            let roots = match roots.to_str() {
                Some("system") => "system".to_owned(),
                _ => text(roots)?,
            };
            set("client_roots", roots.into());
        }
        if !self.client_crls.is_empty() {
            let files: Result<Vec<_>, _> = self.client_crls.iter().map(text).collect();
            set("client_crls", files?.into());
        }
        let file = |path: &Option<PathBuf>| path.as_ref().map(text).transpose();
        Ok(DomainTable {
            sip_domain: self.sip_domain.clone(),
            names: self.names.clone(),
            pool: self.pool.clone(),
            certificate: file(&self.certificate)?.map(PathBuf::from),
            key: file(&self.key)?.map(PathBuf::from),
            more,
        })
    }
}

/// A path as the domain's file has it: relative ones on a command line start from where the shell is, not from that file.
fn text(path: &PathBuf) -> Result<String, CliError> {
    let failed = |source| CliError::File {
        what: "finding",
        path: path.clone(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(failed)?;
    absolute.into_os_string().into_string().map_err(|path| {
        CliError::Usage(format!(
            "a configuration can't name {}, which is not UTF-8: rename it",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        addition: Addition,
    }

    fn table(arguments: &str) -> String {
        let line = Line::parse_from(["add"].into_iter().chain(arguments.split(' ')));
        toml::to_string(&line.addition.table().unwrap()).unwrap()
    }

    #[test]
    fn arguments_become_the_keys_of_the_table() {
        assert_eq!(
            table("fabrikam.example --pool edges-a"),
            "sip_domain = \"fabrikam.example\"\npool = \"edges-a\"\n"
        );
        let whole = table(
            "contoso.example --pool p --name sip.contoso.example --name *.voip.contoso.example --alpn sip \
             --certificate /c/chain.pem --key /c/key.pem --client-certificate required --client-roots system \
             --client-crl /c/a.crl --client-crl /c/b.crl --identity mirror",
        );
        for line in [
            "names = [\"sip.contoso.example\", \"*.voip.contoso.example\"]",
            "alpn = [\"sip\"]",
            "certificate = \"/c/chain.pem\"",
            "key = \"/c/key.pem\"",
            "client_certificate = \"required\"",
            "client_roots = \"system\"",
            "client_crls = [\"/c/a.crl\", \"/c/b.crl\"]",
            "identity = \"mirror\"",
        ] {
            assert!(whole.lines().any(|written| written == line), "{whole}");
        }
    }

    #[test]
    fn relative_paths_start_where_the_shell_is() {
        let here = std::env::current_dir().unwrap();
        let table = table("contoso.example --pool p --certificate certs/c.pem --key certs/c.key");
        let expected = format!("certificate = \"{}\"", here.join("certs/c.pem").display());
        assert!(table.contains(&expected), "{table}");
    }
}
