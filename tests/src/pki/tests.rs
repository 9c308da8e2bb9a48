use std::process::Command;

use super::*;

/// A directory of its own for a test, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("snigate-pki-{test}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// What `openssl verify` says of a certificate with the rest of its chain at hand.
fn verify(pki: &Pki, identity: &Identity, options: &[&str]) -> Result<String> {
    let output = Command::new("openssl")
        .arg("verify")
        .args(options)
        .arg("-CAfile")
        .arg(pki.roots())
        .arg("-untrusted")
        .arg(&identity.chain)
        .arg(&identity.chain)
        .output()?;
    Ok(String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?)
}

#[test]
fn a_certificate_carries_its_names_and_its_issuer() -> Result<()> {
    let directory = Directory::new("names")?;
    let pki = Pki::new("test", &directory.0)?;
    let names: Vec<String> = (0..100)
        .map(|n| format!("sip.customer{n}.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identity = pki.server("edge", &names)?;
    let chain = fs::read(&identity.chain)?;

    let pems: Vec<Pem> = Pem::iter_from_buffer(&chain).collect::<Result<_, _>>()?;
    assert_eq!(pems.len(), 2);
    let certificate = pems[0].parse_x509()?;
    let found = certificate
        .subject_alternative_name()?
        .context("no names")?;
    assert_eq!(found.value.general_names.len(), 100);
    assert_eq!(
        certificate.subject().to_string(),
        "CN=sip.customer0.example"
    );
    assert_eq!(certificate.issuer(), pems[1].parse_x509()?.subject());
    Ok(())
}

#[test]
fn openssl_sees_every_kind_as_it_is_meant() -> Result<()> {
    let directory = Directory::new("kinds")?;
    let pki = Pki::new("test", &directory.0)?;
    let ecdsa = || pki.certificate("any").names(&["sip.a.example"]).ecdsa();
    let client_only = [ExtendedKeyUsagePurpose::ClientAuth];

    let good = ecdsa().issue()?;
    assert!(verify(&pki, &good, &["-purpose", "sslserver"])?.contains(": OK"));
    let expired = ecdsa().validity(-7200..-3600).issue()?;
    assert!(verify(&pki, &expired, &[])?.contains("certificate has expired"));
    let early = ecdsa().validity(3600..7200).issue()?;
    assert!(verify(&pki, &early, &[])?.contains("certificate is not yet valid"));
    let client = ecdsa().usages(&client_only).issue()?;
    assert!(verify(&pki, &client, &["-purpose", "sslclient"])?.contains(": OK"));
    assert!(!verify(&pki, &client, &["-purpose", "sslserver"])?.contains(": OK"));

    let revoked = ecdsa().crl_url("http://192.0.2.1/test.crl").issue()?;
    let other = pki.certificate("other").ecdsa().issue()?;
    let list = pki.revocation_list(&[&revoked])?;
    let list = list.to_str().context("the directory's name")?;
    let options = ["-crl_check", "-CRLfile", list];
    assert!(verify(&pki, &revoked, &options)?.contains("certificate revoked"));
    assert!(verify(&pki, &other, &options)?.contains(": OK"));
    Ok(())
}

#[test]
fn chains_come_in_any_order() -> Result<()> {
    let directory = Directory::new("chains")?;
    let pki = Pki::new("test", &directory.0)?;
    let issuing = pki.intermediate("issuing")?;
    let right = issuing.certificate("right").ecdsa().issue()?;
    assert!(verify(&issuing, &right, &[])?.contains(": OK"));
    let alone = right.with_chain("alone", &[0])?;
    assert!(verify(&issuing, &alone, &[])?.contains("unable to get local issuer"));

    let wrong = right.with_chain("wrong", &[1, 0])?;
    let chain = fs::read(&wrong.chain)?;
    let subjects = Pem::iter_from_buffer(&chain)
        .map(|pem| Ok(pem?.parse_x509()?.subject().to_string()))
        .collect::<Result<Vec<_>>>()?;
    assert_eq!(subjects, ["CN=issuing intermediate", ""]);
    assert!(right.with_chain("none", &[2]).is_err());
    Ok(())
}

#[test]
fn a_subject_may_say_a_thing_twice() -> Result<()> {
    use Attribute::{CommonName, Country, DomainComponent, Organization, OrganizationalUnit};
    let directory = Directory::new("subject")?;
    let pki = Pki::new("test", &directory.0)?;
    let long = "x".repeat(200);
    let identity = pki
        .certificate("partner")
        .names(&["sip.partner.example"])
        .subject(&[
            (DomainComponent, "example"),
            (DomainComponent, "partner"),
            (Country, "AT"),
            (Organization, "Bäckerei Müller GmbH"),
            (OrganizationalUnit, "Realtime"),
            (OrganizationalUnit, "Edge"),
            (OrganizationalUnit, &long),
            (CommonName, "sip.partner.example"),
        ])
        .issue()?;
    // The signature covers the new subject.
    assert!(
        verify(
            &pki,
            &identity,
            &["-verify_hostname", "sip.partner.example"]
        )?
        .contains(": OK")
    );
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-nameopt", "utf8", "-in"])
        .arg(&identity.chain)
        .output()?;
    assert_eq!(
        String::from_utf8(output.stdout)?,
        format!(
            "subject=DC=example, DC=partner, C=AT, O=Bäckerei Müller GmbH, OU=Realtime, OU=Edge, OU={long}, \
             CN=sip.partner.example\n"
        )
    );
    Ok(())
}
