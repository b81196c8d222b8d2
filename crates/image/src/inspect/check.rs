//! Does a file deserve the name that its uploader gave it?
//!
//! The declared format must be the one found: a file declared `raw` that is qcow2 inside would be opened by any program that
//! probes, and a guest could write such a header into its own disk. A LUKS container is refused even when declared `raw`: it
//! would be opened without harm by us, but every tool that looks at content would take it for something else than its name.
use super::{Danger, Format, Inspection};

/// Why an upload is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("disk_format is {declared}, but the content is {actual}; {advice}")]
    Mismatch { declared: String, actual: Format, advice: String },
    #[error(transparent)]
    Unsafe(#[from] Danger),
    #[error("the image's disk has {virtual_size} bytes, more than the {limit} allowed; make it smaller")]
    TooLarge { virtual_size: u64, limit: u64 },
    #[error("the image would grow from {file_size} to {virtual_size} bytes, more than {limit} times; upload a smaller disk")]
    Growth { file_size: u64, virtual_size: u64, limit: u64 },
}

/// Refuses content that is unsafe or not what `declared` (Glance's `disk_format`) says.
pub fn check(declared: &str, inspection: &Inspection) -> Result<(), Refusal> {
    // These two say more about the file than a mismatch would.
    if let Err(danger @ (Danger::Empty | Danger::Polyglot { .. })) = &inspection.safety {
        return Err(danger.clone().into());
    }
    if !accepts(declared, inspection) {
        let advice = match inspection.format {
            Format::Raw => format!("set disk_format to raw, or upload a {declared} file"),
            actual if actual.driver().is_some() => format!("set disk_format to {actual}, or convert the file"),
            _ => "convert it to qcow2 with `qemu-img convert -O qcow2`".to_owned(),
        };
        return Err(Refusal::Mismatch { declared: declared.to_owned(), actual: inspection.format, advice });
    }
    inspection.safety.clone().map_err(Refusal::from)
}

/// Does the declared `disk_format` cover what was found?
pub fn accepts(declared: &str, inspection: &Inspection) -> bool {
    match declared {
        // Amazon's kernels, ramdisks and file systems have no container.
        "raw" | "aki" | "ari" | "ami" => inspection.format == Format::Raw,
        "gpt" => inspection.format == Format::Raw && inspection.partitions.is_some(),
        name => inspection.format != Format::Raw && inspection.format.name() == name,
    }
}

/// Disks up to this size may be as sparse as they like: an empty disk is a legitimate image.
const SPARSE_FREELY: u64 = 10 << 30;

/// Refuses disks larger than `max_size` bytes, and large ones that have less than one byte of file for `max_ratio` of disk.
pub fn check_growth(inspection: &Inspection, max_size: u64, max_ratio: u64) -> Result<(), Refusal> {
    let Inspection { virtual_size, file_size, .. } = *inspection;
    if virtual_size > max_size {
        return Err(Refusal::TooLarge { virtual_size, limit: max_size });
    }
    if virtual_size > SPARSE_FREELY && virtual_size > file_size.saturating_mul(max_ratio) {
        return Err(Refusal::Growth { file_size, virtual_size, limit: max_ratio });
    }
    Ok(())
}
