//! A certificate with its key, as read from two files: which certificate is meant, and what belongs behind it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, UnixTime},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::certificate::X509Certificate;

use super::{
    certificate::{Facts, date, parse},
    files::File,
    finding::Note,
};

/// A certificate's last days, in which a warning is due.
const SOON: u64 = 30;

/// A certificate that can be shown, with its chain and its key.
#[derive(Debug)]
pub(super) struct Served {
    /// Its own certificate first, then each one's issuer.
    pub(super) key: Arc<CertifiedKey>,
    /// Of its own certificate.
    pub(super) facts: Facts,
    /// What was found while it was read; what depends on the time is not among it.
    notes: Vec<Note>,
    file: PathBuf,
}

impl Served {
    /// Reads the two files. The certificate is the one that the key belongs to, wherever it stands in its file.
    pub(super) fn read(chain: &File, key: &File) -> Result<Self, Vec<Note>> {
        let mut notes: Vec<_> = key.permissions().into_iter().collect();
        let (certificates, signing) = match (chain.certificates(), signing_key(key)) {
            (Ok(certificates), Ok(signing)) => (certificates, signing),
            (certificates, signing) => {
                notes.extend(certificates.err());
                notes.extend(signing.err());
                return Err(notes);
            }
        };
        match in_order(certificates, &signing, chain, key, &mut notes) {
            Ok((certificates, facts)) => Ok(Self {
                key: Arc::new(CertifiedKey::new(certificates, signing)),
                facts,
                notes,
                file: chain.path.clone(),
            }),
            Err(note) => {
                notes.push(note);
                Err(notes)
            }
        }
    }

    /// The file with its chain.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// What is to be said about it now, with what to do when its time is over or soon will be.
    pub(super) fn notes(&self, now: UnixTime, renewal: &str) -> Vec<Note> {
        let mut notes = self.notes.clone();
        notes.extend(
            validity(&self.facts, now).map(|message| Note::warning(&self.file, message, renewal)),
        );
        notes
    }
}

/// What is wrong with a certificate's time, if anything.
fn validity(facts: &Facts, now: UnixTime) -> Option<String> {
    if !facts.has_begun(now) {
        return Some(format!(
            "the certificate is not valid before {}: peers refuse it until then, if this host's clock is right",
            date(facts.not_before)
        ));
    }
    match facts.time_left(now) {
        // Still used: it harms no other domain, some peers don't look, and refusing to start or reload would harm them all.
        None => Some(format!(
            "THE CERTIFICATE HAS EXPIRED on {}: peers refuse it",
            date(facts.not_after)
        )),
        Some(left) if left.as_secs() < SOON * 86_400 => Some(format!(
            "the certificate expires on {}, in {}",
            date(facts.not_after),
            days(left.as_secs() / 86_400)
        )),
        Some(_) => None,
    }
}

fn days(number: u64) -> String {
    match number {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        more => format!("{more} days"),
    }
}

pub(super) fn signing_key(file: &File) -> Result<Arc<dyn SigningKey>, Note> {
    any_supported_type(&file.key()?).map_err(|_| {
        Note::error(
            &file.path,
            "the private key is damaged or of a kind that is not supported",
            "RSA of 2048 to 8192 bits is what every peer accepts; P-256, P-384, P-521 and Ed25519 work too",
        )
    })
}

/// The certificate of the key, then issuer after issuer, as far as the file goes.
fn in_order(
    certificates: Vec<CertificateDer<'static>>,
    signing: &Arc<dyn SigningKey>,
    chain: &File,
    key: &File,
    notes: &mut Vec<Note>,
) -> Result<(Vec<CertificateDer<'static>>, Facts), Note> {
    let mut parsed = Vec::with_capacity(certificates.len());
    for (place, der) in (1..).zip(&certificates) {
        parsed.push(parse(der).map_err(|reason| {
            Note::error(
                &chain.path,
                format!("certificate {place} of the file can't be read: {reason}"),
                "copy the file again from where it came",
            )
        })?);
    }
    let own = own_certificate(&certificates, &parsed, signing, chain, key)?;
    let order = order_of(&parsed, own);
    judge_the_rest(&certificates, &parsed, &order, chain, notes)?;
    if order.windows(2).any(|pair| pair[0] > pair[1]) || own != 0 {
        notes.push(Note::warning(
            &chain.path,
            "the certificates are in the wrong order; they are sent in the right one",
            "put the domain's own certificate first, then the one of its issuer, and so on",
        ));
    }
    for place in &order {
        let certificate = Facts::of(&certificates[*place]).ok();
        if let Some(facts) = certificate.filter(|facts| facts.pss && !facts.self_issued) {
            notes.push(Note::warning(
                &chain.path,
                format!(
                    "the certificate of {} is signed with RSASSA-PSS, which Lync Server 2013 does not understand",
                    facts.subject
                ),
                "let the authority sign with RSA PKCS#1 v1.5 if such partners are to connect",
            ));
        }
    }
    let facts = Facts::of(&certificates[own]).map_err(|reason| {
        Note::error(
            &chain.path,
            reason,
            "copy the file again from where it came",
        )
    })?;
    let ordered = order
        .iter()
        .map(|place| certificates[*place].clone())
        .collect();
    Ok((ordered, facts))
}

/// Where in its file the certificate of the key is.
fn own_certificate(
    certificates: &[CertificateDer<'static>],
    parsed: &[X509Certificate<'_>],
    signing: &Arc<dyn SigningKey>,
    chain: &File,
    key: &File,
) -> Result<usize, Note> {
    let mut unusable = None;
    for (place, der) in certificates.iter().enumerate() {
        match CertifiedKey::new(vec![der.clone()], signing.clone()).keys_match() {
            Ok(()) => return Ok(place),
            Err(Error::InconsistentKeys(_)) => {}
            Err(error) => {
                unusable.get_or_insert((place, error));
            }
        }
    }
    Err(match unusable {
        Some((place, error)) => Note::error(
            &chain.path,
            format!(
                "the certificate of {} can't be used: {error}; it is of X.509 version {}, and must be of 3",
                parsed[place].subject(),
                parsed[place].version().0 + 1
            ),
            "request one with subject alternative names, which version 1 does not have",
        ),
        None => Note::error(
            &chain.path,
            format!(
                "the private key in {} belongs to none of the file's certificates (the first is for {})",
                key.path.display(),
                parsed[0].subject()
            ),
            "put the certificate that was issued for this key, or the key that the certificate was requested with",
        ),
    })
}

/// Places of the chain's certificates. Names decide, as verifiers build chains; a root that is there twice, also cross-signed, is met by
/// taking the one that leads further first.
pub(crate) fn order_of(parsed: &[X509Certificate<'_>], own: usize) -> Vec<usize> {
    let mut order = vec![own];
    let mut last = own;
    while !is_self_issued(&parsed[last]) {
        let issuer = parsed[last].issuer().as_raw();
        let next = (0..parsed.len())
            .filter(|place| !order.contains(place) && parsed[*place].subject().as_raw() == issuer)
            .min_by_key(|place| (is_self_issued(&parsed[*place]), *place));
        let Some(next) = next else { break };
        order.push(next);
        last = next;
    }
    order
}

pub(crate) fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Certificates outside the chain: harmless where they are doubles or roots, otherwise a sign that a link is missing.
fn judge_the_rest(
    certificates: &[CertificateDer<'_>],
    parsed: &[X509Certificate<'_>],
    order: &[usize],
    chain: &File,
    notes: &mut Vec<Note>,
) -> Result<(), Note> {
    let mut left_out = Vec::new();
    for place in (0..parsed.len()).filter(|place| !order.contains(place)) {
        let harmless = is_self_issued(&parsed[place])
            || order.iter().any(|in_chain| {
                certificates[*in_chain] == certificates[place]
                    || parsed[*in_chain].subject().as_raw() == parsed[place].subject().as_raw()
            });
        if !harmless {
            let end = order.last().map_or(0, |last| *last);
            return Err(Note::error(
                &chain.path,
                format!(
                    "the certificates can't be put in order: that of {} is not part of the chain, which ends with {}, issued by {}",
                    parsed[place].subject(),
                    parsed[end].subject(),
                    parsed[end].issuer(),
                ),
                "add the missing certificate between them, or take out those that don't belong",
            ));
        }
        left_out.push(parsed[place].subject().to_string());
    }
    if !left_out.is_empty() {
        notes.push(Note::warning(
            &chain.path,
            format!(
                "certificates that the chain does not need are not sent: {}",
                left_out.join("; ")
            ),
            "take them out of the file",
        ));
    }
    Ok(())
}
