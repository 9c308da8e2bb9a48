//! Certificates and revocation lists, right ones and those that are wrong in one way.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Duration as Timeout,
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SerialNumber,
};
use snigate_tests::output_within;
use time::{Duration, OffsetDateTime};

/// Where revocation lists are fetched from.
pub(crate) const LISTS: &str = "http://crl.hoster.example";
const REVOKED: u64 = 4242;

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The authorities of a test. All but the impostor share a key, because to make one takes long.
pub(crate) struct Pki {
    directory: PathBuf,
    root: Authority,
    issuing: Authority,
    /// An intermediate whose time is over.
    former: Authority,
    /// Trusted by nobody.
    stranger: Authority,
    /// It has the root's name, and another key.
    impostor: Authority,
    rsa: KeyPair,
    ecdsa: KeyPair,
}

/// A certificate to show.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a certificate is to be.
pub(crate) struct Wanted {
    names: Vec<String>,
    common: Option<String>,
    days: Range<i64>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    list: Option<String>,
    serial: Option<u64>,
}

impl Wanted {
    /// As every partner accepts it.
    pub(crate) fn right(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            common: Some(name.to_owned()),
            days: -30..90,
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            list: Some(format!("{LISTS}/good.crl")),
            serial: None,
        }
    }

    pub(crate) fn named(mut self, names: &[&str], common: Option<&str>) -> Self {
        self.names = names.iter().map(|&name| name.to_owned()).collect();
        self.common = common.map(str::to_owned);
        self
    }

    pub(crate) fn days(self, days: Range<i64>) -> Self {
        Self { days, ..self }
    }

    pub(crate) fn usages(mut self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    pub(crate) fn list(self, list: Option<&str>) -> Self {
        let list = list.map(str::to_owned);
        Self { list, ..self }
    }

    pub(crate) fn revoked(self) -> Self {
        let serial = Some(REVOKED);
        Self { serial, ..self }
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name.remove(DnType::CommonName);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Fabrikam");
        if let Some(common) = &self.common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(self.days.start);
        params.not_after = now + Duration::days(self.days.end);
        params.extended_key_usages.clone_from(&self.usages);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.serial_number = self.serial.map(SerialNumber::from);
        if let Some(url) = &self.list {
            let uris = vec![url.clone()];
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        }
        Ok(params)
    }
}

/// How a chain is made of what an authority has signed.
#[derive(Clone, Copy)]
pub(crate) enum Sent {
    /// As it should be.
    Right,
    /// Without the intermediate.
    Alone,
    /// With somebody else's certificate in its midst.
    Strange,
    /// By an intermediate whose time is over.
    Former,
    /// By an authority that nobody trusts, with its root.
    Stranger,
    /// By one that only has the trusted root's name.
    Impostor,
}

impl Pki {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let rsa = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        let (key, other) = (rsa()?, rsa()?);
        let ecdsa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let ca = key.serialize_pem();
        let root = Authority::new("hoster root", &ca, -100..1000, None)?;
        let this = Self {
            issuing: Authority::new("hoster issuing", &ca, -100..1000, Some(&root))?,
            former: Authority::new("hoster former", &ca, -100..-1, Some(&root))?,
            stranger: Authority::new("stranger root", &ca, -100..1000, None)?,
            impostor: Authority::new("hoster root", &other.serialize_pem(), -100..1000, None)?,
            directory: directory.to_owned(),
            root,
            rsa: other,
            ecdsa,
        };
        this.write("roots.pem", &this.root.pem)?;
        this.write("issuing.pem", &this.issuing.pem)?;
        this.write("ca.key", &ca)?;
        this.write("rsa.key", &this.rsa.serialize_pem())?;
        this.write("ecdsa.key", &this.ecdsa.serialize_pem())?;
        Ok(this)
    }

    /// Whom partners trust.
    pub(crate) fn roots(&self) -> PathBuf {
        self.directory.join("roots.pem")
    }

    /// A certificate with an RSA key.
    pub(crate) fn make(&self, name: &str, wanted: &Wanted, sent: Sent) -> Result<Made> {
        self.make_for(name, wanted, sent, &self.rsa, "rsa.key")
    }

    /// One with an ECDSA key.
    pub(crate) fn make_ecdsa(&self, name: &str, wanted: &Wanted) -> Result<Made> {
        self.make_for(name, wanted, Sent::Right, &self.ecdsa, "ecdsa.key")
    }

    fn make_for(
        &self,
        name: &str,
        wanted: &Wanted,
        sent: Sent,
        key: &KeyPair,
        file: &str,
    ) -> Result<Made> {
        let (by, behind) = match sent {
            Sent::Right => (&self.issuing, self.issuing.pem.clone()),
            Sent::Alone => (&self.issuing, String::new()),
            Sent::Strange => (&self.issuing, self.stranger.pem.clone() + &self.issuing.pem),
            Sent::Former => (&self.former, self.former.pem.clone()),
            Sent::Stranger => (&self.stranger, self.stranger.pem.clone()),
            Sent::Impostor => (&self.impostor, String::new()),
        };
        let own = wanted.params()?.signed_by(key, &by.issuer)?;
        Ok(Made {
            chain: self.write(&format!("{name}.pem"), &(own.pem() + &behind))?,
            key: self.directory.join(file),
        })
    }

    /// One that OpenSSL makes with `options` of `openssl x509`, for a new key with `bits` or the usual one.
    pub(crate) fn make_by_openssl(
        &self,
        name: &str,
        bits: Option<u32>,
        options: &[&str],
    ) -> Result<Made> {
        let key = match bits {
            None => "rsa.key".to_owned(),
            Some(bits) => {
                let file = format!("{name}.key");
                self.openssl(&["genrsa", "-out", &file, &bits.to_string()])?;
                file
            }
        };
        let (request, own) = (format!("{name}.csr"), format!("{name}.own.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-new", "-key", &key, "-subj", &subject, "-out", &request,
        ])?;
        let extensions = format!(
            "subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\ncrlDistributionPoints=URI:{LISTS}/good.crl\n"
        );
        let file = format!("{name}.ext");
        self.write(&file, &extensions)?;
        let sign = [
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "issuing.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            "77",
            "-days",
            "90",
            "-extfile",
            &file,
            "-out",
            &own,
        ];
        self.openssl(&[&sign[..], options].concat())?;
        let own = fs::read_to_string(self.directory.join(own))?;
        Ok(Made {
            chain: self.write(&format!("{name}.pem"), &(own + &self.issuing.pem))?,
            key: self.directory.join(key),
        })
    }

    /// Writes the revocation lists: good, stale, signed by somebody else, and none at all.
    pub(crate) fn write_lists(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let write = |name: &str, by: &Authority, days| -> Result<()> {
            fs::write(directory.join(name), by.list(days)?)?;
            Ok(())
        };
        write("good.crl", &self.issuing, -1..7)?;
        write("stale.crl", &self.issuing, -8..-1)?;
        write("foreign.crl", &self.stranger, -1..7)?;
        fs::write(directory.join("garbage.crl"), "no list\n")?;
        Ok(())
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&self.directory);
        let output = output_within(&mut command, Timeout::from_secs(60))?;
        ensure!(output.status.success(), "openssl {arguments:?}: {output:?}");
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Authority {
    fn new(name: &str, key: &str, days: Range<i64>, by: Option<&Self>) -> Result<Self> {
        let key = KeyPair::from_pem(key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(days.start);
        params.not_after = now + Duration::days(days.end);
        let pem = match by {
            None => params.self_signed(&key)?.pem(),
            Some(by) => params.signed_by(&key, &by.issuer)?.pem(),
        };
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    fn list(&self, days: Range<i64>) -> Result<Vec<u8>> {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now + Duration::days(days.start),
            next_update: now + Duration::days(days.end),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: now - Duration::days(1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.der().to_vec())
    }
}
