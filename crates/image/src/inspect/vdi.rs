//! VirtualBox disks. The danger is a parent disk; the rest are QEMU's own rules for the header.
use super::{
    Danger, Format, Source, Verdict,
    magic::inside,
    source::{Piece, Stop, rule},
    verdict,
};

const FORMAT: Format = Format::Vdi;
const BLOCK: u64 = 1 << 20;
const MAX_BLOCKS: u32 = 0x3fff_ffff;
/// Image types: grown on demand, or allocated in full. Others are children of another disk.
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;

pub(super) fn inspect(source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    let header = Piece::read(source, FORMAT, "header", 0, 512)?;
    // QEMU rounds an odd size up to sectors.
    let size = header.le64(368)?.checked_next_multiple_of(512).unwrap_or(u64::MAX);
    verdict(size, check(&header, size, file_size))
}

fn check(header: &Piece, size: u64, file_size: u64) -> Result<(), Stop> {
    let version = header.le32(68)?;
    rule(version == 0x0001_0001, FORMAT, || format!("its version is {version:#x}"))?;
    // Links to the disk that this one was made from: UUIDs of the parent, and of the parent's state.
    if header.array::<16>(424)? != [0; 16] || header.array::<16>(440)? != [0; 16] {
        return Err(Danger::Parent.into());
    }
    let kind = header.le32(76)?;
    if !matches!(kind, DYNAMIC | STATIC) {
        return Err(Danger::Parent.into());
    }
    let (sector, block) = (header.le32(360)?, header.le32(376)?);
    rule(sector == 512, FORMAT, || format!("its sectors have {sector} bytes"))?;
    rule(u64::from(block) == BLOCK, FORMAT, || format!("its blocks have {block} bytes"))?;
    let blocks = header.le32(384)?;
    rule(blocks <= MAX_BLOCKS, FORMAT, || format!("it has {blocks} blocks"))?;
    rule(size <= u64::from(blocks) * BLOCK, FORMAT, || "it has too few blocks for its disk".to_owned())?;
    let (map, data) = (header.le32(340)?, header.le32(344)?);
    rule(map >= 512 && map.is_multiple_of(512) && data.is_multiple_of(512), FORMAT, || {
        "its block map is not aligned".to_owned()
    })?;
    inside(FORMAT, "block map", map.into(), u64::from(blocks) * 4, file_size)?;
    // Blocks are written whole, so a file that lost its tail shows in the count of those in use.
    if u64::from(data) + u64::from(header.le32(388)?) * BLOCK > file_size {
        return Err(Danger::Truncated { format: FORMAT, part: "blocks" }.into());
    }
    Ok(())
}
