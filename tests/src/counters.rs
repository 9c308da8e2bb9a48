//! TCP counters of a namespace: what the peers' stacks saw, whatever the gateway says.

use std::collections::BTreeMap;

/// What a stack counts when it has had to make up for something: nothing of it happens on a line that loses, delays and
/// reorders nothing, as long as what is between the ends keeps sequence numbers, timestamps, SACK and windows right.
///
/// Challenge ACKs and refused resets are among them: each says that a segment was out of window (RFC 5961).
const REPAIRS: &[&str] = &[
    "TcpRetransSegs",
    "TcpInErrs",
    "TcpInCsumErrors",
    "TcpAttemptFails",
    "TcpExtTCPTimeouts",
    "TcpExtTCPLossProbes",
    "TcpExtTCPLossProbeRecovery",
    "TcpExtTCPSpuriousRTOs",
    "TcpExtTCPLostRetransmit",
    "TcpExtTCPFastRetrans",
    "TcpExtTCPSlowStartRetrans",
    "TcpExtTCPRenoRecovery",
    "TcpExtTCPSackRecovery",
    "TcpExtTCPRenoReorder",
    "TcpExtTCPSACKReorder",
    "TcpExtTCPTSReorder",
    "TcpExtTCPSACKReneging",
    "TcpExtTCPSACKDiscard",
    "TcpExtTCPDSACKIgnoredOld",
    "TcpExtTCPDSACKIgnoredNoUndo",
    "TcpExtTCPDSACKRecv",
    "TcpExtTCPDSACKOfoRecv",
    "TcpExtTCPDSACKOldSent",
    "TcpExtTCPDSACKOfoSent",
    "TcpExtTCPOFOQueue",
    "TcpExtTCPOFOMerge",
    "TcpExtTCPFullUndo",
    "TcpExtTCPPartialUndo",
    "TcpExtTCPLossUndo",
    "TcpExtTCPSynRetrans",
    "TcpExtTCPChallengeACK",
    "TcpExtTCPSYNChallenge",
    "TcpExtOutOfWindowIcmps",
    "TcpExtTCPACKSkippedSynRecv",
    "TcpExtTCPACKSkippedPAWS",
    "TcpExtTCPACKSkippedSeq",
    "TcpExtTCPACKSkippedFinWait2",
    "TcpExtTCPACKSkippedTimeWait",
    "TcpExtTCPACKSkippedChallenge",
    "TcpExtPAWSActive",
    "TcpExtPAWSEstab",
    "TcpExtPAWSOldAck",
    "TcpExtTSEcrRejected",
    "TcpExtBeyondWindow",
];

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

    /// Those of the counters that stand for a repair, and are not zero: of a difference, what happened that should not
    /// have happened on a good line.
    #[must_use]
    pub fn repairs(&self) -> Vec<(&'static str, u64)> {
        let counted = |name: &&'static str| (*name, self.value(name));
        let repairs = REPAIRS.iter().map(counted);
        repairs.filter(|(_, value)| *value != 0).collect()
    }

    /// Those of the repairs that are due to what arrived wrong: with a wrong checksum or an old timestamp. No loss makes that
    /// happen, only a wrong translation.
    #[must_use]
    pub fn corruptions(&self) -> Vec<(&'static str, u64)> {
        const CORRUPTIONS: &[&str] = &[
            "TcpInCsumErrors",
            "TcpExtPAWSActive",
            "TcpExtPAWSEstab",
            "TcpExtTCPACKSkippedPAWS",
            "TcpExtTSEcrRejected",
            "TcpExtTCPSACKReneging",
        ];
        let repairs = self.repairs();
        let corrupted = |(name, _): &(&'static str, u64)| CORRUPTIONS.contains(name);
        repairs.into_iter().filter(corrupted).collect()
    }

    /// Segments that this stack dropped itself after they had arrived, for want of room: a loss that no line is to blame for.
    #[must_use]
    pub fn own_drops(&self) -> u64 {
        [
            "TCPBacklogDrop",
            "TCPRcvQDrop",
            "RcvPruned",
            "TCPZeroWindowDrop",
            "TCPOFODrop",
        ]
        .iter()
        .map(|name| self.value(&format!("TcpExt{name}")))
        .sum()
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
    fn repairs_are_told_from_traffic() {
        let counters = TcpCounters::parse(
            "Tcp: InSegs RetransSegs\nTcp: 9 1\n",
            "TcpExt: TCPChallengeACK PAWSEstab TCPHPHits\nTcpExt: 0 2 5\n",
        );
        assert_eq!(
            counters.repairs(),
            [("TcpRetransSegs", 1), ("TcpExtPAWSEstab", 2)]
        );
        assert_eq!(counters.corruptions(), [("TcpExtPAWSEstab", 2)]);
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
