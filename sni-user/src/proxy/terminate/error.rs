//! Why a terminated connection failed: a name to count it by, and a sentence for the log.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerIncompatible};

use crate::tls::MirrorError;

/// Why a terminated connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    /// The partner's handshake took too long.
    #[error("the partner did not complete its handshake in time")]
    PartnerTimeout,
    /// The partner's connection ended, or broke.
    #[error("the partner's connection ended: {0}")]
    PartnerGone(io::Error),
    /// The partner and the gateway don't get on.
    #[error("{}", partner_sentence(.0))]
    Partner(TlsError),
    /// There is no Edge to connect to.
    #[error("no Edge could be reached: {0}")]
    NoEdge(Box<dyn Error + Send + Sync>),
    /// The partner's identity could not be mirrored.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The Edge's handshake took too long.
    #[error("the Edge did not complete its handshake in time")]
    EdgeTimeout,
    /// The Edge's connection ended, or broke.
    #[error("the Edge's connection ended: {0}")]
    EdgeGone(io::Error),
    /// The Edge and the gateway don't get on.
    #[error("{}", edge_sentence(.0))]
    Edge(TlsError),
}

impl TerminateError {
    /// Every name that [`Self::name`] has.
    pub const NAMES: &[&'static str] = &[
        "handshake-timeout",
        "partner-gone",
        "client-certificate-missing",
        "client-certificate-revoked",
        "client-certificate-expired",
        "client-certificate-unknown-issuer",
        "client-certificate-list-expired",
        "client-certificate-refused",
        "no-common-version",
        "no-common-cipher",
        "partner-alert",
        "partner-tls",
        "no-edge",
        "mirror",
        "edge-timeout",
        "edge-gone",
        "edge-certificate",
        "edge-alert",
        "edge-tls",
    ];

    /// What went wrong with the partner's stream.
    pub(super) fn partner(error: io::Error) -> Self {
        match error.downcast() {
            Ok(error) => Self::Partner(error),
            Err(error) => Self::PartnerGone(error),
        }
    }

    /// What went wrong with the Edge's stream.
    pub(super) fn edge(error: io::Error) -> Self {
        match error.downcast() {
            Ok(error) => Self::Edge(error),
            Err(error) => Self::EdgeGone(error),
        }
    }

    /// A short name that stays the same, one of [`Self::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::PartnerTimeout => "handshake-timeout",
            Self::PartnerGone(_) => "partner-gone",
            Self::Partner(error) => partner_name(error),
            Self::NoEdge(_) => "no-edge",
            Self::Mirror(_) => "mirror",
            Self::EdgeTimeout => "edge-timeout",
            Self::EdgeGone(_) => "edge-gone",
            Self::Edge(TlsError::InvalidCertificate(_)) => "edge-certificate",
            Self::Edge(TlsError::AlertReceived(_)) => "edge-alert",
            Self::Edge(_) => "edge-tls",
        }
    }

    /// Whether the operator has something to mend, rather than the partner.
    pub(in crate::proxy) fn is_ours(&self) -> bool {
        match self {
            Self::PartnerTimeout | Self::PartnerGone(_) | Self::Partner(_) => false,
            Self::NoEdge(_)
            | Self::Mirror(_)
            | Self::EdgeTimeout
            | Self::EdgeGone(_)
            | Self::Edge(_) => true,
        }
    }

    /// Whether another Edge of the pool may do better. One that refuses the certificate is not the only one to do so.
    pub(super) fn may_differ_elsewhere(&self) -> bool {
        !matches!(
            self,
            Self::Mirror(_) | Self::Edge(TlsError::AlertReceived(_))
        )
    }
}

fn partner_name(error: &TlsError) -> &'static str {
    use CertificateError as Certificate;
    match error {
        TlsError::NoCertificatesPresented => "client-certificate-missing",
        TlsError::InvalidCertificate(reason) => match reason {
            Certificate::Revoked => "client-certificate-revoked",
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "client-certificate-expired"
            }
            Certificate::UnknownIssuer => "client-certificate-unknown-issuer",
            Certificate::ExpiredRevocationList
            | Certificate::ExpiredRevocationListContext { .. } => "client-certificate-list-expired",
            _ => "client-certificate-refused",
        },
        TlsError::InvalidCertRevocationList(_) => "client-certificate-refused",
        TlsError::PeerIncompatible(reason) => match reason {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13 => "no-common-version",
            _ => "no-common-cipher",
        },
        TlsError::AlertReceived(_) => "partner-alert",
        _ => "partner-tls",
    }
}

fn partner_sentence(error: &TlsError) -> String {
    match error {
        TlsError::NoCertificatesPresented => {
            "the partner showed no certificate, and the domain requires one".to_owned()
        }
        TlsError::InvalidCertificate(CertificateError::InvalidPurpose) => {
            "the partner's certificate is neither for servers nor for clients".to_owned()
        }
        TlsError::InvalidCertificate(reason) => {
            format!("the partner's certificate was refused: {reason}")
        }
        TlsError::InvalidCertRevocationList(reason) => {
            format!(
                "the partner's certificate was refused, because the revocation list of its authority can't be trusted: {reason:?}"
            )
        }
        TlsError::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "the partner offers nothing newer than TLS 1.1".to_owned(),
        TlsError::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "the partner offers no cipher that the gateway has: it needs ECDHE with AES-GCM or ChaCha20 (Windows Server 2012 R2 has them for \
             ECDSA certificates only)"
                .to_owned()
        }
        TlsError::PeerIncompatible(reason) => {
            format!("the partner and the gateway have nothing in common: {reason:?}")
        }
        TlsError::AlertReceived(alert) => format!("the partner refused the connection: {alert:?}"),
        other => format!("the partner's TLS is wrong: {other}"),
    }
}

fn edge_sentence(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(reason) => {
            format!("the Edge's certificate was refused: {reason}")
        }
        TlsError::AlertReceived(alert) => format!(
            "the Edge refused the connection, most likely for the certificate it was shown: {alert:?}"
        ),
        other => format!("the Edge's TLS is wrong: {other}"),
    }
}

/// The alert for a partner whose certificate was refused after the handshake, the same as in it.
pub(super) fn alert_for(error: &TlsError) -> AlertDescription {
    match error {
        TlsError::InvalidCertificate(reason) => reason.clone().into(),
        _ => AlertDescription::BadCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_known_name_and_a_sentence() {
        let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
        let certificate = |reason| TlsError::InvalidCertificate(reason);
        let both = [
            certificate(CertificateError::Revoked),
            certificate(CertificateError::Expired),
            certificate(CertificateError::UnknownIssuer),
            certificate(CertificateError::ExpiredRevocationList),
            certificate(CertificateError::BadSignature),
            TlsError::NoCertificatesPresented,
            TlsError::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
            TlsError::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            TlsError::AlertReceived(AlertDescription::UnknownCA),
            TlsError::DecryptError,
        ];
        let partner = both.iter().cloned().map(TerminateError::Partner);
        let edge = both.iter().cloned().map(TerminateError::Edge);
        let others = [
            TerminateError::PartnerTimeout,
            TerminateError::PartnerGone(gone()),
            TerminateError::NoEdge("none".into()),
            TerminateError::Mirror(MirrorError::CaNotValid),
            TerminateError::EdgeTimeout,
            TerminateError::EdgeGone(gone()),
        ];
        let mut names: Vec<_> = partner
            .chain(edge)
            .chain(others)
            .map(|error| {
                assert!(!error.to_string().is_empty());
                error.name()
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut known = TerminateError::NAMES.to_vec();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
