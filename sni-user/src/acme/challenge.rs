//! What proves a name: published before the authority is told to look, and withdrawn when it has.

use std::{fs::OpenOptions, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    AcmeError, Store,
    hook::{self, Action},
    store,
};
use crate::config::{Acme, Challenge};

/// More than the longest key authorization there is: a token of up to 128 characters, a dot, 43 characters of a thumbprint.
const LONGEST: u64 = 256;
const LONGEST_TOKEN: usize = 128;

/// Something that is, or is about to be, published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "challenge")]
pub(super) enum Published {
    /// RFC 8555 section 8.3.
    #[serde(rename = "http-01")]
    Http {
        name: String,
        token: String,
        key_authorization: String,
    },
    /// Section 8.4.
    #[serde(rename = "dns-01")]
    Dns {
        name: String,
        token: String,
        value: String,
    },
}

impl Published {
    pub(super) fn challenge(&self) -> Challenge {
        match self {
            Self::Http { .. } => Challenge::Http01,
            Self::Dns { .. } => Challenge::Dns01,
        }
    }

    /// The name that is proven, a wildcard without its `*.`.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Http { name, .. } | Self::Dns { name, .. } => name,
        }
    }

    pub(super) fn token(&self) -> &str {
        match self {
            Self::Http { token, .. } | Self::Dns { token, .. } => token,
        }
    }

    /// The URL's path or the record's owner, and what is to be there.
    pub(super) fn where_and_what(&self) -> (String, &str) {
        match self {
            Self::Http {
                token,
                key_authorization,
                ..
            } => (token.clone(), key_authorization),
            Self::Dns { name, value, .. } => (format!("_acme-challenge.{name}"), value),
        }
    }

    /// Publishes it; once more does no harm. When it returns, it is there for everyone.
    pub(super) async fn publish(&self, acme: &Acme) -> Result<(), AcmeError> {
        if let Self::Http {
            token,
            key_authorization,
            ..
        } = self
        {
            if !is_token(token) {
                let what = "a token";
                let reason = format!("{token:?} is none (RFC 8555 section 8.3)");
                return Err(AcmeError::Protocol { what, reason });
            }
            let file = Store::new(acme).token(token);
            store::write(&file, key_authorization.as_bytes(), store::PUBLIC)?;
        }
        match self.hook(acme) {
            Some(program) => hook::run(program, Action::Add, self).await,
            None => Ok(()),
        }
    }

    /// Withdraws it, wherever it can be.
    pub(super) async fn withdraw(&self, acme: &Acme) -> Result<(), AcmeError> {
        let own = match self {
            Self::Http { token, .. } if is_token(token) => {
                store::remove(&Store::new(acme).token(token))
            }
            _ => Ok(()),
        };
        if let Some(program) = self.hook(acme) {
            hook::run(program, Action::Remove, self).await?;
        }
        own
    }

    fn hook<'a>(&self, acme: &'a Acme) -> Option<&'a Path> {
        match self {
            Self::Http { .. } => acme.http_hook.as_deref(),
            Self::Dns { .. } => acme.dns_hook.as_deref(),
        }
    }
}

/// Whether a text is a token, and so the name of a file in the directory of tokens and of no other.
pub(super) fn is_token(text: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(is_base64url)
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What a token's file has to say, if it is one: whoever can write into the directory can still say nothing else here.
pub(super) fn answer_of(tokens: &Path, token: &str) -> Option<String> {
    if !is_token(token) {
        return None;
    }
    // Not what a link points to, and not waiting for the other end of a pipe.
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(tokens.join(token)).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
    let text = text.trim_end();
    if text.len() as u64 > LONGEST {
        return None;
    }
    let thumbprint = text.strip_prefix(token)?.strip_prefix('.')?;
    let is_one = !thumbprint.is_empty() && thumbprint.bytes().all(is_base64url);
    is_one.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_answered() {
        let place = tempfile::tempdir().unwrap();
        let tokens = place.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(place.path().join("secret"), "secret.abc").unwrap();
        let put = |name: &str, text: &str| std::fs::write(tokens.join(name), text).unwrap();
        put("abc-_1", "abc-_1.thumb-_2\n");
        put("plain", "a note that somebody has left here");
        put("other", "another.thumb");
        put("empty", "empty.");
        put("long", &format!("long.{}", "x".repeat(300)));
        std::os::unix::fs::symlink(tokens.join("abc-_1"), tokens.join("link")).unwrap();
        std::fs::create_dir(tokens.join("directory")).unwrap();
        let answer = |token: &str| answer_of(&tokens, token);
        assert_eq!(answer("abc-_1").as_deref(), Some("abc-_1.thumb-_2"));
        for none in [
            "",
            ".",
            "..",
            "../secret",
            "plain",
            "other",
            "empty",
            "directory",
            "absent",
            "a/b",
            "a%2e",
            "long",
            "link",
        ] {
            assert_eq!(answer(none), None, "{none}");
        }
        assert!(!is_token(&"x".repeat(129)));
    }
}
