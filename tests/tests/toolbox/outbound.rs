//! Outbound federation through the Kamailio that `snigate plan --outbound kamailio` configures: which certificate a partner sees.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use snigate_tests::{
    addresses::{EDGE_A, PARTNER, SIP_TLS, at},
    lab_test,
    peers::{KamailioEdge, Method, Partner, PartnerTls},
    pki::Pki,
};

use crate::rig::{ok, quiet};

const TIMEOUT: Duration = Duration::from_secs(30);
/// The outbound gateway's second address, beside the partner's own.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// What the partner's Edge is called.
const NAME: &str = "sip.partner.example";

#[test]
fn partners_see_the_certificate_of_the_from_domain() {
    // The machine that is the partner in other tests has the outbound gateway, and an Edge is the partner's.
    lab_test("plan-outbound", &quiet(), |lab| {
        let pki = Pki::new("federation", &lab.dir())?;
        lab.partner.ip(&format!("addr add {SECOND}/24 dev eth0"))?;
        lab.write_file(
            "domains.csv",
            "domain,apart\nfabrikam.example,rivals\ncontoso.example,rivals\n",
        )?;
        let addresses = format!("{},{SECOND}", PARTNER.v4);
        ok(
            lab,
            "snigate",
            &format!(
                "plan domains.csv --write plan --outbound kamailio --outbound-address {addresses} \
                 --outbound-pool 198.51.100.0/24 --outbound-roots {}",
                pki.roots().display()
            ),
        )?;
        let directory = lab.dir().join("plan");
        fs::create_dir(directory.join("certs"))?;
        // The longer name is packed first.
        for (certificate, domain) in [("san-1", "fabrikam"), ("san-2", "contoso")] {
            let name = format!("sip.{domain}.example");
            let identity = pki.server(certificate, &[name.as_str()])?;
            let file = |ending: &str| directory.join(format!("certs/{certificate}.{ending}"));
            fs::copy(&identity.chain, file("pem"))?;
            fs::copy(&identity.key, file("key"))?;
        }
        let main = directory.join("outbound/kamailio.cfg");
        // With the partner looked up in the DNS, as it is meant to run.
        ok(lab, "kamailio", &format!("-c -f {}", main.display()))?;

        let edge = KamailioEdge::start(
            lab,
            "partner-edge",
            &lab.edge_a,
            (EDGE_A, SIP_TLS),
            &pki.server("partner", &[NAME])?,
            pki.roots(),
        )?;
        let mut command = lab.partner.command("kamailio");
        command
            .args(["-DD", "-E", "-m", "32", "-M", "8", "-f"])
            .arg(&main)
            .arg("-Y")
            .arg(lab.dir())
            .arg("-w")
            .arg(lab.dir())
            .arg("-A")
            .arg(format!(
                "NEXT_HOP=\"sip:{};transport=tls\"",
                SocketAddr::new(EDGE_A.v4.into(), SIP_TLS)
            ))
            .arg("-A")
            .arg(format!("SERVER_NAME=\"{NAME}\""));
        let mut outbound = lab.spawn("outbound", command)?;
        outbound.wait_for_listener(&lab.partner, SIP_TLS, TIMEOUT)?;

        // One connection of the pool's, with messages from all of its domains mixed.
        let pool = pki.server("pool", &["pool.hoster.example"])?;
        // It is shown the first certificate.
        let tls = PartnerTls::new("sip.fabrikam.example", &pool, &pki, None)?;
        let sender = Partner {
            namespace: &lab.partner,
            source: None,
            tls: Some(&tls),
            timeout: TIMEOUT,
        };
        let mut sip = sender.sip(at(PARTNER.v4.into()))?;
        let mut send = |from: &str| sip.request(Method::Message, from, "partner.example");
        for from in [
            "contoso.example",
            "fabrikam.example",
            "contoso.example",
            "Fabrikam.example",
        ] {
            ensure!(send(from)? == 202, "{from}: {:?}", edge.requests()?);
        }
        ensure!(send("stranger.example")? == 403);

        let seen = edge.requests()?;
        let shown = |source: IpAddr, domain: &str| (source, vec![format!("sip.{domain}.example")]);
        let contoso = shown(SECOND.into(), "contoso");
        let fabrikam = shown(PARTNER.v4.into(), "fabrikam");
        let found: Vec<_> = seen
            .iter()
            .map(|it| (it.source, it.names.clone()))
            .collect();
        ensure!(
            found == [contoso.clone(), fabrikam.clone(), contoso, fabrikam],
            "{seen:?}"
        );
        ensure!(
            seen.iter()
                .all(|it| it.server_name.as_deref() == Some(NAME)),
            "{seen:?}"
        );
        Ok(())
    });
}
