//! An order, from its beginning, or from wherever an earlier process has left it, to the certificate.

use std::time::Duration;

use instant_acme::{
    AuthorizationHandle, AuthorizationStatus, ChallengeHandle, ChallengeStatus, ChallengeType,
    Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RsaKeySize,
};

use super::{
    AcmeError, Store, Wanted,
    account::Session,
    challenge::Published,
    error::said,
    store::{OpenOrder, Record},
};
use crate::config::{Acme, Challenge, KeyType};

/// How long the authority is asked how far it is. What takes longer is asked for again after a pause; the order stays.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// The longest common name there is (RFC 5280, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// What comes of an order.
pub(super) struct Obtained {
    /// Certificate and chain, PEM.
    pub(super) chain: String,
    /// Private key, PEM.
    pub(super) key: String,
    /// URL of the order.
    pub(super) order: String,
}

/// One domain's order.
pub(super) struct Ordering<'a> {
    pub(super) acme: &'a Acme,
    pub(super) store: &'a Store,
    pub(super) session: &'a Session,
    pub(super) wanted: &'a Wanted,
    pub(super) record: &'a mut Record,
}

impl Ordering<'_> {
    /// Goes all the way. An order that comes to nothing is closed, one that may still come to something stays open; and so does one that has come to a
    /// certificate, until that is on disk.
    pub(super) async fn obtain(&mut self) -> Result<Obtained, AcmeError> {
        let mut order = self.open().await?;
        let obtained = self.go_on(&mut order).await;
        if obtained.is_err() && order.state().status == OrderStatus::Invalid {
            self.close().await?;
        }
        obtained
    }

    async fn go_on(&mut self, order: &mut Order) -> Result<Obtained, AcmeError> {
        if order.state().status == OrderStatus::Pending {
            self.prove(order).await?;
            let polled = order.poll_ready(&POLLING).await;
            if order.state().status == OrderStatus::Invalid {
                return Err(AcmeError::NotProven(reasons(order).await));
            }
            polled.map_err(|error| AcmeError::of("waiting for the proof of the names", error))?;
        }
        let key = self.store.order_key(&self.wanted.sip_domain)?;
        if order.state().status == OrderStatus::Ready {
            let request = request(self.wanted, &key)?;
            let sent = order.finalize_csr(&request).await;
            sent.map_err(|error| AcmeError::of("asking for the certificate", error))?;
        }
        let chain = order.poll_certificate(&POLLING).await;
        let chain = chain.map_err(|error| AcmeError::of("waiting for the certificate", error))?;
        Ok(Obtained {
            chain,
            key,
            order: order.url().to_owned(),
        })
    }

    /// The open order, if it is for the same and still of use, or a new one.
    async fn open(&mut self) -> Result<Order, AcmeError> {
        let names = self.wanted.identifiers();
        if let Some(open) = &self.record.order {
            let directory = &self.acme.directory;
            if open.is_for(directory, &names, self.wanted.key_type)
                && let Some(order) = self.again(&open.url).await?
            {
                tracing::debug!(domain = %self.wanted.sip_domain, url = open.url, "going on with the order that is open");
                return Ok(order);
            }
            self.close().await?;
        }
        let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
        let new = NewOrder::new(&identifiers);
        let order = self.session.account.new_order(&new).await;
        let order = order.map_err(|error| AcmeError::of("ordering the certificate", error))?;
        // Whatever happens from here on, the next process finds the order and its key.
        let domain = &self.wanted.sip_domain;
        self.store
            .keep_order_key(domain, &make_key(self.wanted.key_type).await?)?;
        self.record.order = Some(OpenOrder {
            directory: self.acme.directory.clone(),
            url: order.url().to_owned(),
            names,
            key_type: self.wanted.key_type.to_string(),
            published: Vec::new(),
        });
        self.store.keep(domain, self.record)?;
        Ok(order)
    }

    /// An order by its URL; `None` where it has come to nothing, or is forgotten.
    async fn again(&self, url: &str) -> Result<Option<Order>, AcmeError> {
        let order = self.session.account.order(url.to_owned()).await;
        match order.map_err(|error| AcmeError::of("looking for the open order", error)) {
            Ok(mut order) => {
                let usable = order.state().status != OrderStatus::Invalid;
                // Its certificate may be the reason for a new one.
                let has_key = self.store.order_key(&self.wanted.sip_domain).is_ok();
                Ok((usable && has_key).then_some(order))
            }
            Err(AcmeError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Publishes what proves each name, and tells the authority to look.
    async fn prove(&mut self, order: &mut Order) -> Result<(), AcmeError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|error| AcmeError::of("asking what to prove", error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let mut challenge = self.challenge(&mut authorization)?;
            let published = published(&challenge, self.wanted.challenge);
            // Noted before it is there: whatever happens, it is withdrawn some day.
            self.note(published.clone())?;
            published.publish(self.acme).await?;
            // One that an earlier process has announced is being looked at.
            if challenge.status == ChallengeStatus::Pending {
                let told = challenge.set_ready().await;
                told.map_err(|error| AcmeError::of("announcing the proof", error))?;
            }
        }
        Ok(())
    }

    fn challenge<'h>(
        &self,
        authorization: &'h mut AuthorizationHandle<'h>,
    ) -> Result<ChallengeHandle<'h>, AcmeError> {
        let kind = match self.wanted.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::Dns01 => ChallengeType::Dns01,
        };
        let name = authorization.identifier().to_string();
        authorization.challenge(kind).ok_or_else(|| {
            AcmeError::NotProven(format!(
                "{name} can't be proven to this authority by {}",
                self.wanted.challenge
            ))
        })
    }

    fn note(&mut self, published: Published) -> Result<(), AcmeError> {
        if let Some(open) = &mut self.record.order
            && !open.published.contains(&published)
        {
            open.published.push(published);
            self.store.keep(&self.wanted.sip_domain, self.record)?;
        }
        Ok(())
    }

    /// Forgets the order, and withdraws what was published for it.
    pub(super) async fn close(&mut self) -> Result<(), AcmeError> {
        let Some(open) = self.record.order.take() else {
            return Ok(());
        };
        for published in &open.published {
            // It proves nothing any more, and must not keep the certificate away.
            if let Err(error) = published.withdraw(self.acme).await {
                tracing::warn!(domain = %self.wanted.sip_domain, %error, "what has proven a name could not be withdrawn");
            }
        }
        self.store.keep(&self.wanted.sip_domain, self.record)
    }
}

fn published(challenge: &ChallengeHandle<'_>, kind: Challenge) -> Published {
    let identifier = challenge.identifier();
    // Without its `*.`: that is where it is proven.
    let name = match identifier.identifier {
        Identifier::Dns(name) => name.clone(),
        _ => identifier.to_string(),
    };
    let token = challenge.token.clone();
    let proof = challenge.key_authorization();
    match kind {
        Challenge::Http01 => Published::Http {
            name,
            token,
            key_authorization: proof.as_str().to_owned(),
        },
        Challenge::Dns01 => Published::Dns {
            name,
            token,
            value: proof.dns_value(),
        },
    }
}

/// What the authority says of each name that it could not prove.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            continue;
        };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|problem| format!("{name}: {}", said(problem))));
    }
    match reasons.is_empty() {
        true => "it does not say why".to_owned(),
        false => reasons.join("; "),
    }
}

/// An RSA key takes a good part of a second.
async fn make_key(kind: KeyType) -> Result<String, AcmeError> {
    let made = tokio::task::spawn_blocking(move || {
        let key = match kind {
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        };
        key.map(|key| key.serialize_pem())
    });
    let made = made
        .await
        .map_err(|panic| AcmeError::Local(panic.to_string()))?;
    made.map_err(|error| AcmeError::Local(format!("no key could be made: {error}")))
}

/// The certificate request, DER. The first name is the common name as well, which old peers look at first.
fn request(wanted: &Wanted, key: &str) -> Result<Vec<u8>, AcmeError> {
    let failed =
        |error: rcgen::Error| AcmeError::Local(format!("no request could be made: {error}"));
    let names = wanted.identifiers();
    let common = names.iter().find(|name| name.len() <= LONGEST_COMMON_NAME);
    let mut distinguished = DistinguishedName::new();
    if let Some(name) = common {
        distinguished.push(DnType::CommonName, name.as_str());
    }
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = distinguished;
    let key = match wanted.key_type {
        // What a PEM file does not say: PKCS#1 v1.5, not PSS.
        KeyType::Rsa2048 => KeyPair::from_pem_and_sign_algo(key, &PKCS_RSA_SHA256),
        KeyType::EcdsaP256 => KeyPair::from_pem_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256),
    };
    let request = params.serialize_request(&key.map_err(failed)?);
    Ok(request.map_err(failed)?.der().to_vec())
}
