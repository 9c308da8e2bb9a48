//! What an authority's client needs of TLS: how its server is verified, and whether what it gives fits.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{certificate::Facts, files::Files, provider, roots};
use crate::config::Roots;

/// For connections to the server of an authority whose certificate one of these roots has signed.
///
/// # Errors
/// In a sentence.
pub(crate) fn authority_client(trusted: &Roots) -> Result<ClientConfig, String> {
    let store = match trusted {
        Roots::System => roots::system().map(|(store, _)| store),
        Roots::File(path) => {
            let file = Files::default().read(path, "the file of roots");
            file.and_then(|file| roots::from_file(&file))
        }
    };
    let store = store.map_err(|note| note.sentence())?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// What the first certificate of a PEM text says, if the key in the text is its key.
///
/// # Errors
/// In a sentence.
pub(crate) fn fitting(pem: &[u8]) -> Result<Facts, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| "it is not PEM".to_owned())?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "there is no key".to_owned())?;
    let first = chain.first().ok_or("there is none")?;
    let facts = Facts::of(first)?;
    CertifiedKey::from_der(chain, key, provider())
        .map_err(|error| format!("it does not belong to its key ({error})"))?;
    Ok(facts)
}
