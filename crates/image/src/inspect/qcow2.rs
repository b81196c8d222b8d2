//! qcow2, versions 2 and 3.
//!
//! The dangers are a backing file and an external data file, both names of host files in the header. Limits of tables are
//! QEMU's own, so that what passes here does not fail there.
use super::{
    Danger, Format, Source, Verdict,
    magic::inside,
    source::{Piece, Stop, bytes, rule},
    verdict,
};

const FORMAT: Format = Format::Qcow2;
/// Longest list of header extensions; QEMU writes a few hundred bytes.
const MAX_EXTENSIONS: usize = 64 * 1024;
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65_536;
/// Bits of a table entry that hold a cluster's offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

mod incompatible {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
}

mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const DATA_FILE: u32 = 0x4441_5441;
    pub(super) const LUKS_HEADER: u32 = 0x0537_be77;
}

pub(super) fn inspect(source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    let header = Piece::read(source, FORMAT, "header", 0, 512)?;
    verdict(header.be64(24)?, check(source, &header, file_size))
}

fn check(source: &dyn Source, header: &Piece, file_size: u64) -> Result<(), Stop> {
    let version = header.be32(4)?;
    rule(matches!(version, 2 | 3), FORMAT, || format!("its version is {version}"))?;
    if header.be64(8)? != 0 || header.be32(16)? != 0 {
        return Err(Danger::BackingFile.into());
    }
    let features = if version == 3 { header.be64(72)? } else { 0 };
    check_features(features)?;

    let cluster_bits = header.be32(20)?;
    rule((9..=21).contains(&cluster_bits), FORMAT, || format!("its cluster size is 2^{cluster_bits}"))?;
    let cluster = 1_u64 << cluster_bits;
    let header_length = if version == 3 { u64::from(header.be32(100)?) } else { 72 };
    let length_ok = version == 2 || ((104..=cluster).contains(&header_length) && header_length.is_multiple_of(8));
    rule(length_ok, FORMAT, || format!("its header length is {header_length}"))?;
    if version == 3 {
        let order = header.be32(96)?;
        rule(order <= 6, FORMAT, || format!("its refcount order is {order}"))?;
    }
    if features & incompatible::COMPRESSION_TYPE != 0 {
        rule(header_length > 104, FORMAT, || "its compression type is missing".to_owned())?;
        let [kind] = header.array(104)?;
        rule(kind <= 1, FORMAT, || format!("its compression type is {kind}"))?;
    }
    let luks_header = check_extensions(source, header_length, cluster)?;
    check_encryption(header.be32(32)?, luks_header)?;
    check_tables(source, header, features, cluster_bits, file_size)
}

fn check_features(bits: u64) -> Result<(), Danger> {
    if bits & incompatible::DATA_FILE != 0 {
        return Err(Danger::DataFile);
    }
    if bits & !incompatible::KNOWN != 0 {
        return Err(Danger::UnknownFeatures { bits: bits & !incompatible::KNOWN });
    }
    if bits & incompatible::CORRUPT != 0 {
        return Err(Danger::Corrupt);
    }
    if bits & incompatible::DIRTY != 0 {
        return Err(Danger::Dirty);
    }
    Ok(())
}

/// Walks the header extensions; tells whether there is a LUKS header among them.
fn check_extensions(source: &dyn Source, start: u64, cluster: u64) -> Result<bool, Stop> {
    let room = usize::try_from(cluster.saturating_sub(start)).unwrap_or(MAX_EXTENSIONS).min(MAX_EXTENSIONS);
    let list = Piece::read(source, FORMAT, "header extensions", start, room)?;
    let mut luks_header = false;
    let mut at = 0_usize;
    // A list may fill its room without an end mark, or be cut by the end of a file without any data.
    while at + 8 <= list.data.len() {
        let (kind, length) = (list.be32(at)?, list.be32(at + 4)?);
        match kind {
            extension::END => break,
            extension::DATA_FILE => return Err(Danger::DataFile.into()),
            extension::LUKS_HEADER => luks_header = true,
            _ => {}
        }
        let next = usize::try_from(length)
            .ok()
            .and_then(|len| len.checked_next_multiple_of(8))
            .and_then(|len| (at + 8).checked_add(len));
        let fits = next.filter(|next| *next <= room);
        rule(fits.is_some(), FORMAT, || format!("a header extension has {length} bytes"))?;
        at = fits.unwrap_or(room);
    }
    Ok(luks_header)
}

fn check_encryption(method: u32, luks_header: bool) -> Result<(), Danger> {
    match method {
        0 => rule(!luks_header, FORMAT, || "it has a LUKS header but is not encrypted".to_owned()),
        1 => Err(Danger::Encrypted { how: "AES, a method long broken" }),
        2 if luks_header => Err(Danger::Encrypted { how: "LUKS" }),
        2 => rule(false, FORMAT, || "it is encrypted but has no LUKS header".to_owned()),
        other => rule(false, FORMAT, || format!("its encryption method is {other}")),
    }
}

fn check_tables(source: &dyn Source, header: &Piece, features: u64, cluster_bits: u32, file_size: u64) -> Result<(), Stop> {
    let cluster = 1_u64 << cluster_bits;
    let l1_bytes = u64::from(header.be32(36)?) * 8;
    let l1_offset = header.be64(40)?;
    rule(l1_bytes <= MAX_L1_BYTES, FORMAT, || format!("its L1 table has {l1_bytes} bytes"))?;
    rule(l1_offset.is_multiple_of(cluster), FORMAT, || "its L1 table is not aligned".to_owned())?;
    inside(FORMAT, "L1 table", l1_offset, l1_bytes, file_size)?;

    // An L2 table is one cluster of entries of 8 bytes, or 16 with sub-clusters.
    let entry_bits = if features & incompatible::EXTENDED_L2 != 0 { 4 } else { 3 };
    let covered = 1_u128 << (2 * cluster_bits - entry_bits);
    let size = u128::from(header.be64(24)?);
    rule(u128::from(l1_bytes / 8) >= size.div_ceil(covered), FORMAT, || "its L1 table is too small for its disk".to_owned())?;

    let refcounts = u64::from(header.be32(56)?) * cluster;
    let refcount_offset = header.be64(48)?;
    rule(refcounts > 0 && refcounts <= MAX_REFCOUNT_TABLE_BYTES, FORMAT, || format!("its refcount table has {refcounts} bytes"))?;
    rule(refcount_offset.is_multiple_of(cluster), FORMAT, || "its refcount table is not aligned".to_owned())?;
    inside(FORMAT, "refcount table", refcount_offset, refcounts, file_size)?;

    let snapshots = header.be32(60)?;
    rule(snapshots <= MAX_SNAPSHOTS, FORMAT, || format!("it has {snapshots} snapshots"))?;
    if snapshots > 0 {
        let offset = header.be64(64)?;
        rule(offset.is_multiple_of(cluster), FORMAT, || "its snapshot table is not aligned".to_owned())?;
        inside(FORMAT, "snapshot table", offset, u64::from(snapshots) * 40, file_size)?;
    }
    check_l1(source, l1_offset, l1_bytes, cluster, file_size)
}

/// Every L2 table must begin inside the file: this finds files that lost their tail.
fn check_l1(source: &dyn Source, offset: u64, len: u64, cluster: u64, file_size: u64) -> Result<(), Stop> {
    const STEP: u64 = 64 * 1024;
    for at in (0..len).step_by(64 * 1024) {
        let step = STEP.min(len - at) as usize;
        for entry in bytes(source, offset + at, step)?.chunks_exact(8) {
            let table = u64::from_be_bytes(entry.try_into().unwrap_or_default()) & OFFSET_MASK;
            rule(table.is_multiple_of(cluster), FORMAT, || "an L2 table is not aligned".to_owned())?;
            if table >= file_size && table != 0 {
                return Err(Danger::Truncated { format: FORMAT, part: "L2 tables" }.into());
            }
        }
    }
    Ok(())
}
