//! Images that are to be verified by a signature.
//!
//! Glance takes the certificate from a key manager. This cloud has none yet, so an image that asks for it by all four properties is not
//! taken at all: one that nobody verified must not look as if somebody had.
use crate::image::Image;
use resource::{Error, Result};

/// Glance verifies when all of them are set, and does nothing otherwise.
const PROPERTIES: [&str; 4] =
    ["img_signature", "img_signature_hash_method", "img_signature_key_type", "img_signature_certificate_uuid"];

/// Refuses data for an image that asks for what nobody can do.
pub(crate) fn check(image: &Image) -> Result<()> {
    if PROPERTIES.iter().all(|name| image.properties.contains_key(*name)) {
        return Err(Error::bad_request(
            "Signature verification failed: this cloud has no key manager that would hold the certificate, so the image cannot be verified; \
             remove its img_signature properties to upload it unverified.",
        ));
    }
    Ok(())
}
