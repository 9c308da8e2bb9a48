//! TCP counters of a namespace: what the peers' stacks saw, whatever the gateway says.

use std::collections::BTreeMap;

/// The counters of `/proc/net/snmp` and `/proc/net/netstat`, named as `nstat` names them: `TcpRetransSegs`,
/// `TcpExtTCPTimeouts`.
#[derive(Clone, Debug, Default)]
pub struct TcpCounters(BTreeMap<String, u64>);

impl TcpCounters {
    /// Reads the two tables: pairs of lines, the first with the names and the second with the values.
    #[must_use]
    pub fn parse(snmp: &str, netstat: &str) -> Self {
        let mut counters = BTreeMap::new();
        for table in [snmp, netstat] {
            let mut lines = table.lines();
            while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                let Some((group, names)) = names.split_once(':') else {
                    continue;
                };
                let values = values.split_whitespace().skip(1);
                for (name, value) in names.split_whitespace().zip(values) {
                    // MaxConn is -1: "no limit", not a count.
                    if let Ok(value) = value.parse() {
                        counters.insert(format!("{group}{name}"), value);
                    }
                }
            }
        }
        Self(counters)
    }

    /// One counter by `nstat`'s name; a counter that this kernel does not have is 0.
    #[must_use]
    pub fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What was added since `before`, without the counters that stand still.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(name, value)| (name.clone(), value.saturating_sub(before.value(name))))
                .filter(|(_, added)| *added != 0)
                .collect(),
        )
    }

    /// Segments sent again.
    #[must_use]
    pub fn retransmitted(&self) -> u64 {
        self.value("TcpRetransSegs")
    }

    /// Segments received with a wrong TCP checksum: a translation that went wrong.
    #[must_use]
    pub fn checksum_errors(&self) -> u64 {
        self.value("TcpInCsumErrors")
    }

    /// Retransmission timers that fired.
    #[must_use]
    pub fn timeouts(&self) -> u64 {
        self.value("TcpExtTCPTimeouts")
    }

    /// Segments refused because their timestamp was old (RFC 7323 section 5).
    #[must_use]
    pub fn paws_rejected(&self) -> u64 {
        self.value("TcpExtPAWSEstab") + self.value("TcpExtPAWSActive")
    }

    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_paired() {
        let snmp = "Tcp: MaxConn RetransSegs InCsumErrors\nTcp: -1 7 2\n";
        let netstat = "TcpExt: PAWSEstab TCPTimeouts\nTcpExt: 3 4\n";
        let counters = TcpCounters::parse(snmp, netstat);
        assert_eq!(counters.retransmitted(), 7);
        assert_eq!(counters.checksum_errors(), 2);
        assert_eq!(counters.timeouts(), 4);
        assert_eq!(counters.paws_rejected(), 3);
        assert_eq!(counters.value("TcpMaxConn"), 0);
    }

    #[test]
    fn a_difference_leaves_out_what_stands_still() {
        let before = TcpCounters::parse("Tcp: RetransSegs InSegs\nTcp: 1 5\n", "");
        let after = TcpCounters::parse("Tcp: RetransSegs InSegs\nTcp: 1 9\n", "");
        let added: Vec<_> = after
            .since(&before)
            .iter()
            .map(|(n, v)| (n.to_owned(), v))
            .collect();
        assert_eq!(added, [("TcpInSegs".to_owned(), 4)]);
    }
}
