//! How a certificate authority's own server is verified.

use std::sync::Arc;

use rustls::ClientConfig;

use super::{files::Files, provider, roots};
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
