//! An object store that speaks S3 (AWS, Ceph's RGW, MinIO, Garage …): large objects in parts, ranges, and what was left half done.
//!
//! Written here and not taken from a crate, because what matters most, finding and ending the multi-part uploads of processes that
//! died, is in none of the small ones; the rest is eight requests and a signature.
//!
//! Not done here: redirects (a bucket in another region is a mistake in the configuration), versioned buckets, ACLs, credentials that expire.
mod bucket;
mod download;
mod multipart;
mod sign;
mod xml;

pub use bucket::{Bucket, Object, Place, Unfinished};
pub use download::Download;
pub use multipart::{Multipart, Part};
pub use sign::Credentials;
