//! Lines for the Skype for Business Server Management Shell.

use super::Writing;
use crate::plan::{Federation, Issue, Mode};

/// Where requests and certificates are on an Edge.
const DIRECTORY: &str = r"C:\snigate";

impl Writing<'_> {
    /// For the administrators of the Edges, and what they send to partners.
    pub fn power_shell(&self) -> String {
        let mut text = format!(
            "# Written by `snigate plan`. Lines for the management shell, to be read and run one by one; files are in {DIRECTORY}.\n\n\
             # In the pool, once: partners find these domains by the DNS, and are found by it.\n\
             Set-CsAccessEdgeConfiguration -AllowFederatedUsers $true -UseDnsSrvRouting -EnablePartnerDiscovery $true\n\n"
        );
        match self.plan.mode {
            Mode::San => self.edge_certificates(&mut text),
            Mode::PerCustomer => text.push_str(&format!(
                "# On each Edge: the gateway's private CA, and on no other computer. Certificates of customers are at the gateway.\n\
                 Import-Certificate -FilePath {} -CertStoreLocation 'Cert:\\LocalMachine\\Root'\n\n",
                quoted(&format!("{DIRECTORY}\\mirror.pem"))
            )),
        }
        self.partners(&mut text);
        text
    }

    fn edge_certificates(&self, text: &mut String) {
        for certificate in &self.plan.certificates {
            let name = &certificate.name;
            let way = self.site.way(self.plan, certificate);
            let edges = way.edges.map_or_else(String::new, |edges| {
                let addresses: Vec<_> = edges.addresses.iter().map(ToString::to_string).collect();
                format!(", on {} ({})", edges.name, addresses.join(", "))
            });
            if certificate.issue == Issue::No {
                text.push_str(&format!("# {name}{edges}: stays as it is.\n\n"));
                continue;
            }
            let names: Vec<_> = certificate.names().map(|name| name.to_string()).collect();
            let [request, issued] =
                ["req", "cer"].map(|ending| quoted(&format!("{DIRECTORY}\\{name}.{ending}")));
            let friendly = quoted(name.as_str());
            text.push_str(&format!(
                "# {name}{edges}: the request ({name}.cnf is the same for OpenSSL) …\n\
                 Request-CsCertificate -New -Type AccessEdgeExternal -FriendlyName {friendly} -KeySize 2048 -PrivateKeyExportable $true \
                 -DomainName {} -Output {request}\n\
                 # … and what the CA has made of it.\n\
                 Import-CsCertificate -Path {issued} -PrivateKeyExportable $true\n\
                 $certificate = Get-ChildItem 'Cert:\\LocalMachine\\My' | Where-Object FriendlyName -eq {friendly} | Sort-Object NotBefore | Select-Object -Last 1\n\
                 Set-CsCertificate -Type AccessEdgeExternal -Thumbprint $certificate.Thumbprint\n\n",
                quoted(&names.join(",")),
            ));
        }
    }

    fn partners(&self, text: &mut String) {
        let Some(provider) = self.provider_name() else {
            return;
        };
        let proxy = quoted(provider.as_str());
        let of = |federation| {
            let placements = self.plan.placements.iter();
            placements.filter(move |it| it.federation == federation)
        };
        if of(Federation::Explicit).next().is_some() {
            text.push_str("# For administrators of partners: domains that are entered by hand.\n");
        }
        for placement in of(Federation::Explicit) {
            let domain = quoted(placement.domain.as_str());
            text.push_str(&format!(
                "New-CsAllowedDomain -Identity {domain} -ProxyFqdn {proxy}\n"
            ));
        }
        if of(Federation::Provider).next().is_some() {
            text.push_str(&format!(
                "# For administrators of partners: the provider, with all domains that are found by it.\n\
                 New-CsHostingProvider -Identity {proxy} -ProxyFqdn {proxy} -Enabled $true -EnabledSharedAddressSpace $false -HostsOCSUsers $false \
                 -VerificationLevel UseSourceVerification -IsLocal $false\n"
            ));
        }
    }
}

/// In single quotation marks nothing but they themselves means anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
