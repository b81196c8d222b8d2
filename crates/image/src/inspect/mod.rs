//! What an image file is, decided by its bytes and never by what its uploader says.
//!
//! A disk image is a program for the host's QEMU: a header can name other files of the host as backing files, data files or
//! extents, and a wrong format lets a guest's own disk content be read as such a header. So each file is given exactly one
//! [`Format`], and [`Inspection::safety`] says whether a QEMU that is started with `-f <format>` will read this file and
//! nothing else. Files with the marks of two formats are refused, for another reader may see the other one.
//!
//! All of it is hostile input: reads are bounded (at most 1 MiB at a time), arithmetic is checked, nothing panics. An error is
//! returned only when the file cannot be read; whatever is wrong with its content is a [`Danger`].
//!
//! Not done here: decompressing clusters, following second level tables, unlocking encrypted images.
mod check;
mod danger;
mod magic;
mod qcow2;
mod source;
#[cfg(test)]
mod tests;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

pub use check::{Refusal, accepts, check, check_growth};
pub use danger::Danger;
pub use source::Source;

use source::Stop;
use std::{fmt, io};

/// A disk format, told by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// No container: a disk, with or without a partition table, a file system, a kernel.
    Raw,
    Qcow2,
    /// Version 1 of qcow2's ancestor; always refused.
    Qcow,
    Vmdk,
    /// QEMU calls it `vpc`.
    Vhd,
    Vhdx,
    Vdi,
    /// ISO 9660 or UDF; hybrids with a partition table are also this.
    Iso,
    Qed,
    Luks,
    /// QEMU calls it `parallels`.
    Ploop,
    Bochs,
    Cloop,
}

impl Format {
    /// Glance's name of the format (`disk_format`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow => "qcow",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Qed => "qed",
            Self::Luks => "luks",
            Self::Ploop => "ploop",
            Self::Bochs => "bochs",
            Self::Cloop => "cloop",
        }
    }

    /// The block driver to give QEMU (`-f`, `driver=`), or none for formats that are never opened.
    pub fn driver(self) -> Option<&'static str> {
        match self {
            Self::Raw | Self::Iso => Some("raw"),
            Self::Qcow2 => Some("qcow2"),
            Self::Vmdk => Some("vmdk"),
            Self::Vhd => Some("vpc"),
            Self::Vhdx => Some("vhdx"),
            Self::Vdi => Some("vdi"),
            Self::Qcow | Self::Qed | Self::Luks | Self::Ploop | Self::Bochs | Self::Cloop => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A partition table at the start of a raw disk or a hybrid ISO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    Mbr,
    Gpt,
}

/// What a file is.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub format: Format,
    /// Bytes that a guest sees; 0 when the header could not be read.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
    pub partitions: Option<Partitions>,
    /// May QEMU open it with this format?
    pub safety: Result<(), Danger>,
}

/// What a format's own module found.
struct Verdict {
    virtual_size: u64,
    safety: Result<(), Danger>,
}

impl Verdict {
    /// A format that is known but never accepted.
    fn refused(danger: Danger) -> Self {
        Self { virtual_size: 0, safety: Err(danger) }
    }
}

/// Decides what the file is. Reads little: headers, tables of bounded size, the last sectors.
pub fn inspect(source: &dyn Source) -> io::Result<Inspection> {
    let file_size = source.size()?;
    let marks = magic::marks(source, file_size)?;
    let partitions = magic::partitions(source)?;
    let (format, verdict) = match *marks.as_slice() {
        [] => (Format::Raw, raw(file_size)),
        [format] => (format, settle(read_format(format, source, file_size))?),
        [format, other, ..] => (format, Verdict::refused(Danger::Polyglot { format, other })),
    };
    let safety = match verdict.safety {
        Ok(()) if verdict.virtual_size > MAX_VIRTUAL_SIZE => Err(Danger::TooLarge { virtual_size: verdict.virtual_size }),
        Ok(()) if verdict.virtual_size == 0 => Err(Danger::Empty),
        other => other,
    };
    Ok(Inspection { format, virtual_size: verdict.virtual_size, file_size, partitions, safety })
}

/// The largest disk that offsets in QEMU can address; a header that says more is made to overflow someone's arithmetic.
pub const MAX_VIRTUAL_SIZE: u64 = i64::MAX as u64 - (1 << 21);

fn raw(file_size: u64) -> Verdict {
    Verdict { virtual_size: file_size, safety: Ok(()) }
}

fn read_format(format: Format, source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    match format {
        Format::Raw | Format::Iso => Ok(raw(file_size)),
        Format::Qcow2 => qcow2::inspect(source, file_size),
        Format::Vmdk => vmdk::inspect(source, file_size),
        Format::Vhd => vhd::inspect(source, file_size),
        Format::Vhdx => vhdx::inspect(source, file_size),
        Format::Vdi => vdi::inspect(source, file_size),
        Format::Luks => Ok(Verdict::refused(Danger::Luks)),
        Format::Qcow | Format::Qed | Format::Ploop | Format::Bochs | Format::Cloop => {
            Ok(Verdict::refused(Danger::Unsupported { format }))
        }
    }
}

fn settle(read: Result<Verdict, Stop>) -> io::Result<Verdict> {
    match read {
        Ok(verdict) => Ok(verdict),
        Err(Stop::Danger(danger)) => Ok(Verdict::refused(danger)),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// A verdict of a size that is known and checks that may have failed.
fn verdict(virtual_size: u64, checks: Result<(), Stop>) -> Result<Verdict, Stop> {
    match checks {
        Ok(()) => Ok(Verdict { virtual_size, safety: Ok(()) }),
        Err(Stop::Danger(danger)) => Ok(Verdict { virtual_size, safety: Err(danger) }),
        Err(Stop::Io(error)) => Err(Stop::Io(error)),
    }
}
