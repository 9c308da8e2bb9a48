//! The account at the authority: its key is a file, and everything else the authority knows by the key.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use instant_acme::{Account, Key};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::{
    AcmeError,
    client::{Advice, Client},
    store,
};
use crate::{config::Acme, tls};

/// An account that is ready for orders.
pub(super) struct Session {
    pub(super) account: Account,
    advice: Arc<Advice>,
}

impl Session {
    /// Registers the account, or finds it again: an authority answers a key that it knows with the account that is there (RFC 8555 section 7.3), so that
    /// nothing but the key has to be kept, and another `directory` needs nothing but that. The contact is made what the configuration says.
    pub(super) async fn open(acme: &Acme) -> Result<Self, (AcmeError, Option<Duration>)> {
        let key = load_or_make(&acme.account_key).map_err(|error| (error, None))?;
        let tls = tls::authority_client(&acme.roots);
        let tls = tls.map_err(|why| (AcmeError::Local(why), None))?;
        let advice = Arc::new(Advice::default());
        let client = Client::new(tls, Arc::clone(&advice));
        let opened = async {
            let builder = Account::builder_with_http(Box::new(client));
            let directory = acme.directory.clone();
            let (account, _) = builder.create_from_key(key, directory).await?;
            let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
            if !contact.is_empty() {
                account.update_contacts(&contact).await?;
            }
            Ok(account)
        };
        match opened.await {
            Ok(account) => Ok(Self { account, advice }),
            Err(error) => Err((
                AcmeError::of("registering the account", error),
                advice.take(),
            )),
        }
    }

    /// How long the authority has asked to be left alone, since this was asked last.
    pub(super) fn advice(&self) -> Option<Duration> {
        self.advice.take()
    }
}

fn load_or_make(path: &Path) -> Result<(Key, PrivateKeyDer<'static>), AcmeError> {
    if !path.exists() {
        make(path)?;
    }
    let metadata = fs::metadata(path).map_err(AcmeError::file("reading", path))?;
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the ACME account's key is open to others than its owner: `chmod 600` it");
    }
    let unusable = || {
        AcmeError::Local(format!(
            "{}: the ACME account's key must be an ECDSA key on P-256, PEM and PKCS#8: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one, and so does the gateway where there is none",
            path.display()
        ))
    };
    let pem = fs::read(path).map_err(AcmeError::file("reading", path))?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| unusable())?;
    let key = Key::from_pkcs8_der(der.clone_key()).map_err(|_| unusable())?;
    Ok((key, PrivateKeyDer::Pkcs8(der)))
}

/// Of several gateways that share the directory, the first one's stays.
fn make(path: &Path) -> Result<(), AcmeError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| AcmeError::Local(format!("no key could be made: {error}")))?;
    if store::create(path, key.serialize_pem().as_bytes(), store::SECRET)? {
        tracing::info!(file = %path.display(), "made a key for the ACME account");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("account.key");
        load_or_make(&file).unwrap();
        let made = fs::read(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        load_or_make(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), made);
    }

    #[test]
    fn another_key_is_refused_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("account.key");
        let rsa = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for text in [rsa.serialize_pem(), "nothing".to_owned()] {
            fs::write(&file, text).unwrap();
            let error = load_or_make(&file).err().map(|error| error.to_string());
            assert!(error.unwrap().contains("P-256"));
        }
    }
}
