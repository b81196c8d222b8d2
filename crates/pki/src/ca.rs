//! The authority and what it signs.
use crate::Error;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use sha2::{Digest, Sha256};
use std::{fmt, fs, io::Write as _, net::IpAddr, os::unix::fs::OpenOptionsExt as _, path::Path};
use time::{Duration, OffsetDateTime};
use x509_parser::x509::AttributeTypeAndValue;

/// Of the authority itself.
const AUTHORITY: Duration = Duration::days(3650);
/// Of what it signs; renewed by whoever holds it when a third is left.
pub(crate) const LIFETIME: Duration = Duration::days(90);
/// Clocks of machines differ.
const SKEW: Duration = Duration::minutes(10);

/// What the holder of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controller,
    Node,
}
impl Role {
    /// The name by which TLS clients address any process of this role, and that etcd wants of its clients.
    pub fn server_name(self) -> String {
        format!("{self}.drover.internal")
    }
}
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Node => "node",
        })
    }
}

/// Who a certificate speaks for. Its common name is the machine's alone, as OVN holds a chassis to it (ovn-architecture(7), "RBAC"); the role
/// is its organizational unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub role: Role,
    pub name: String,
}
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}
impl Identity {
    /// From a certificate (DER) whose signature was checked.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = only(subject.iter_common_name())?;
        if subject.iter_organizational_unit().next().is_none() {
            return Self::of_older(name);
        }
        Self::of(only(subject.iter_organizational_unit())?, name)
    }
    fn of(role: &str, name: &str) -> Option<Self> {
        let role = [Role::Controller, Role::Node].into_iter().find(|r| r.to_string() == role)?;
        (!name.is_empty()).then(|| Self { role, name: name.to_owned() })
    }
    /// Up to version 0.1 role and name were the common name together. Such certificates are good until they end or are renewed.
    fn of_older(common_name: &str) -> Option<Self> {
        let (role, name) = common_name.split_once(' ')?;
        Self::of(role, name)
    }
    /// The one name by which TLS clients address it, whatever its addresses are.
    pub fn server_name(&self) -> String {
        format!("{}.{}", self.name, self.role.server_name())
    }
}

fn only<'a>(mut names: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let name = names.next()?.as_str().ok()?;
    names.next().is_none().then_some(name)
}

/// Does a certificate (DER) name its holder as [`Ca::sign`] does now?
pub(crate) fn is_named_as_now(der: &[u8]) -> bool {
    let parsed = x509_parser::parse_x509_certificate(der);
    parsed.is_ok_and(|(_, certificate)| certificate.subject().iter_organizational_unit().next().is_some())
}

/// A key of one's own and the request to have it certified.
pub struct Request {
    pub key_pem: String,
    pub csr_pem: String,
}

impl Request {
    /// What a certificate says is for the authority to decide; the request only proves that its sender has the key.
    pub fn new() -> Result<Self, Error> {
        Self::with(&KeyPair::generate()?)
    }
    /// For a key that is there: to renew its certificate, or to ask again.
    pub fn of(key_pem: &str) -> Result<Self, Error> {
        Self::with(&KeyPair::from_pem(key_pem)?)
    }
    fn with(key: &KeyPair) -> Result<Self, Error> {
        let csr = CertificateParams::default().serialize_request(key)?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem: csr.pem()? })
    }
}

/// SHA-256 of the key that a request (PEM) is for, hex: two requests with the same one come from the same machine.
pub fn key_of(csr_pem: &str) -> Result<String, Error> {
    Ok(hex(CertificateSigningRequestParams::from_pem(csr_pem)?.public_key.der_bytes()))
}

/// A certificate and the authority that vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub certificate_pem: String,
    pub ca_pem: String,
}

/// See the module.
pub struct Ca {
    ca_pem: String,
    key_pem: String,
}

impl Ca {
    /// A new authority for a new cluster.
    pub fn create(cluster: &str) -> Result<Self, Error> {
        Self::named(&format!("Drover cluster {cluster}"), &KeyPair::generate()?)
    }

    /// The authority that certifies controllers alone, for those who must not take a node's certificate. It is the same key under another
    /// name: every controller can make it by itself, and takes what the others made.
    pub fn for_controllers(&self) -> Result<Self, Error> {
        let cluster = self.fingerprint();
        Self::named(&format!("Drover controllers {}", cluster.get(..16).unwrap_or_default()), &KeyPair::from_pem(&self.key_pem)?)
    }

    fn named(name: &str, key: &KeyPair) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - SKEW, now + AUTHORITY);
        Ok(Self { ca_pem: params.self_signed(key)?.pem(), key_pem: key.serialize_pem() })
    }

    /// The authority in `dir`; a new one at the first use.
    pub fn open(dir: &Path, cluster: &str) -> Result<Self, Error> {
        if dir.join("ca.key").exists() {
            return Self::load(dir);
        }
        let made = Self::create(cluster)?;
        made.keep(dir)?;
        Ok(made)
    }

    /// The authority in `dir`, which must be there.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(file("read", &path))
        };
        Ok(Self { ca_pem: read("ca.pem")?, key_pem: read("ca.key")? })
    }

    /// The authority of these two, as another controller keeps it.
    pub fn of(ca_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Issuer::from_ca_cert_pem(ca_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { ca_pem: ca_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// What a controller that joins is given, and nobody else.
    pub fn key(&self) -> &str {
        &self.key_pem
    }

    /// A secret that all who have this authority share, for one purpose.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        Sha256::new()
            .chain_update((purpose.len() as u64).to_be_bytes())
            .chain_update(purpose)
            .chain_update(&self.key_pem)
            .finalize()
            .into()
    }

    /// Writes the authority where only root reads it; the key last, as its presence says that all is there.
    pub fn keep(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(file("create", dir))?;
        write(&dir.join("ca.pem"), &self.ca_pem, 0o644)?;
        write(&dir.join("ca.key"), &self.key_pem, 0o600)
    }

    /// The authority's certificate, which everybody may have.
    pub fn certificate(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the authority's certificate (PEM), hex: how a join token names its cluster.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.ca_pem)
    }

    /// Certifies the key of a request for this identity at these addresses. Whoever calls it has made sure who asks.
    pub fn sign(&self, csr_pem: &str, identity: &Identity, addresses: &[IpAddr]) -> Result<Issued, Error> {
        // Reading it checks the signature by the key that it names.
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&identity.name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, identity.role.to_string());
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in [identity.server_name(), identity.role.server_name()] {
            let name = name.try_into().map_err(|e| Error::Invalid(format!("{identity}: {e}")))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - SKEW, now + LIFETIME);
        request.params = params;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.key_pem)?)?;
        Ok(Issued { certificate_pem: request.signed_by(&issuer)?.pem(), ca_pem: self.ca_pem.clone() })
    }
}

/// SHA-256 of a certificate (PEM), hex, as openssl prints it. What is no PEM has the fingerprint of nothing.
pub(crate) fn fingerprint(pem: &str) -> String {
    let parsed = x509_parser::pem::parse_x509_pem(pem.as_bytes());
    let der = parsed.map(|(_, pem)| pem.contents).unwrap_or_default();
    hex(&der)
}

/// A certificate (DER) as PEM (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// SHA-256.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn file(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File { act, path: path.into(), source }
}

/// Whole or not at all.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let next = path.with_extension("next");
    let written = || {
        let mut f = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&next)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()?;
        fs::rename(&next, path)
    };
    written().map_err(file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_authority_is_made_once_and_its_key_is_roots() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::open(dir.path(), "c").unwrap();
        let again = Ca::open(dir.path(), "c").unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(first.fingerprint(), Ca::create("c").unwrap().fingerprint());
    }

    #[test]
    fn a_request_decides_nothing_but_its_key() {
        let ca = Ca::create("c").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut greedy = CertificateParams::new(vec!["c1.controller.drover.internal".to_owned()]).unwrap();
        greedy.distinguished_name = named("c1");
        greedy.distinguished_name.push(DnType::OrganizationalUnitName, "controller");
        let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let identity = Identity { role: Role::Node, name: "n1".into() };
        let issued = ca.sign(&csr, &identity, &[IpAddr::from([10, 0, 0, 7])]).unwrap();
        let text = String::from_utf8_lossy(&der(&issued.certificate_pem)).into_owned();
        assert_eq!(Identity::of_certificate(&der(&issued.certificate_pem)), Some(identity.clone()), "what the authority says");
        assert!(text.contains("n1.node.drover.internal"));
        assert!(!text.contains("controller"), "and nothing that the request says");
        assert!(matches!(ca.sign("no request", &identity, &[]), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_key_is_known_again() {
        let first = Request::new().unwrap();
        let again = Request::of(&first.key_pem).unwrap();
        assert_eq!(key_of(&first.csr_pem).unwrap(), key_of(&again.csr_pem).unwrap());
        assert_ne!(key_of(&first.csr_pem).unwrap(), key_of(&Request::new().unwrap().csr_pem).unwrap());
        assert!(matches!(Request::of("no key"), Err(Error::Invalid(_))));
    }

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    #[test]
    fn a_certificate_tells_who_it_is_and_comes_back_as_it_was() {
        let ca = Ca::create("c").unwrap();
        let identity = Identity { role: Role::Node, name: "n1".into() };
        let issued = ca.sign(&Request::new().unwrap().csr_pem, &identity, &[]).unwrap();
        let certificate = der(&issued.certificate_pem);
        assert_eq!(Identity::of_certificate(&certificate), Some(identity));
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        assert_eq!(only(parsed.subject().iter_common_name()), Some("n1"), "the chassis's name");
        assert_eq!(Identity::of_certificate(&der(ca.certificate())), None, "the authority itself is nobody");
        assert_eq!(Identity::of_certificate(b"nothing"), None);
        assert_eq!(der(&pem(&der(ca.certificate()))), der(ca.certificate()));
        assert_eq!(fingerprint(&pem(&der(ca.certificate()))), ca.fingerprint());
    }

    /// The names of a certificate that the authority would not sign, or signed earlier.
    fn reads(common_names: &[&str], units: &[&str]) -> Option<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let all =
            common_names.iter().map(|n| (DnType::CommonName, n)).chain(units.iter().map(|n| (DnType::OrganizationalUnitName, n)));
        all.for_each(|(kind, name)| params.distinguished_name.push(kind, *name));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(is_named_as_now(certificate.der()), !units.is_empty());
        Identity::of_certificate(certificate.der())
    }

    #[test]
    fn names_tell_roles() {
        let node = |name: &str| Some(Identity { role: Role::Node, name: name.into() });
        assert_eq!(reads(&["n1"], &["node"]), node("n1"));
        assert_eq!(reads(&["controller c1"], &["node"]), node("controller c1"), "a name is no role");
        assert_eq!(reads(&["node rack 7"], &[]), node("rack 7"), "of an earlier version");
        for (name, unit) in [("n1", "root"), ("n1", "Node"), ("n1", "node controller"), ("", "node"), ("n1", "")] {
            assert_eq!(reads(&[name], &[unit]), None, "{name:?} {unit:?}");
        }
        for name in ["", "node", "node ", "root c1", "Controller c1"] {
            assert_eq!(reads(&[name], &[]), None, "{name:?}");
        }
        assert_eq!(reads(&[], &["node"]), None);
    }
}
