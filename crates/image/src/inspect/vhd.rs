//! VHD (`vpc` in QEMU): fixed disks with a footer, and dynamic ones. Differencing disks have a parent and are refused.
use super::{
    Danger, Format, Source, Verdict,
    magic::inside,
    source::{Piece, Stop, rule},
    verdict,
};

const FORMAT: Format = Format::Vhd;
const FOOTER: usize = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
/// 2040 GiB, the format's own limit.
const MAX_SECTORS: u64 = 0xff00_0000;
/// The largest geometry; with it the size field counts, for the geometry cannot say more.
const MAX_CHS_SECTORS: u64 = 65_535 * 16 * 255;

pub(super) fn inspect(source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    let head = Piece::read(source, FORMAT, "header", 0, FOOTER)?;
    let at_start = head.data.starts_with(b"conectix");
    let footer =
        if at_start { head } else { Piece::whole(source, FORMAT, "footer", file_size.saturating_sub(FOOTER as u64), FOOTER)? };
    let size = virtual_size(&footer)?;
    verdict(size, check(source, &footer, at_start, size, file_size))
}

/// The size as QEMU sees it: makers known to mean their size field, or else the geometry.
fn virtual_size(footer: &Piece) -> Result<u64, Danger> {
    let maker: [u8; 4] = footer.array(28)?;
    let stated = footer.be64(48)?;
    let [high, low, heads, sectors]: [u8; 4] = footer.array(56)?;
    let geometry = u64::from(u16::from_be_bytes([high, low])) * u64::from(heads) * u64::from(sectors);
    let means_size = [b"win ", b"qem2", b"d2v ", b"tap\0", b"wa\0\0", b"\0\0\0\0"].contains(&&maker);
    Ok(if means_size || geometry == MAX_CHS_SECTORS { stated } else { geometry * 512 })
}

fn check(source: &dyn Source, footer: &Piece, at_start: bool, size: u64, file_size: u64) -> Result<(), Stop> {
    let sum = footer.be32(64)?;
    rule(sum == checksum(&footer.data, 64), FORMAT, || "its footer's checksum is wrong".to_owned())?;
    rule(size.div_ceil(512) <= MAX_SECTORS, FORMAT, || format!("its disk has {size} bytes, more than a VHD can have"))?;
    match (footer.be32(60)?, at_start) {
        (DIFFERENCING, _) => Err(Danger::Parent.into()),
        (FIXED, false) => {
            rule(size <= file_size - FOOTER as u64, FORMAT, || "it is shorter than its disk".to_owned())?;
            Ok(())
        }
        (DYNAMIC, true) => check_dynamic(source, footer.be64(16)?, size, file_size),
        (kind, _) => Ok(rule(false, FORMAT, || format!("its disk type is {kind} at an odd place"))?),
    }
}

fn check_dynamic(source: &dyn Source, offset: u64, size: u64, file_size: u64) -> Result<(), Stop> {
    let header = Piece::whole(source, FORMAT, "dynamic header", offset, 1024)?;
    rule(header.data.starts_with(b"cxsparse"), FORMAT, || "it has no dynamic header".to_owned())?;
    let sum = header.be32(36)?;
    rule(sum == checksum(&header.data, 36), FORMAT, || "its dynamic header's checksum is wrong".to_owned())?;
    // The parent's UUID, and the first of eight parent locators.
    if header.array::<16>(40)? != [0; 16] || header.data[576..768].iter().any(|byte| *byte != 0) {
        return Err(Danger::Parent.into());
    }
    let (entries, block) = (u64::from(header.be32(28)?), u64::from(header.be32(32)?));
    rule(block.is_power_of_two() && block >= 512, FORMAT, || format!("its blocks have {block} bytes"))?;
    rule(entries <= MAX_SECTORS / (block / 512), FORMAT, || format!("its block table has {entries} entries"))?;
    rule(size <= entries * block, FORMAT, || "its block table is too small for its disk".to_owned())?;
    inside(FORMAT, "block table", header.be64(16)?, entries * 4, file_size)?;
    Ok(())
}

/// One's complement of the sum of all bytes, the checksum field itself counted as zero.
pub(super) fn checksum(data: &[u8], field: usize) -> u32 {
    let counted = data.iter().enumerate().filter(|(at, _)| !(field..field + 4).contains(at));
    !counted.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}
