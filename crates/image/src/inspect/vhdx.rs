//! VHDX. The dangers are a parent disk, and a log whose replay would change what was inspected.
use super::{
    Danger, Format, Source, Verdict,
    magic::inside,
    source::{Piece, Stop, bytes, rule},
    verdict,
};

const FORMAT: Format = Format::Vhdx;
const KIB: u64 = 1024;
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const HEADER_LEN: usize = 4096;
const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
const TABLE_LEN: usize = 64 * 1024;
const MAX_ENTRIES: u32 = 2047;
const MAX_SIZE: u64 = 64 << 40;
/// Flag of the file parameters: blocks may be in a parent.
const HAS_PARENT: u32 = 1 << 1;

type Guid = [u8; 16];
const BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const SECTOR_SIZE: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PARENT_LOCATOR: Guid = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

/// GUIDs are stored with their first three fields in little endian.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

pub(super) fn inspect(source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    let metadata = find_metadata(source, file_size)?;
    let size = metadata.number(source, DISK_SIZE)?;
    verdict(size, check(source, &metadata, size))
}

fn check(source: &dyn Source, metadata: &Metadata, size: u64) -> Result<(), Stop> {
    check_header(source)?;
    let parameters = metadata.number(source, FILE_PARAMETERS)?;
    let (block, flags) = (parameters & 0xffff_ffff, (parameters >> 32) as u32);
    if flags & HAS_PARENT != 0 || metadata.item(PARENT_LOCATOR)?.is_some() {
        return Err(Danger::Parent.into());
    }
    let block_ok = block.is_power_of_two() && (1 << 20..=256 << 20).contains(&block);
    rule(block_ok, FORMAT, || format!("its blocks have {block} bytes"))?;
    let sector = metadata.number(source, SECTOR_SIZE)? & 0xffff_ffff;
    rule(matches!(sector, 512 | 4096), FORMAT, || format!("its sectors have {sector} bytes"))?;
    rule(size <= MAX_SIZE && size.is_multiple_of(sector), FORMAT, || format!("its disk has {size} bytes"))?;
    // One entry of 8 bytes per block, and one per chunk of blocks for a bitmap.
    let blocks = size.div_ceil(block);
    let ratio = (sector << 23) / block;
    let entries = blocks + blocks.saturating_sub(1) / ratio.max(1);
    rule(entries * 8 <= metadata.bat_len, FORMAT, || "its block table is too small for its disk".to_owned())?;
    Ok(())
}

/// The current header is the valid one with the higher sequence number; its log must be empty.
fn check_header(source: &dyn Source) -> Result<(), Stop> {
    let mut current: Option<(u64, Piece)> = None;
    for offset in HEADERS {
        let header = Piece::read(source, FORMAT, "headers", offset, HEADER_LEN)?;
        if header.data.len() < HEADER_LEN || !header.data.starts_with(b"head") || header.le32(4)? != crc32c(&header.data, 4) {
            continue;
        }
        let sequence = header.le64(8)?;
        if current.as_ref().is_none_or(|(newest, _)| sequence > *newest) {
            current = Some((sequence, header));
        }
    }
    let Some((_, header)) = current else {
        return Err(malformed("it has no valid header").into());
    };
    let version = header.le16(66)?;
    rule(version == 1, FORMAT, || format!("its version is {version}"))?;
    if header.array::<16>(48)? != [0; 16] { Err(Danger::PendingLog.into()) } else { Ok(()) }
}

/// The metadata region: a table of items, each somewhere in the region.
struct Metadata {
    offset: u64,
    len: u64,
    table: Piece,
    count: usize,
    bat_len: u64,
}

fn find_metadata(source: &dyn Source, file_size: u64) -> Result<Metadata, Stop> {
    let regions = Piece::whole(source, FORMAT, "region table", REGION_TABLES[0], TABLE_LEN)?;
    rule(regions.data.starts_with(b"regi"), FORMAT, || "it has no region table".to_owned())?;
    // Readers may use either copy: they must say the same.
    let same = bytes(source, REGION_TABLES[1], TABLE_LEN)? == regions.data;
    rule(same, FORMAT, || "its two region tables differ".to_owned())?;
    rule(regions.le32(4)? == crc32c(&regions.data, 4), FORMAT, || "its region table's checksum is wrong".to_owned())?;
    let count = regions.le32(8)?;
    rule(count <= MAX_ENTRIES, FORMAT, || format!("its region table has {count} entries"))?;
    let (mut found, mut bat) = (None, None);
    for entry in (0..count as usize).map(|n| 16 + n * 32) {
        let region = (regions.le64(entry + 16)?, u64::from(regions.le32(entry + 24)?));
        inside(FORMAT, "region", region.0, region.1, file_size)?;
        let slot = match regions.array(entry)? {
            METADATA => &mut found,
            BAT => &mut bat,
            _ if regions.le32(entry + 28)? & 1 == 0 => continue,
            _ => return Err(malformed("it has a required region of an unknown kind").into()),
        };
        rule(slot.replace(region).is_none(), FORMAT, || "a region is listed twice".to_owned())?;
    }
    let missing = || malformed("a required region is missing");
    let ((offset, len), (_, bat_len)) = (found.ok_or_else(missing)?, bat.ok_or_else(missing)?);
    let table = Piece::whole(source, FORMAT, "metadata", offset, TABLE_LEN)?;
    rule(table.data.starts_with(b"metadata"), FORMAT, || "it has no metadata table".to_owned())?;
    let count = table.le16(10)?;
    rule(u32::from(count) <= MAX_ENTRIES, FORMAT, || format!("its metadata table has {count} entries"))?;
    Ok(Metadata { offset, len, table, count: count.into(), bat_len })
}

impl Metadata {
    /// Offset of an item in the file.
    fn item(&self, id: Guid) -> Result<Option<u64>, Danger> {
        let mut found = None;
        for entry in (0..self.count).map(|n| 32 + n * 32) {
            if self.table.array::<16>(entry)? == id {
                rule(found.is_none(), FORMAT, || "a metadata item is listed twice".to_owned())?;
                let at = u64::from(self.table.le32(entry + 16)?);
                rule(at >= TABLE_LEN as u64 && at + 8 <= self.len, FORMAT, || {
                    "a metadata item lies outside its region".to_owned()
                })?;
                found = Some(self.offset + at);
            }
        }
        Ok(found)
    }

    /// The first 8 bytes of a required item.
    fn number(&self, source: &dyn Source, id: Guid) -> Result<u64, Stop> {
        let at = self.item(id)?;
        let at = at.ok_or_else(|| malformed("a required metadata item is missing"))?;
        Ok(Piece::whole(source, FORMAT, "metadata items", at, 8)?.le64(0)?)
    }
}

fn malformed(what: &str) -> Danger {
    Danger::Malformed { format: FORMAT, what: what.to_owned() }
}

/// CRC-32C (Castagnoli), the checksum field itself counted as zero.
pub(super) fn crc32c(data: &[u8], field: usize) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in data.iter().enumerate() {
        let byte = if (field..field + 4).contains(&at) { 0 } else { *byte };
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
