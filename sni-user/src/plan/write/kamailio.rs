//! Outbound federation through Kamailio, which shows partners the certificate of the domain that a message is from.
//!
//! Kamailio sends over any connection that it has to an address. What keeps the certificates apart is the address that it sends from: each has its own.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::Writing;
use crate::plan::FEDERATION_PORT;

/// A worked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KamailioFiles {
    /// `kamailio.cfg`.
    pub main: String,
    /// `tls.cfg`, beside it.
    pub tls: String,
}

/// What does not depend on the plan.
const MODULES: &str = r#"#!KAMAILIO
# Written by `snigate plan --outbound kamailio`: a worked configuration for outbound federation, to be completed by hand.
# The pool sends what goes to federated partners here. Each message leaves by the address, and with the certificate, of the domain that it is from.

debug=2
log_stderror=no
children=4
tcp_children=4
enable_tls=yes
auto_aliases=no
# Partners and Edges keep silent connections.
tcp_connection_lifetime=7200
tcp_keepalive=yes

loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "ipops.so"
loadmodule "htable.so"
loadmodule "tls.so"

modparam("tls", "config", "tls.cfg")
modparam("tls", "xavp_cfg", "tls")
"#;

const ROUTES: &str = r#"
request_route {
    if (!mf_process_maxfwd_header("10")) {
        sl_send_reply("483", "Too Many Hops");
        exit;
    }
    # Nobody but the pool sends here; its addresses stand in POOL.
    if (!is_in_subnet("$si", POOL)) {
        sl_send_reply("403", "Not from here");
        exit;
    }
    if (is_method("INVITE|SUBSCRIBE")) {
        record_route();
    }
    loose_route();
    route(CERTIFICATE);
    route(PARTNER);
    if (!t_relay()) {
        sl_reply_error();
    }
}

# The domain that the message is from decides: a certificate, and the address that is its own.
route[CERTIFICATE] {
    $var(from) = $(fd{s.tolower});
    if ($sht(certificate=>$var(from)) == $null) {
        xlog("L_WARN", "no certificate for the domain $var(from)\n");
        sl_send_reply("403", "No certificate for this domain");
        exit;
    }
    $var(certificate) = $sht(certificate=>$var(from));
    $fs = $sht(socket=>$var(certificate));
    $xavp(tls=>server_id) = $var(certificate);
}

# Where the partner is: the record of federation in the DNS, whose target has to lie in the partner's domain.
# For another way, start with -A 'NEXT_HOP="sip:ADDRESS:5061;transport=tls"' -A 'SERVER_NAME="sip.partner.example"'.
route[PARTNER] {
#!ifdef NEXT_HOP
    $du = NEXT_HOP;
    $xavp(tls[0]=>server_name) = SERVER_NAME;
#!else
    $var(to) = $(rd{s.tolower});
    if (!srv_query("_sipfederationtls._tcp.$var(to)", "partner") || $srvquery(partner=>count) == 0) {
        sl_send_reply("404", "No federation with this domain");
        exit;
    }
    $var(target) = $(srvquery(partner=>target[0]){s.tolower});
    if ($var(target) != "sip." + $var(to)) {
        sl_send_reply("403", "The federation record points out of its domain");
        exit;
    }
    $du = "sip:" + $var(target) + ":" + $srvquery(partner=>port[0]) + ";transport=tls";
    $xavp(tls[0]=>server_name) = $var(target);
#!endif
}
"#;

impl Writing<'_> {
    /// The files, for an outbound gateway with these addresses: the first is the first certificate's, and so on.
    ///
    /// `pool` is the prefix that the pool's servers are in, `certificates` the directory with certificates and keys, as seen from the files, and `roots` a file
    /// with the CAs that partners' certificates may be from.
    ///
    /// # Errors
    /// How many addresses there must be, when there are fewer.
    pub fn kamailio(
        &self,
        addresses: &[IpAddr],
        pool: &str,
        (certificates, roots): (&str, &str),
    ) -> Result<KamailioFiles, usize> {
        let all = &self.plan.certificates;
        if addresses.len() < all.len() {
            return Err(all.len());
        }
        let mut main = format!("{MODULES}\n#!ifndef POOL\n#!define POOL \"{pool}\"\n#!endif\n");
        let mut tls = String::from(
            "# Written by `snigate plan --outbound kamailio`. The script chooses a client profile by its server_id; Kamailio wants profiles for any address to\n\
             # have different server_names as well, and partners are asked for the name that the script says.\n\
             # Connections from the pool; put the gateway's own certificate here.\n\
             [server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n",
        );
        if let Some(first) = all.first() {
            add(&mut tls, &files(certificates, first.name.as_str()));
        }
        add(
            &mut tls,
            &format!(
                "\n# What names no certificate goes out with none, and partners refuse it.\n[client:default]\n{}",
                verified(roots)
            ),
        );
        let mut tables = String::from(
            "\nmodparam(\"htable\", \"htable\", \"certificate=>size=14\")\nmodparam(\"htable\", \"htable\", \"socket=>size=10\")\n\nevent_route[htable:mod-init] {\n",
        );
        for (certificate, address) in all.iter().zip(addresses) {
            let socket = format!("tls:{}", SocketAddr::new(*address, FEDERATION_PORT));
            let name = &certificate.name;
            add(&mut main, &format!("listen={socket}\n"));
            add(
                &mut tables,
                &format!("    $sht(socket=>{name}) = \"{socket}\";\n"),
            );
            add(
                &mut tls,
                &format!(
                    "\n[client:any]\nserver_id = {name}\nserver_name = {name}\n{}{}",
                    verified(roots),
                    files(certificates, name.as_str())
                ),
            );
        }
        for placement in &self.plan.placements {
            let name = match placement.certificate {
                Some(certificate) => &all[certificate].name,
                // The first has the provider's name, too.
                None => match all.first() {
                    Some(first) => &first.name,
                    None => continue,
                },
            };
            add(
                &mut tables,
                &format!(
                    "    $sht(certificate=>{}) = \"{name}\";\n",
                    placement.domain
                ),
            );
        }
        tables.push_str("}\n");
        Ok(KamailioFiles {
            main: main + &tables + ROUTES,
            tls,
        })
    }
}

/// How partners are verified: their chain. That the name is the one asked for, Kamailio does not check.
fn verified(roots: &str) -> String {
    format!(
        "method = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\nca_list = {roots}\n"
    )
}

fn files(directory: &str, name: &str) -> String {
    format!("certificate = {directory}/{name}.pem\nprivate_key = {directory}/{name}.key\n")
}

fn add(text: &mut String, more: &str) {
    text.write_str(more).expect("memory");
}
