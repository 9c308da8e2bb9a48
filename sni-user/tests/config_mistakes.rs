//! One configuration for each kind of mistake: what is reported, where, and what it says to write instead.

use std::path::Path;

use sni_user::config::{Config, Diagnostic, Diagnostics, Severity};

/// A text with one mistake. The lines that are meant end in `#!`, the second place of a finding in `#?`.
struct Row {
    text: &'static str,
    says: &'static str,
    help: &'static str,
}

const fn row(text: &'static str, says: &'static str, help: &'static str) -> Row {
    Row { text, says, help }
}

/// What the rows below are added to.
const GATEWAY: &str = r#"
[gateway]
interfaces = ["wan0"]
"#;
const REST: &str = r#"
[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
tls = { name = "edge-a.hoster.example" }
[[pool]]
name = "edges-a"
edges = ["edge-a"]
[[ip_set]]
name = "shared"
addresses = ["198.51.100.10"]
inspect = true
default = "edges-a"
"#;

#[rustfmt::skip] // a table, with a line for most rows
const IN_GATEWAY: &[Row] = &[
    row("interfaces = []   #!", "`interfaces` of [gateway] is empty", "write `interfaces = [\"wan0\""),
    row("interfaces = \"wan0\"   #!", "takes a list, and this is a string", "write `interfaces = [\"wan0\"]`"),
    row("interfaces = [\"wan0\", 7]   #!", "takes a string, and this is an integer", "write a string"),
    row("interfaces = [\"wan0\", \"wan0\"]   #! #?", "\"wan0\" is listed twice", "leave one of them out"),
    row("interfaces = [\"wan0123456789abc\"]   #!", "longer than 15 bytes", "`ip link`"),
    row("interfaces = [\"wan 0\"]   #!", "has a character", "`ip link`"),
    row("interfaces = [\"\"]   #!", "it is empty", "`ip link`"),
    row("interface = [\"wan0\"]   #!\ninterfaces = [\"wan0\"]", "[gateway] has no key `interface`", "write `interfaces`"),
    row("interfaces = [\"wan0\"]\nidle_timout = \"2h\"   #!", "no key `idle_timout`", "write `idle_timeout`"),
    row("interfaces = [\"wan0\"]\ncolour = \"red\"   #!", "no key `colour`", "the keys of [gateway] are `"),
    row("interfaces = [\"wan0\"]\nhook = \"xpd\"   #!", "\"xpd\" is not one of the choices", "write \"xdp\""),
    row("interfaces = [\"wan0\"]\nhook = \"offload\"   #!", "not one of the choices", "write one of \"auto\", \"xdp\""),
    row("interfaces = [\"wan0\"]\nhook = true   #!", "takes a word, and this is true or false", "such as \"auto\""),
    row("interfaces = [\"wan0\"]\nseed = 1   #!", "takes a string", "write a string"),
    row("interfaces = [\"wan0\"]\nmetrics = \"127.0.0.1\"   #!", "has no port", "write \"127.0.0.1:5061\""),
    row("interfaces = [\"wan0\"]\nmetrics = \"127.0.0.1:0\"   #!", "`metrics` has port 0", "127.0.0.1:9461"),
    row("interfaces = [\"wan0\"]\nmetrics = \"198.51.100.10:5061\"   #!", "is also a service", "only the monitoring reaches"),
    row("interfaces = [\"wan0\"]\ndatapath_time = \"on\"   #!", "takes true or false, and this is a string", "write `datapath_time = true`"),
    row("interfaces = [\"wan0\"]\nidle_timeout = \"29m\"   #!", "shorter than 30m", "from \"30m\" to"),
    row("interfaces = [\"wan0\"]\nidle_timeout = \"2 fortnights\"   #!", "is not a duration", "\"2h\""),
    row("interfaces = [\"wan0\"]\nidle_timeout = \"2000y\"   #!", "longer than 30days", "\"30days\""),
    row("interfaces = [\"wan0\"]\nidle_timeout = 7200   #!", "a duration with its unit", "write `idle_timeout = \"7200s\"`"),
    row("interfaces = [\"wan0\"]\nhello_timeout = \"0s\"   #!", "shorter than 100ms", "from \"100ms\" to"),
    row("interfaces = [\"wan0\"]\nmax_flows = 0   #!", "`max_flows` cannot be 0", "from 1 to 16000000"),
    row("interfaces = [\"wan0\"]\nmax_flows = 16_000_001   #!", "cannot be 16000001", "from 1 to 16000000"),
    row("interfaces = [\"wan0\"]\nmax_flows = 99999999999999999999   #!", "cannot be 9999", "from 1 to 16000000"),
    row("interfaces = [\"wan0\"]\nmax_flows = \"many\"   #!", "takes a number", "from 1 to 16000000"),
    row("interfaces = [\"wan0\"]\npin_path = \"\"   #!", "is not a path", "write a path"),
    row(
        "interfaces = [\"wan0\"]\ncontrol = \"/run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789/sock\"   #!",
        "107 bytes",
        "write a shorter path",
    ),
    row("interfaces = [\"wan0\"]\ninclude = [\"nowhere.toml\"]   #!", "there is no file \"nowhere.toml\"", "create it"),
    row("interfaces = [\"wan0\"]\ninclude = [\"***.toml\"]   #!", "is not a pattern", "domains.d/*.toml"),
    row("interfaces = [\"wan0\"]\ninclude = \"domains.d/*.toml\"   #!", "takes a list", "write `include = [\"domains.d/*.toml\"]`"),
];

#[rustfmt::skip] // a table, with a line for most rows
const BELOW: &[Row] = &[
    // Tables and TOML.
    row("[[edges]]   #!\nname = \"x\"", "no table `edges`", "write `[[edge]]`"),
    row("[[listener]]   #!\nname = \"x\"", "no table `listener`", "the tables are `gateway`"),
    row("[limit]   #!", "no table `limit`", "write `[limits]`"),
    row("identity = 1   #!", "`identity` takes a table", "write a table: [identity]"),
    row("edge-b = \"203.0.113.11", "this is not TOML", "`key = value`"),
    row("x = 1\nx = 2   #!", "this is not TOML: duplicate key", "`key = value`"),
    // Names.
    row("[[edge]]   #!\naddress = \"203.0.113.11:5061\"", "[[edge]] needs `name`", "write `name = \"edge-a\"`"),
    row("[[edge]]\nname = \"an edge\"   #!\naddress = \"203.0.113.11:5061\"", "has a character", "letters, digits"),
    row("[[edge]]\nname = \"-b\"   #!\naddress = \"203.0.113.11:5061\"", "does not start with", "letters, digits"),
    row("[[edge]]\nname = \"\"   #!\naddress = \"203.0.113.11:5061\"", "is empty", "letters, digits"),
    row(
        "[[edge]]\nname = \"a123456789012345678901234567890123456789012345678901234567890123\"   #!\naddress = \"203.0.113.11:5061\"",
        "is too long",
        "63",
    ),
    row(
        "[[edge]]\nname = \"edge-b\"   #?\naddress = \"203.0.113.11:5061\"\n[[edge]]\nname = \"edge-b\"   #!\naddress = \"203.0.113.12:5061\"\n",
        "two [[edge]] tables have the name \"edge-b\"",
        "another name",
    ),
    row(
        "[[pool]]\nname = \"p\"   #?\nedges = [\"edge-a\"]\n[[pool]]\nname = \"p\"   #!\nedges = [\"edge-a\"]",
        "two [[pool]] tables have the name \"p\"",
        "another name",
    ),
    row(
        "[[ip_set]]\nname = \"two\"   #?\naddresses = [\"198.51.100.20\"]\nsteer = \"edges-a\"\n\
         [[ip_set]]\nname = \"two\"   #!\naddresses = [\"198.51.100.21\"]\nsteer = \"edges-a\"",
        "two [[ip_set]] tables have the name \"two\"",
        "another name",
    ),
    // Edges.
    row("[[edge]]   #!\nname = \"edge-b\"", "[[edge]] needs `address`", "write `address = \"203.0.113.10:5061\"`"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11\"   #!", "has no port", "write \"203.0.113.11:5061\""),
    row("[[edge]]\nname = \"b\"\naddress = \"2001:db8::11\"   #!", "has no port", "write \"[2001:db8::11]:5061\""),
    row("[[edge]]\nname = \"b\"\naddress = \"edge.example:5061\"   #!", "is not an address with a port", "names are not looked up"),
    row("[[edge]]\nname = \"b\"\naddress = \"2001:db8:0:0:0:0:0:0:1:5061\"   #!", "not an address", "in brackets"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:0\"   #!", "has port 0", "such as 5061"),
    row("[[edge]]\nname = \"b\"\naddress = \"127.0.0.1:5061\"   #!", "a loopback address", "of a host"),
    row("[[edge]]\nname = \"b\"\naddress = \"[fe80::1]:5061\"   #!", "a link-local address", "of a host"),
    row(
        "[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"   #?\n[[edge]]\nname = \"c\"\naddress = \"203.0.113.11:5061\"   #!",
        "two [[edge]] tables have the address 203.0.113.11:5061",
        "several pools",
    ),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nsource = \"proxy\"   #!", "\"proxy\" is not one", "\"preserve\", \"gateway\""),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\ntls = true   #!", "`tls` takes a table", "write a table"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\ntls = { roots = \"x\" }   #!", "`tls` of [[edge]] needs `name`", "hoster.example"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\ntls = { name = \"192.0.2.1\" }   #!", "looks like an address", "a DNS name"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nhealth = { intervall = \"5s\" }   #!", "has no key `intervall`", "write `interval`"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nhealth = { fall = 0 }   #!", "`fall` cannot be 0", "from 1 to 255"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nhealth = { tls = \"yes\" }   #!", "takes true or false", "`tls = true`"),
    row("[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nhealth = { options = true }   #!", "asks for a SIP request over TLS", "`tls = true` beside it"),
    // Pools.
    row("[[pool]]   #!\nname = \"p\"", "[[pool]] needs `edges`", "write `edges = [\"edge-a\"]`"),
    row("[[pool]]\nname = \"p\"\nedges = []   #!", "`edges` of [[pool]] is empty", "write `edges = [\"edge-a\"]`"),
    row("[[pool]]\nname = \"p\"\nedges = [\"edge-z\"]   #!", "no [[edge]] with the name \"edge-z\"", "write \"edge-a\""),
    row("[[pool]]\nname = \"p\"\nedges = [\"somewhere\"]   #!", "no [[edge]]", "write one of `edge-a`"),
    row("[[pool]]\nname = \"p\"\nedges = [5]   #!", "`edges` takes names of Edges", "weight = 2"),
    row("[[pool]]\nname = \"p\"\nedges = [\"edge-a\", \"edge-a\"]   #! #?", "in this [[pool]] twice", "weight = 2"),
    row("[[pool]]\nname = \"p\"\nedges = [{ name = \"edge-a\", weight = 0 }]   #!", "`weight` cannot be 0", "from 1 to 256"),
    row("[[pool]]\nname = \"p\"\nedges = [{ name = \"edge-a\", weight = 257 }]   #!", "`weight` cannot be 257", "from 1 to 256"),
    row("[[pool]]\nname = \"p\"\nedges = [{ name = \"edge-a\", wieght = 2 }]   #!", "no key `wieght`", "write `weight`"),
    row("[[pool]]\nname = \"p\"\nedges = [{ weight = 2 }]   #!", "needs `name`", "write `name = \"edge-a\"`"),
    // IP sets.
    row("[[ip_set]]   #!\nname = \"two\"\nsteer = \"edges-a\"", "[[ip_set]] needs `addresses`", "198.51.100.10"),
    row("[[ip_set]]\nname = \"two\"\naddresses = []   #!\nsteer = \"edges-a\"", "is empty", "198.51.100.10"),
    row("[[ip_set]]\nname = \"two\"\naddresses = \"198.51.100.20\"   #!\nsteer = \"edges-a\"", "takes a list", "[\"198.51.100.20\"]"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20:5061\"]   #!\nsteer = \"edges-a\"", "is not an address", "5061 into `ports`"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.0/24\"]   #!\nsteer = \"edges-a\"", "is not an address", "by itself"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"[2001:db8::1]\"]   #!\nsteer = \"edges-a\"", "is not an address", "without the brackets"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.256\"]   #!\nsteer = \"edges-a\"", "is not an address", "\"198.51.100.10\""),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"0.0.0.0\"]   #!\nsteer = \"edges-a\"", "the unspecified address", "of a host"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"224.0.0.1\"]   #!\nsteer = \"edges-a\"", "a multicast address", "of a host"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"255.255.255.255\"]   #!\nsteer = \"edges-a\"", "the broadcast address", "of a host"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"127.0.0.1\"]   #!\nsteer = \"edges-a\"", "a loopback address", "of a host"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"169.254.0.1\"]   #!\nsteer = \"edges-a\"", "a link-local address", "of a host"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"203.0.113.10\"]   #!\nsteer = \"edges-a\"", "also the address of an Edge", "behind the gateway"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\", \"198.51.100.20\"]   #! #?\nsteer = \"edges-a\"", "in this [[ip_set]] twice", "leave one"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.10\"]   #!\nsteer = \"edges-a\"", "port 5061 of 198.51.100.10 is in two [[ip_set]]", "different `ports`"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nports = []   #!\nsteer = \"edges-a\"", "`ports` of [[ip_set]] is empty", "[5061]"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nports = 5061   #!\nsteer = \"edges-a\"", "takes a list", "write `ports = [5061]`"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nports = [0]   #!\nsteer = \"edges-a\"", "`ports` cannot be 0", "from 1 to 65535"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nports = [65536]   #!\nsteer = \"edges-a\"", "cannot be 65536", "from 1 to 65535"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nports = [443, 443]   #! #?\nsteer = \"edges-a\"", "port 443 is in this [[ip_set]] twice", "leave one"),
    row("[[ip_set]]   #!\nname = \"two\"\naddresses = [\"198.51.100.20\"]", "says nothing about what to do", "`steer = \"<pool>\"`, or `inspect = true`"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = false   #!", "says nothing about what to do", "inspect = true"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\nsteer = \"edges-a\"   #!", "cannot both", "leave one"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"edges-a\"\ndefault = \"edges-a\"   #!", "`default` means something only", "inspect = true"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"edges-a\"\nbind = false   #!", "`bind` means something only", "inspect = true"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"edges-b\"   #!", "no [[pool]] with the name \"edges-b\"", "write \"edges-a\""),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\ndefault = \"edgesa\"   #!", "no [[pool]]", "write \"edges-a\""),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"2001:db8:1::10\"]   #?\nsteer = \"edges-a\"   #!", "\"edges-a\" has no IPv6 Edge", "add an IPv6 Edge"),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"2001:db8:1::10\"]   #?\ninspect = true\ndefault = \"edges-a\"   #!", "no IPv6 Edge", "add an IPv6 Edge"),
    // Domains.
    row("[[domain]]   #!\npool = \"edges-a\"", "[[domain]] needs `sip_domain`", "fabrikam.example"),
    row("[[domain]]   #!\nsip_domain = \"fabrikam.example\"", "[[domain]] needs `pool`", "edges-a"),
    row("[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"edges-b\"   #!", "no [[pool]]", "write \"edges-a\""),
    row("[[domain]]\nsip_domain = \"fabrikam_example\"   #!\npool = \"edges-a\"", "is not a host name", "sip.fabrikam.example"),
    row("[[domain]]\nsip_domain = \"fabrikam.example.\"   #!\npool = \"edges-a\"", "ends with a dot", "write \"fabrikam.example\""),
    row("[[domain]]\nsip_domain = \"*.fabrikam.example\"   #!\npool = \"edges-a\"", "has a wildcard", "`names`"),
    row("[[domain]]\nsip_domain = \"fabrikam.example\"\nnames = []   #!\npool = \"edges-a\"", "`names` of [[domain]] is empty", "sip.fabrikam.example"),
    row("[[domain]]\nsip_domain = \"fabrikam.example\"\nnames = [\"sip.*.example\"]   #!\npool = \"edges-a\"", "wildcard in the wrong place", "leftmost label"),
    row("[[domain]]\nsip_domain = \"fabrikam.example\"\nnames = [\"s*.fabrikam.example\"]   #!\npool = \"edges-a\"", "wildcard in the wrong place", "leftmost label"),
    row(
        "[[domain]]\nsip_domain = \"fabrikam.example\"   #?\npool = \"edges-a\"\n[[domain]]\nsip_domain = \"Fabrikam.Example\"   #!\npool = \"edges-a\"",
        "two [[domain]] tables are for \"fabrikam.example\"",
        "leave one",
    ),
    row(
        "[[domain]]\nsip_domain = \"fabrikam.example\"   #?\npool = \"edges-a\"\n\
         [[domain]]\nsip_domain = \"contoso.example\"\nnames = [\"SIP.fabrikam.example\"]   #!\npool = \"edges-a\"",
        "the server name \"sip.fabrikam.example\" is defined twice",
        "leave it out",
    ),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\ncertificate = \"a.pem\"   #!", "a `certificate` and no `key`", "write `key ="),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nkey = \"a.key\"   #!", "a `key` and no `certificate`", "write `certificate ="),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nclient_certificate = \"required\"   #!", "no `certificate`", "to pass through"),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nclient_roots = \"system\"   #!", "no `certificate`", "to pass through"),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nidentity = \"gateway\"   #!", "no `certificate`", "to pass through"),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\nclient_certificate = \"require\"   #!",
        "\"require\" is not one of the choices",
        "write \"required\"",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\nidentity = \"mirror\"   #!",
        "there is no [identity] table",
        "`ca` and `key`",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\nidentity = \"gateway\"   #!\n\
         [identity]\nca = \"ca.pem\"\nkey = \"ca.key\"\ncrl_url = \"http://192.0.2.1/crl\"",
        "[identity] does not have what it needs",
        "`gateway_certificate` and `gateway_key`",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\nidentity = \"mirror\"\nclient_certificate = \"none\"   #!\n\
         [identity]\nca = \"ca.pem\"\nkey = \"ca.key\"\ncrl_url = \"http://192.0.2.1/crl\"",
        "nothing to mirror",
        "write `client_certificate = \"required\"`",
    ),
    row("[[domain]]\nsip_domain = \"a.example\"\nalpn = []   #!\npool = \"edges-a\"", "`alpn` of [[domain]] is empty", "[\"sip\"]"),
    row("[[domain]]\nsip_domain = \"a.example\"\nalpn = [\"a b\"]   #!\npool = \"edges-a\"", "not the name of an application protocol", "visible"),
    row(
        "[[domain]]\nsip_domain = \"a.example\"   #?\nalpn = [\"sip\", \"h2\"]\npool = \"edges-a\"\n\
         [[domain]]\nsip_domain = \"a.example\"   #!\nalpn = [\"h2\"]\npool = \"edges-a\"",
        "two [[domain]] tables are for \"a.example\"",
        "leave one",
    ),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nclient_crls = [\"a.crl\"]   #!", "no `certificate`", "to pass through"),
    // What only the agent can do.
    row("[[pool]]\nname = \"p\"\nedges = [\"edge-a\"]\nbalance = \"least\"   #!\n", "\"least\" is not one of the choices", "\"least-connections\""),
    row("[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"edges-a\"\nproxy_protocol_from = [\"192.0.2.1/32\"]   #!", "`proxy_protocol_from` means something only", "inspect = true"),
    row(
        "[[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\nproxy_protocol = true   #!\n[[pool]]\nname = \"p\"\nedges = [\"b\"]\n\
         [[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"p\"   #?",
        "\"b\" expects a PROXY protocol header",
        "leave `proxy_protocol` out",
    ),
    // Binding.
    row(
        "[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\nhand_off = false\nbind = true   #!",
        "cannot `bind` connections where `hand_off = false`",
        "leave `bind` out",
    ),
    row(
        "[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\nbind = true   #!\nproxy_protocol_from = [\"192.0.2.0/28\"]",
        "cannot `bind` where `proxy_protocol_from`",
        "leave `bind` out",
    ),
    // ACME.
    row("[acme]   #!", "[acme] needs `directory`", "letsencrypt.org"),
    row("[acme]\ndirectory = \"http://ca.example/dir\"   #!", "is not an https URL", "https://"),
    row(
        "[acme]\ndirectory = \"https://ca.example/dir\"\ncontact = [\"me@hoster.example\"]   #!",
        "is not a URL",
        "write \"mailto:me@hoster.example\"",
    ),
    row("[acme]\ndirectory = \"https://ca.example/dir\"\nchallenge = \"dns\"   #!", "\"dns\" is not one of the choices", "\"dns-01\""),
    row("[acme]\ndirectory = \"https://ca.example/dir\"\nkey_type = \"rsa\"   #!", "\"rsa\" is not one of the choices", "\"rsa-2048\""),
    row("[acme]\ndirectory = \"https://ca.example/dir\"\nrenew_before = \"5m\"   #!", "shorter than 1h", "from \"1h\""),
    row("[acme]\ndirectory = \"https://ca.example/dir\"\nhook = \"x\"   #!", "[acme] has no key `hook`", "dns_hook"),
    row("[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = true   #!", "there is no [acme] table", "write [acme] with `directory"),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nidentity = \"none\"\nacme = \"yes\"   #!\n[acme]\ndirectory = \"https://ca.example/dir\"",
        "`acme` takes true or a table",
        "write `acme = true`",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = { way = \"dns-01\" }   #!\n[acme]\ndirectory = \"https://ca.example/dir\"",
        "`acme` of [[domain]] has no key `way`",
        "`challenge`",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = true\nkey = \"a.key\"   #!\n[acme]\ndirectory = \"https://ca.example/dir\"",
        "both `acme` and `key`",
        "leave `key` out",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nnames = [\"*.a.example\"]   #!\nacme = true   #?\n[acme]\ndirectory = \"https://ca.example/dir\"",
        "\"*.a.example\" can't be proven by HTTP-01",
        "challenge = \"dns-01\"",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = { challenge = \"dns-01\" }   #?\n[acme]   #!\ndirectory = \"https://ca.example/dir\"",
        "[acme] has no `dns_hook`",
        "write `dns_hook",
    ),
    row(
        "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = true   #?\n\
         [[domain]]\nsip_domain = \"a.example\"\nalpn = [\"sip\"]\npool = \"edges-a\"\nacme = { key_type = \"ecdsa-p256\" }   #!\n\
         [acme]\ndirectory = \"https://ca.example/dir\"",
        "share one certificate",
        "the same `acme`",
    ),
    // Identity and limits.
    row("[identity]\nca = \"ca.pem\"   #!\ncrl_url = \"http://192.0.2.1/crl\"", "has `ca` and no `key`", "snigate ca init"),
    row("[identity]\ngateway_key = \"g.key\"   #!", "no `gateway_certificate`", "write `gateway_certificate`"),
    row("[identity]\ncrl_url = \"http://192.0.2.1/crl\"   #!", "a `crl_url` and no `ca`", "leave `crl_url` out"),
    row("[identity]\nca = \"ca.pem\"\nkey = \"ca.key\"\ncrl_url = \"https://192.0.2.1/crl\"   #!", "is not an http URL", "http://"),
    row("[limits]\nsyn_per_source = \"200\"   #!", "\"200\" is not a rate", "\"200/s\""),
    row("[limits]\nsyn_per_source = 200   #!", "a rate with its unit", "write `syn_per_source = \"200/s\"`"),
    row("[limits]\nsyn_per_source = \"0/s\"   #!", "would refuse everyone", "`deny`"),
    row("[limits]\nsyn_per_prefix = \"2000\"   #!", "\"2000\" is not a rate", "\"200/s\""),
    row("[limits]\nhello_per_prefix = 500   #!", "a rate with its unit", "write `hello_per_prefix = \"500/s\"`"),
    row("[limits]\nsyn_per_source = \"200/d\"   #!", "is not a rate", "`/h`"),
    row("[limits]\ndeny = [\"192.0.2.1/24\"]   #!", "has bits set beyond its length", "write \"192.0.2.0/24\""),
    row("[limits]\ndeny = [\"192.0.2.0/33\"]   #!", "is not a prefix", "192.0.2.0/24"),
    row("[limits]\ndeny = [\"192.0.2.0/24\"]   #?\nallow = [\"192.0.2.0/24\"]   #!", "both allowed and denied", "leave it out"),
];

fn check(text: &str) -> Diagnostics {
    match Config::parse(Path::new("/etc/snigate/test.toml"), text) {
        Ok(loaded) => panic!(
            "this should not be accepted:\n{text}\n{:?}",
            loaded.warnings
        ),
        Err(found) => found,
    }
}

fn marked(text: &str, mark: &str) -> Option<usize> {
    text.lines()
        .position(|line| line.contains(mark))
        .map(|index| index + 1)
}

/// The only error, at the marked line, with its phrases.
fn assert_row(row: &Row, text: &str) {
    let found = check(text);
    let errors: Vec<&Diagnostic> = found.errors().collect();
    let [error] = errors.as_slice() else {
        panic!("one error expected for\n{}\nand not\n{found}", row.text)
    };
    assert!(
        error.message().contains(row.says),
        "{:?} is not in\n{found}",
        row.says
    );
    let help = error.suggestion().unwrap_or_default();
    assert!(help.contains(row.help), "{:?} is not in\n{found}", row.help);
    if let Some(line) = marked(text, "#!") {
        assert_eq!(error.location().line(), Some(line), "{found}");
    }
    if let Some(line) = marked(text, "#?") {
        let related: Vec<_> = error.related_locations().map(|(at, _)| at.line()).collect();
        assert_eq!(related, [Some(line)], "{found}");
    }
    assert_eq!(error.location().path(), Path::new("/etc/snigate/test.toml"));
}

#[test]
fn mistakes_in_the_gateway_table() {
    for row in IN_GATEWAY {
        assert_row(row, &format!("[gateway]\n{}\n{REST}", row.text));
    }
}

#[test]
fn mistakes_in_the_other_tables() {
    for row in BELOW {
        // Keys come before the first table of the file.
        let text = match row.text.starts_with('[') {
            true => format!("{GATEWAY}{REST}{}\n", row.text),
            false => format!("{}\n{GATEWAY}{REST}", row.text),
        };
        assert_row(row, &text);
    }
}

#[test]
fn no_gateway_table() {
    let found = check(REST);
    let error = found.errors().next().unwrap();
    assert!(error.message().contains("no [gateway] table"), "{found}");
    assert_eq!(error.location().line(), None);
    let misplaced = check(&format!("interfaces = [\"wan0\"]\n{REST}"));
    let helps: Vec<_> = misplaced
        .errors()
        .filter_map(Diagnostic::suggestion)
        .collect();
    assert!(
        helps.iter().any(|help| help.contains("a key of [gateway]")),
        "{misplaced}"
    );
}

#[test]
fn single_brackets_where_there_may_be_several() {
    let found = check(&format!("{GATEWAY}{REST}").replace("[[edge]]", "[edge]"));
    assert_eq!(found.errors().count(), 1, "{found}");
    let error = found.errors().next().unwrap();
    assert_eq!(error.suggestion(), Some("write `[[edge]]`"), "{found}");
}

#[test]
fn too_many() {
    let pools: String = (0..256)
        .map(|n| format!("[[pool]]\nname = \"p{n}\"\nedges = [\"edge-a\"]\n"))
        .collect();
    let found = check(&format!("{GATEWAY}{REST}{pools}"));
    assert_eq!(found.errors().count(), 1, "{found}");
    assert!(
        found
            .errors()
            .next()
            .unwrap()
            .message()
            .contains("more than 256 [[pool]]")
    );

    let edge = |n: usize| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).unwrap());
        format!("[[edge]]\nname = \"e{n}\"\naddress = \"{address}:5061\"\n")
    };
    let edges: String = (0..4096).map(edge).collect();
    let members: Vec<_> = (0..65).map(|n| format!("\"e{n}\"")).collect();
    let pool = format!("[[pool]]\nname = \"p\"\nedges = [{}]\n", members.join(", "));
    let found = check(&format!("{GATEWAY}{REST}{edges}{pool}"));
    let errors: Vec<_> = found.errors().map(Diagnostic::message).collect();
    let [edges, members] = errors.as_slice() else {
        panic!("{errors:?}")
    };
    assert!(edges.contains("more than 4096 [[edge]]"), "{edges}");
    assert!(members.contains("more than 64 Edges"), "{members}");
}

#[test]
fn more_services_than_the_datapath_holds() {
    let list =
        |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let addresses: Vec<_> = (0..4).map(|n| format!("\"198.51.100.{n}\"")).collect();
    let found = check(&format!(
        "{GATEWAY}{REST}[[ip_set]]\nname = \"two\"\nsteer = \"edges-a\"\naddresses = [{}]\nports = [{}]\n",
        addresses.join(", "),
        list(20_000..40_000),
    ));
    assert_eq!(found.errors().count(), 1, "{found}");
    assert!(
        found
            .to_string()
            .contains("more than 65536 addresses, and ports"),
        "{found}"
    );

    let prefixes: Vec<_> = (0..=65_536_u32)
        .map(|n| format!("\"{}\"", std::net::Ipv4Addr::from(n)))
        .collect();
    let found = check(&format!(
        "{GATEWAY}{REST}[limits]\nallow = [{}]\n",
        prefixes.join(", ")
    ));
    assert_eq!(found.errors().count(), 1);
    assert!(
        found
            .errors()
            .next()
            .unwrap()
            .message()
            .contains("more than 65536 prefixes")
    );
}

/// What is probably not meant, but possible.
#[test]
fn warnings() {
    #[rustfmt::skip] // a table, with a line for most rows
    let rows = [
        row("[[pool]]\nname = \"spare\"   #!\nedges = [\"edge-a\"]", "used by no [[ip_set]] and no [[domain]]", "leave it out"),
        row("[[edge]]\nname = \"spare\"   #!\naddress = \"203.0.113.11:5061\"", "in no [[pool]]", "leave it out"),
        row("[identity]\nca = \"ca.pem\"   #!\nkey = \"ca.key\"", "without a `crl_url`", "crl_url = \"http://"),
        row("[limits]\ndeny = [\"192.0.2.0/24\", \"192.0.2.0/24\"]   #! #?", "in `deny` twice", "leave one"),
        row(
            "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"   #!\n\
             [[ip_set]]\nname = \"six\"\naddresses = [\"2001:db8:1::10\"]   #?\ninspect = true",
            "no IPv6 Edge for partners that come to 2001:db8:1::10",
            "add an IPv6 Edge",
        ),
        row(
            "[[domain]]   #?\nsip_domain = \"a.example\"\npool = \"two\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
             [[edge]]   #!\nname = \"edge-b\"\naddress = \"203.0.113.11:5061\"\n[[pool]]\nname = \"two\"\nedges = [\"edge-b\"]",
            "which has no `tls`",
            "write `tls = {",
        ),
        row(
            "[[pool]]\nname = \"p\"\nedges = [\"edge-a\"]\nbalance = \"least-connections\"   #!\n\
             [[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\nsteer = \"p\"   #?",
            "always balanced by Maglev",
            "leave `balance` out",
        ),
    ];
    for row in rows {
        let text = format!("{GATEWAY}{REST}{}\n", row.text);
        assert_warning(&row, &text);
    }
    #[rustfmt::skip]
    let in_gateway = [
        row("metrics = \"0.0.0.0:9461\"   #!", "on every address of the gateway", "\"127.0.0.1:9461\""),
        row("metrics = \"198.51.100.10:9461\"   #!", "on the public address 198.51.100.10", "only the monitoring reaches"),
    ];
    for row in in_gateway {
        assert_warning(&row, &format!("{GATEWAY}{}\n{REST}", row.text));
    }
    let steered = REST.replace("inspect = true\ndefault", "steer");
    // A domain is reached where connections are steered to its pool.
    let other = "[[pool]]\nname = \"other\"\nedges = [\"edge-a\"]\n";
    let domain = |pool| format!("[[domain]]   #!\nsip_domain = \"a.example\"\npool = \"{pool}\"\n");
    let reached = format!("{GATEWAY}{steered}{}", domain("edges-a"));
    let loaded = Config::parse(Path::new("/etc/snigate/test.toml"), &reached)
        .unwrap_or_else(|found| panic!("{found}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let unreached = row("", "this domain is never reached", "write `inspect = true`");
    assert_warning(
        &unreached,
        &format!("{GATEWAY}{steered}{other}{}", domain("other")),
    );
    let idle = row("", "there is no [[ip_set]]", "write an [[ip_set]]");
    assert_warning(&idle, GATEWAY);
}

fn assert_warning(row: &Row, text: &str) {
    let loaded = Config::parse(Path::new("/etc/snigate/test.toml"), text)
        .unwrap_or_else(|found| panic!("{found}"));
    let found = loaded.warnings;
    assert_eq!(found.len(), 1, "{text}\n{found}");
    let warning = found.iter().next().unwrap();
    assert_eq!(warning.severity(), Severity::Warning);
    assert!(
        warning.message().contains(row.says),
        "{:?} is not in\n{found}",
        row.says
    );
    assert!(
        warning.suggestion().unwrap_or_default().contains(row.help),
        "{found}"
    );
    if let Some(line) = marked(text, "#!") {
        assert_eq!(warning.location().line(), Some(line), "{found}");
    }
    if let Some(line) = marked(text, "#?") {
        let related: Vec<_> = warning
            .related_locations()
            .map(|(at, _)| at.line())
            .collect();
        assert_eq!(related, [Some(line)], "{found}");
    }
}
