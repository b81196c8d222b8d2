//! Why a file must not be opened, in words for the person who uploaded it.
use super::Format;

/// A reason not to let QEMU open the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Danger {
    #[error("the image is empty; upload the file's content")]
    Empty,
    #[error(
        "the image carries the marks of two formats, {format} and {other}; convert it with `qemu-img convert` and upload the result"
    )]
    Polyglot { format: Format, other: Format },
    #[error("images in {format} format are not supported; convert it to qcow2 with `qemu-img convert -O qcow2`")]
    Unsupported { format: Format },
    #[error("the image is a LUKS container, whose key this cloud cannot hold yet; decrypt it and upload the plain disk")]
    Luks,
    #[error("the image is encrypted ({how}); decrypt it with `qemu-img convert` and upload the result")]
    Encrypted { how: &'static str },
    #[error("the {format} file ends before its {part}; upload the whole file again")]
    Truncated { format: Format, part: &'static str },
    #[error("the {format} image is malformed: {what}; check it with `qemu-img check` and upload a repaired copy")]
    Malformed { format: Format, what: String },
    #[error("the image says that its disk has {virtual_size} bytes, more than can exist; make it anew with `qemu-img convert`")]
    TooLarge { virtual_size: u64 },
    #[error("the image needs a backing file; flatten it with `qemu-img convert` and upload the result")]
    BackingFile,
    #[error("the image keeps its data in another file; merge them with `qemu-img convert` and upload the result")]
    DataFile,
    #[error("the image uses qcow2 features that are not known here (bits {bits:#x}); convert it with `qemu-img convert`")]
    UnknownFeatures { bits: u64 },
    #[error("the image was not closed cleanly; repair it with `qemu-img check -r all` and upload it again")]
    Dirty,
    #[error("the image is marked as corrupt; repair it with `qemu-img check -r all` and upload it again")]
    Corrupt,
    #[error(
        "the VMDK has the sub-format `{create_type}`, which uses other files; convert it to monolithicSparse or streamOptimized"
    )]
    VmdkSubformat { create_type: String },
    #[error("the VMDK descriptor names the extent `{extent}`, which may be another file; convert it to a monolithicSparse image")]
    VmdkExtent { extent: String },
    #[error("the image is a child of another disk (differencing or snapshot image); merge them and upload the result")]
    Parent,
    #[error("the VHDX has changes in its log that were not applied; open and close it once in Hyper-V, or convert it")]
    PendingLog,
}
