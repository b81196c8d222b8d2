//! Images that are verified by a signature, as Glance does it (`glance/location.py`, with the libraries cursive and castellan).
//!
//! ```text
//! img_signature* ──▶ Asked ── certificate from the key manager, with the caller's token ──▶ Signed ── hash of the data ──▶ verified
//! ```
//! Data for an image with all four properties is taken only when it has that signature by the certificate's key; with fewer of them nothing is
//! verified. What needs the caller's token happens while the request lasts: an import keeps the key in its row.
//!
//! As in Glance, nobody asks who issued the certificate: who may put it into the key manager is that one's affair. Two things are stricter than
//! cursive's `get_verifier`: the certificate's dates count, and a key of type `ECC_…` must be on the curve that the type names.
mod certificate;
mod key_manager;
mod keys;
#[cfg(test)]
mod tests;

use crate::{App, image::Image};
use api::Call;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keys::Key;
use resource::{Error, Object, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::task::spawn_blocking;

/// Glance verifies when all of them are set, and does nothing otherwise.
const SIGNATURE: &str = "img_signature";
const HASH_METHOD: &str = "img_signature_hash_method";
const KEY_TYPE: &str = "img_signature_key_type";
const CERTIFICATE: &str = "img_signature_certificate_uuid";

/// Bytes of the longest signature.
const LONGEST: usize = 4096;

/// What an image's properties ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// In base64.
    signature: String,
    hash_method: HashMethod,
    key_type: KeyType,
    /// The certificate's UUID in the key manager.
    certificate: String,
}

/// The same with the key that the signature must be by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    #[serde(flatten)]
    asked: Asked,
    /// The certificate's SubjectPublicKeyInfo (RFC 5280), DER in base64.
    key: String,
}

/// Hashes that can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum HashMethod {
    #[serde(rename = "SHA-224")]
    Sha224,
    #[serde(rename = "SHA-256")]
    Sha256,
    #[serde(rename = "SHA-384")]
    Sha384,
    #[serde(rename = "SHA-512")]
    Sha512,
}

/// Keys that can sign. Glance's curves over binary fields (`ECC_SECT…`) are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum KeyType {
    #[serde(rename = "RSA-PSS")]
    RsaPss,
    #[serde(rename = "DSA")]
    Dsa,
    #[serde(rename = "ECC_SECP384R1")]
    Secp384r1,
    #[serde(rename = "ECC_SECP521R1")]
    Secp521r1,
}

/// Why data is not verified. The words are cursive's where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unverified {
    #[error("Invalid signature hash method: {name}; it must be SHA-224, SHA-256, SHA-384 or SHA-512")]
    HashMethod { name: String },
    #[error("Invalid signature key type: {name}; it must be RSA-PSS, DSA, ECC_SECP384R1 or ECC_SECP521R1")]
    KeyType { name: String },
    #[error("The signature data was not properly encoded using base64, or has more than {} bytes", LONGEST)]
    Encoding,
    #[error("{} is not a UUID: {given}", CERTIFICATE)]
    NotAnId { given: String },
    #[error(
        "this cloud has no key manager that would hold the certificate, so the image cannot be verified; \
         remove its img_signature properties to upload it unverified"
    )]
    NoKeyManager,
    #[error("Certificate not found with ID: {id}")]
    NoCertificate { id: String },
    #[error("Unable to retrieve certificate with ID: {id}; the key manager answered {status}")]
    Answered { id: String, status: u16 },
    #[error("Unable to retrieve certificate with ID: {id}; the key manager did not give it in {within:?}, try again")]
    Late { id: String, within: Duration },
    #[error("Unable to retrieve certificate with ID: {id}; the key manager gave no usable answer")]
    Unasked { id: String, source: web::Error },
    #[error("Unable to retrieve certificate with ID: {id}; what the key manager says of it is not understood: {what}")]
    NotUnderstood { id: String, what: &'static str },
    #[error("Invalid certificate format: {what}")]
    Format { what: &'static str },
    #[error("The certificate is outside its valid date range, which is from {from} to {until}")]
    Dates { from: base::Timestamp, until: base::Timestamp },
    #[error("Invalid public key type for signature key type: {name}; {what}")]
    Key { name: String, what: &'static str },
    #[error("the data does not have this signature by the certificate's key")]
    Mismatch,
}

impl Unverified {
    /// In words for the image's owner.
    pub(crate) fn told(&self, image: &str) -> String {
        format!("Signature verification failed for image {image}: {self}.")
    }

    /// As the answer to a request.
    pub(crate) fn refusal(&self, image: &str) -> Error {
        Error::bad_request(self.told(image)).context(base::chain(self))
    }
}

/// What a property says, as it may be repeated in a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Of a name as it is written in properties and rows.
fn named<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

/// What the image asks for; nothing unless all properties are set.
fn read(image: &Image) -> std::result::Result<Option<Asked>, Unverified> {
    let text = |name: &str| image.properties.get(name).map(|value| value.as_str().unwrap_or_default());
    let (Some(signature), Some(hash), Some(key), Some(id)) =
        (text(SIGNATURE), text(HASH_METHOD), text(KEY_TYPE), text(CERTIFICATE))
    else {
        return Ok(None);
    };
    let signature: String = signature.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if !STANDARD.decode(&signature).is_ok_and(|bytes| (1..=LONGEST).contains(&bytes.len())) {
        return Err(Unverified::Encoding);
    }
    let hash_method = named(hash).ok_or_else(|| Unverified::HashMethod { name: shown(hash) })?;
    let key_type = named(key).ok_or_else(|| Unverified::KeyType { name: shown(key) })?;
    if !base::id::is_uuid(id) {
        return Err(Unverified::NotAnId { given: shown(id) });
    }
    Ok(Some(Asked { signature, hash_method, key_type, certificate: id.to_owned() }))
}

/// What the image asks for; nothing unless all properties are set. Fails with 400 when it is nothing that can be verified.
pub(crate) fn asked(image: &Object<Image>) -> Result<Option<Asked>> {
    read(image).map_err(|e| e.refusal(&image.id))
}

/// Fails with 400 when the cloud has nobody who could have a certificate.
pub(crate) fn check_key_manager(call: &Call) -> Result<()> {
    key_manager::address(call).map(drop).ok_or_else(|| Unverified::NoKeyManager.refusal(call.param("id")))
}

/// Gets the certificate, with the caller's token, for the image of the path. Fails with 400.
pub(crate) async fn certify(app: &App, call: &Call, asked: Option<Asked>) -> Result<Option<Signed>> {
    let Some(asked) = asked else { return Ok(None) };
    let work = async {
        let id = &asked.certificate;
        let certificate = key_manager::certificate(&app.options, call, id).await?;
        let key = certificate::key(&certificate, call.cloud.db.now())?;
        Key::read(asked.key_type, &key)?;
        Ok(STANDARD.encode(key))
    };
    let key = work.await.map_err(|e: Unverified| e.refusal(call.param("id")))?;
    Ok(Some(Signed { asked, key }))
}

/// Fails with 409 when the image asks for something else by now.
pub(crate) fn check_unchanged(image: &Object<Image>, signed: Option<&Signed>) -> Result<()> {
    if asked(image)?.as_ref() == signed.map(|signed| &signed.asked) {
        return Ok(());
    }
    Err(Error::conflict(format!("The signature of image {} was changed meanwhile; try again.", image.id)))
}

impl HashMethod {
    /// As [`crate::digest`] calls it.
    fn algorithm(self) -> &'static str {
        match self {
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl Signed {
    /// The hash of the data that is needed, as [`crate::digest`] calls it.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.asked.hash_method.algorithm()
    }

    /// Is it the signature of data that hashes to this?
    pub(crate) async fn verify(&self, hash: Option<&[u8]>) -> std::result::Result<(), Unverified> {
        let (signed, hash) = (self.clone(), hash.unwrap_or_default().to_vec());
        // Large numbers take their time. What a hostile key breaks is that thread's work alone.
        let work = spawn_blocking(move || signed.verify_here(&hash));
        work.await.unwrap_or(Err(Unverified::Mismatch))
    }

    fn verify_here(&self, hash: &[u8]) -> std::result::Result<(), Unverified> {
        let Asked { signature, hash_method, key_type, .. } = &self.asked;
        let signature = STANDARD.decode(signature).map_err(|_| Unverified::Encoding)?;
        let key = STANDARD.decode(&self.key).map_err(|_| Unverified::Format { what: "the kept key is not base64" })?;
        let fits = Key::read(*key_type, &key)?.verify(*hash_method, hash, &signature);
        if fits { Ok(()) } else { Err(Unverified::Mismatch) }
    }
}
