//! How each kind of value is read from TOML.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use toml::de::DeValue;

use super::{
    decode::{Decode, Input},
    values::{
        AlpnProtocol, Balance, Challenge, ClientCertificate, Hook, HostName, IdentityMode,
        InvalidValue, KeyType, Keyword, Rate, ServerName, SourceMode,
    },
    wording::{quoted, shown},
};

impl Decode for bool {
    fn decode(input: &Input<'_>) -> Option<Self> {
        let DeValue::Boolean(value) = input.value else {
            input.mismatch(
                "true or false",
                &format!(
                    "write `{0} = true` or `{0} = false`, without quotes",
                    input.key
                ),
            );
            return None;
        };
        Some(*value)
    }
}

impl Decode for String {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.text("a string", "\"text\"").map(Into::into)
    }
}

impl Decode for Duration {
    fn decode(input: &Input<'_>) -> Option<Self> {
        if let DeValue::Integer(number) = input.value {
            input.mismatch(
                "a duration with its unit",
                &format!(
                    "write `{} = \"{}s\"` if seconds are meant",
                    input.key,
                    shown(&number.to_string())
                ),
            );
            return None;
        }
        let text = input.text("a duration", "\"5s\" or \"2h\"")?;
        input.accept(humantime::parse_duration(text).map_err(|_| {
            let message = format!("{} is not a duration", quoted(text));
            InvalidValue::new(
                message,
                "write a number with its unit, such as \"5s\", \"30m\" or \"2h\"",
            )
        }))
    }
}

impl Decode for Rate {
    fn decode(input: &Input<'_>) -> Option<Self> {
        if let DeValue::Integer(number) = input.value {
            input.mismatch(
                "a rate with its unit",
                &format!(
                    "write `{} = \"{}/s\"` if seconds are meant",
                    input.key,
                    shown(&number.to_string())
                ),
            );
            return None;
        }
        input.accept(input.text("a rate", "\"200/s\"")?.parse())
    }
}

impl Decode for HostName {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(
            input
                .text("a host name", "\"sip.fabrikam.example\"")?
                .parse(),
        )
    }
}

impl Decode for ServerName {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(
            input
                .text("a server name", "\"sip.fabrikam.example\"")?
                .parse(),
        )
    }
}

impl Decode for AlpnProtocol {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(input.text("an application protocol", "\"sip\"")?.parse())
    }
}

impl Decode for SocketAddr {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(socket_address(
            input.text("an address with a port", "\"203.0.113.10:5061\"")?,
        ))
    }
}

impl Decode for IpAddr {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(address(input.text("an address", "\"198.51.100.10\"")?))
    }
}

impl Decode for IpNet {
    fn decode(input: &Input<'_>) -> Option<Self> {
        input.accept(prefix(input.text("a prefix", "\"192.0.2.0/24\"")?))
    }
}

macro_rules! decode_keywords {
    ($($type:ty),+) => {$(
        impl Decode for $type {
            fn decode(input: &Input<'_>) -> Option<Self> {
                let (example, _) = <$type>::WORDS[0];
                input.accept(<$type>::from_word(input.text("a word", &format!("\"{example}\""))?))
            }
        }
    )+};
}
decode_keywords!(
    Hook,
    SourceMode,
    Balance,
    Challenge,
    ClientCertificate,
    IdentityMode,
    KeyType
);

fn socket_address(text: &str) -> Result<SocketAddr, InvalidValue> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        // Rust's form puts the brackets that an IPv6 address needs.
        let example = SocketAddr::new(address, 5061);
        return Err(InvalidValue::new(
            format!("{} has no port", quoted(text)),
            format!("write \"{example}\""),
        ));
    }
    let help = match text.rsplit_once(':') {
        Some((host, port)) if host.contains(':') && port.parse::<u16>().is_ok() => {
            format!("put an IPv6 address in brackets: \"[{host}]:{port}\"")
        }
        _ => "write an IPv4 address and port such as \"203.0.113.10:5061\", or IPv6 such as \"[2001:db8::10]:5061\"; \
              names are not looked up"
            .into(),
    };
    Err(InvalidValue::new(
        format!("{} is not an address with a port", quoted(text)),
        help,
    ))
}

fn address(text: &str) -> Result<IpAddr, InvalidValue> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = |help: String| {
        Err(InvalidValue::new(
            format!("{} is not an address", quoted(text)),
            help,
        ))
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return wrong(format!(
            "write \"{}\" here and {} into `ports`",
            address.ip(),
            address.port()
        ));
    }
    if text.parse::<IpNet>().is_ok() {
        return wrong("write each address of the prefix by itself".into());
    }
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return wrong(format!("write {} without the brackets", quoted(inner)));
    }
    wrong(
        "write an address such as \"198.51.100.10\" or \"2001:db8:1::10\"; names are not looked up"
            .into(),
    )
}

/// A prefix, or an address that stands for itself alone.
fn prefix(text: &str) -> Result<IpNet, InvalidValue> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        let help = "write an address or a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"";
        return Err(InvalidValue::new(
            format!("{} is not a prefix", quoted(text)),
            help,
        ));
    };
    if prefix != prefix.trunc() {
        let message = format!("{} has bits set beyond its length", quoted(text));
        let help = format!(
            "write \"{}\", or \"{}\" for the address alone",
            prefix.trunc(),
            prefix.addr()
        );
        return Err(InvalidValue::new(message, help));
    }
    Ok(prefix)
}
