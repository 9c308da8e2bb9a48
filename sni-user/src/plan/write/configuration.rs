//! The gateway's configuration.

use std::fmt::Write as _;

use super::{Writing, toml_list};
use crate::{
    config::SourceMode,
    plan::{EdgeGroup, Mode, Placement},
};

impl Writing<'_> {
    /// The main file, to be completed by hand.
    pub fn main_configuration(&self, include: &str) -> String {
        format!(
            "# Made by `snigate plan`, once; it is yours from here on. The annotated sample has all that may be in it.\n\
             \n\
             [gateway]\n\
             interfaces = {interfaces}\n\
             hook = \"auto\"\n\
             seed = \"snigate\"                           # any text, the same on every gateway\n\
             include = [\"{include}\"]                    # written anew by each plan\n",
            interfaces = toml_list(&self.site.interfaces),
        )
    }

    /// Edges, pools, IP sets and domains.
    pub fn configuration(&self) -> String {
        let mut text = "# Written by `snigate plan`, anew each time: what you change here is lost. Change the list of domains.\n\n".to_owned();
        self.edges(&mut text);
        match self.plan.mode {
            Mode::San => self.steered_sets(&mut text),
            Mode::PerCustomer => self.inspected_set(&mut text),
        }
        for placement in &self.plan.placements {
            self.domain(&mut text, placement);
        }
        text
    }

    fn edges(&self, text: &mut String) {
        let used = match self.plan.mode {
            Mode::San => self.plan.certificates.iter().map(|it| it.slot).collect(),
            Mode::PerCustomer => vec![0],
        };
        for (slot, group) in self.site.edges.iter().enumerate() {
            // Edges without a certificate would be checked for health, and nobody would get to them.
            if !used.contains(&slot) {
                continue;
            }
            for (name, address) in members(group) {
                add(
                    text,
                    &format!("[[edge]]\nname = \"{name}\"\naddress = \"{address}\"\n"),
                );
                if self.site.source == SourceMode::Gateway {
                    add(text, "source = \"gateway\"\n");
                }
                if let (Mode::PerCustomer, Some((name, roots))) = (self.plan.mode, &self.site.tls) {
                    let roots = roots.as_deref().unwrap_or("system");
                    add(
                        text,
                        &format!(
                            "tls = {{ name = \"{name}\", roots = {} }}\n",
                            toml_text(roots)
                        ),
                    );
                }
                text.push('\n');
            }
            let names: Vec<_> = members(group).map(|(name, _)| name).collect();
            let (pool, edges) = (&group.name, toml_list(&names));
            add(
                text,
                &format!("[[pool]]\nname = \"{pool}\"\nedges = {edges}\n\n"),
            );
        }
    }

    /// One IP set for each certificate; the last may be for several.
    fn steered_sets(&self, text: &mut String) {
        let mut shared = false;
        for certificate in &self.plan.certificates {
            let way = self.site.way(self.plan, certificate);
            let Some(edges) = way.edges else { continue };
            let (addresses, pool) = (toml_list(&way.addresses), &edges.name);
            if way.by_name && !shared {
                shared = true;
                add(
                    text,
                    &format!(
                        "# More certificates than addresses: the server name decides which one it is.\n\
                     [[ip_set]]\nname = \"shared\"\naddresses = {addresses}\ninspect = true\ndefault = \"{pool}\"\n\n"
                    ),
                );
            } else if !way.by_name {
                let name = &certificate.name;
                add(
                    text,
                    &format!(
                        "[[ip_set]]\nname = \"{name}\"\naddresses = {addresses}\nsteer = \"{pool}\"\n\n"
                    ),
                );
            }
        }
    }

    fn inspected_set(&self, text: &mut String) {
        let addresses = self.site.addresses.concat();
        let (Some(edges), Some(first)) = (self.site.edges.first(), addresses.first()) else {
            return;
        };
        let (addresses, pool) = (toml_list(&addresses), &edges.name);
        // Who asks for no name, or for the provider's, gets the Edge's own certificate.
        add(
            text,
            &format!(
                "[[ip_set]]\nname = \"shared\"\naddresses = {addresses}\ninspect = true\ndefault = \"{pool}\"\n\n"
            ),
        );
        let host = match first {
            std::net::IpAddr::V4(first) => first.to_string(),
            std::net::IpAddr::V6(first) => format!("[{first}]"),
        };
        add(
            text,
            &format!(
                "# `snigate ca init` makes the files.\n[identity]\nca = \"ca/mirror.pem\"\nkey = \"ca/mirror.key\"\ncrl_url = \"http://{host}/mirror.crl\"\n\n"
            ),
        );
    }

    fn domain(&self, text: &mut String, placement: &Placement) {
        let certificate = match placement.certificate {
            Some(certificate) => &self.plan.certificates[certificate],
            None if placement.reason.is_everywhere() => &self.plan.certificates[0],
            None => return,
        };
        let Some(edges) = self.site.way(self.plan, certificate).edges else {
            return;
        };
        let (domain, pool) = (&placement.domain, &edges.name);
        add(
            text,
            &format!("[[domain]]\nsip_domain = \"{domain}\"\npool = \"{pool}\"\n"),
        );
        if self.plan.mode == Mode::PerCustomer {
            let name = &certificate.name;
            add(
                text,
                &format!(
                    "certificate = \"certs/{name}.pem\"\nkey = \"certs/{name}.key\"\nclient_certificate = \"required\"\nidentity = \"mirror\"\n"
                ),
            );
        }
        text.push('\n');
    }
}

/// Edges of a pool with names of their own.
fn members(group: &EdgeGroup) -> impl Iterator<Item = (String, std::net::SocketAddr)> {
    let several = group.addresses.len() > 1;
    group
        .addresses
        .iter()
        .enumerate()
        .map(move |(nth, address)| {
            let name = match several {
                true => format!("{}-{}", group.name, nth + 1),
                false => group.name.to_string(),
            };
            (name, *address)
        })
}

fn add(text: &mut String, more: &str) {
    text.write_str(more).expect("memory");
}

/// A text that somebody wrote, as TOML has it.
fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}
