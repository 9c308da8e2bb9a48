//! OCSP responses that are stapled to a certificate (RFC 6066 section 8), from the file beside it.

use std::path::{Path, PathBuf};

use der::Decode as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
    SingleResponse,
};

use super::{certificate::parse, files::File, finding::Note};

/// Where the response for a certificate's file is looked for.
pub(crate) fn path_of(certificate: &Path) -> PathBuf {
    let mut path = certificate.as_os_str().to_owned();
    path.push(".ocsp");
    path.into()
}

/// A response that says that a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staple {
    /// As it is sent: an OCSPResponse in DER.
    pub(super) der: Vec<u8>,
    /// Seconds since 1970.
    not_before: u64,
    /// Seconds since 1970; `None`, newer information is always there.
    not_after: Option<u64>,
}

impl Staple {
    /// Reads the response for a certificate. Its signature is the peers' to verify.
    pub(super) fn read(file: &File, certificate: &CertificateDer<'_>) -> Result<Self, Note> {
        Self::decode(&file.bytes, certificate).map_err(|message| {
            Note::warning(
                &file.path,
                format!("the OCSP response is not stapled: {message}"),
                "fetch it again from the authority, as DER (`openssl ocsp -respout`)",
            )
        })
    }

    fn decode(der: &[u8], certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let response = OcspResponse::from_der(der).map_err(|_| "it is damaged".to_owned())?;
        if response.response_status != OcspResponseStatus::Successful {
            return Err(format!("it is an error, {:?}", response.response_status));
        }
        let bytes = response.response_bytes.ok_or("it is empty")?;
        let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
            .map_err(|_| "it is of a kind that is not supported".to_owned())?;
        let serial = without_padding(parse(certificate)?.raw_serial());
        let single = basic
            .tbs_response_data
            .responses
            .into_iter()
            .find(|single| without_padding(single.cert_id.serial_number.as_bytes()) == serial)
            .ok_or("it is about another certificate")?;
        Self::of(der, &single)
    }

    fn of(der: &[u8], single: &SingleResponse) -> Result<Self, String> {
        match single.cert_status {
            CertStatus::Good(_) => {}
            CertStatus::Revoked(_) => return Err("THE CERTIFICATE IS REVOKED".to_owned()),
            CertStatus::Unknown(_) => {
                return Err("the authority does not know the certificate".to_owned());
            }
        }
        let seconds = |time: &OcspGeneralizedTime| time.0.to_unix_duration().as_secs();
        Ok(Self {
            der: der.to_owned(),
            not_before: seconds(&single.this_update),
            not_after: single.next_update.as_ref().map(seconds),
        })
    }

    /// Whether peers take it now.
    pub(super) fn is_current(&self, now: UnixTime) -> bool {
        self.not_before <= now.as_secs() && self.not_after.is_none_or(|end| now.as_secs() < end)
    }

    /// What is to be said about it now.
    pub(super) fn note(&self, path: &Path, now: UnixTime) -> Option<Note> {
        (!self.is_current(now)).then(|| {
            Note::warning(
                path,
                "the OCSP response is not stapled: it is not, or no longer, current",
                "fetch it again from the authority, regularly; it is taken up at once",
            )
        })
    }
}

/// An INTEGER's bytes without the zeros that keep it positive.
fn without_padding(mut integer: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = integer {
        integer = rest;
    }
    integer
}
