//! SIP domains, as far as federation asks more of them than of any host name.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::records::SERVICE;
use crate::config::{HostName, InvalidValue};

/// A SIP domain that partners can discover: a host name of two labels or more, short enough for the names that federation puts in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SipDomain(HostName);

impl SipDomain {
    /// The longest one, in bytes: `_sipfederationtls._tcp.` goes before it, and a name in the DNS has 253.
    pub const MAX_LEN: usize = 253 - SERVICE.len() - 1;

    /// As a host name.
    pub fn host(&self) -> &HostName {
        &self.0
    }

    /// As text, in its A-label form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Where partners connect to, and what the certificate has to name: `sip.<sipdomain>`.
    pub fn federation_name(&self) -> HostName {
        self.0
            .child("sip")
            .expect("a shorter name than the service's, which fits")
    }
}

impl TryFrom<HostName> for SipDomain {
    type Error = InvalidValue;

    fn try_from(host: HostName) -> Result<Self, InvalidValue> {
        if !host.as_str().contains('.') {
            return Err(InvalidValue::new(
                format!("{host} is no domain that partners can look up: it is a single label"),
                "write the whole SIP domain, such as fabrikam.example",
            ));
        }
        if host.as_str().len() > Self::MAX_LEN {
            return Err(InvalidValue::new(
                format!(
                    "{host} is too long: partners look for {SERVICE}.<sipdomain>, and that has more than 253 bytes"
                ),
                format!("write a domain of at most {} bytes", Self::MAX_LEN),
            ));
        }
        Ok(Self(host))
    }
}

impl FromStr for SipDomain {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        text.parse::<HostName>()?.try_into()
    }
}

impl fmt::Display for SipDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for SipDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_form() {
        let domain: SipDomain = "Bücher.Example".parse().unwrap();
        assert_eq!(domain.as_str(), "xn--bcher-kva.example");
        assert_eq!(
            domain.federation_name().as_str(),
            "sip.xn--bcher-kva.example"
        );
    }

    #[test]
    fn what_cannot_federate_is_refused() {
        let refusal = |text: &str| text.parse::<SipDomain>().unwrap_err().to_string();
        assert!(refusal("fabrikam").contains("single label"));
        assert!(refusal("a_b.example").contains("not a host name"));
        let label = "a".repeat(56);
        let longest = format!("{label}.{label}.{label}.{label}.aa");
        assert_eq!(longest.len(), SipDomain::MAX_LEN);
        let domain: SipDomain = longest.parse().unwrap();
        assert_eq!(domain.federation_name().as_str().len(), 234);
        assert!(refusal(&format!("{longest}a")).contains("too long"));
    }
}
