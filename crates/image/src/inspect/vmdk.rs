//! VMware disks in one file: `monolithicSparse` and `streamOptimized`.
//!
//! Every other sub-format is a text that names other files, which on a cloud's host means any file of the host. The text
//! inside an accepted file is read strictly as well: a line that is not understood is a refusal, for other readers may give
//! it a meaning.
use super::{
    Danger, Format, Source, Verdict,
    magic::inside,
    source::{Piece, Stop, bytes, rule},
    verdict,
};

const FORMAT: Format = Format::Vmdk;
const SECTOR: u64 = 512;
/// How much of a file's start is searched for a descriptor.
pub(super) const TEXT_PROBE: usize = 64 * 1024;
const MAX_DESCRIPTOR: u64 = 64 * 1024;
/// QEMU looks for a parent in so many bytes, whatever the header says.
const PARENT_PROBE: usize = 20 * 512;
/// The grain directory's place is said by a footer.
const AT_END: u64 = u64::MAX;
const MAX_L1_ENTRIES: u64 = 32 << 20;

/// Is this the start of a text descriptor? By QEMU's rule, or VMware's, or if it sets a create type.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && line[0] != b'#').unwrap_or_default();
    let versioned = [b"version=1", b"version=2", b"version=3"].iter().any(|mark| first.starts_with(*mark));
    let start = &head[..head.len().min(512)];
    let text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    versioned || finds(start, b"# disk descriptorfile") || (text && finds(head, b"createtype"))
}

/// Is `word` (lower case) in `text`, in any case?
fn finds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

pub(super) fn inspect(source: &dyn Source, file_size: u64) -> Result<Verdict, Stop> {
    let header = Piece::read(source, FORMAT, "header", 0, 512)?;
    if !header.data.starts_with(b"KDMV") {
        let create_type = if header.data.starts_with(b"COWD") {
            "vmfsSparse".to_owned()
        } else {
            let text = bytes(source, 0, TEXT_PROBE)?;
            create_type(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "none".to_owned())
        };
        return Ok(Verdict::refused(Danger::VmdkSubformat { create_type }));
    }
    let size = header.le64(12)?.saturating_mul(SECTOR);
    verdict(size, check(source, &header, file_size))
}

fn check(source: &dyn Source, header: &Piece, file_size: u64) -> Result<(), Stop> {
    check_geometry(header, file_size)?;
    let directory = header.le64(56)?;
    if directory == AT_END {
        check_footer(source, header, file_size)?;
    } else {
        check_directory(directory, header, file_size)?;
    }
    let sectors = header.le64(36)?;
    let descriptor_ok = header.le64(28)? == 1 && (1..=MAX_DESCRIPTOR / SECTOR).contains(&sectors);
    rule(descriptor_ok, FORMAT, || "its descriptor is not where it must be".to_owned())?;
    let len = (sectors * SECTOR) as usize;
    let text = bytes(source, SECTOR, len.max(PARENT_PROBE))?;
    if finds(&text, b"parentfilenamehint") {
        return Err(Danger::Parent.into());
    }
    if text.len() < len {
        return Err(Danger::Truncated { format: FORMAT, part: "descriptor" }.into());
    }
    let text = text[..len].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(check_descriptor(&String::from_utf8_lossy(text))?)
}

fn check_geometry(header: &Piece, file_size: u64) -> Result<(), Danger> {
    let version = header.le32(4)?;
    rule((1..=3).contains(&version), FORMAT, || format!("its version is {version}"))?;
    let (capacity, grain, per_table) = (header.le64(12)?, header.le64(20)?, u64::from(header.le32(44)?));
    // With no capacity of its own, readers take the extents of the descriptor: other files.
    rule(capacity > 0, FORMAT, || "its header has no capacity".to_owned())?;
    let grain_ok = grain.is_power_of_two() && (8..=1 << 16).contains(&grain);
    rule(grain_ok, FORMAT, || format!("its grains have {grain} sectors"))?;
    rule((1..=512).contains(&per_table), FORMAT, || format!("its tables have {per_table} entries"))?;
    let tables = capacity.div_ceil(grain * per_table);
    rule(tables <= MAX_L1_ENTRIES, FORMAT, || format!("its grain directory has {tables} entries"))?;
    let compression = header.le16(77)?;
    rule(compression <= 1, FORMAT, || format!("its compression method is {compression}"))?;
    let data = header.le64(64)?;
    if data.checked_mul(SECTOR).is_none_or(|at| at > file_size) {
        return Err(Danger::Truncated { format: FORMAT, part: "first grain" });
    }
    Ok(())
}

fn check_directory(sector: u64, header: &Piece, file_size: u64) -> Result<(), Danger> {
    let tables = header.le64(12)?.div_ceil((header.le64(20)? * u64::from(header.le32(44)?)).max(1));
    let offset = sector.saturating_mul(SECTOR);
    rule(offset >= SECTOR, FORMAT, || "its grain directory is in its header".to_owned())?;
    inside(FORMAT, "grain directory", offset, tables * 4, file_size)
}

/// A footer replaces the header, so it must say the same but for the places of tables.
fn check_footer(source: &dyn Source, header: &Piece, file_size: u64) -> Result<(), Stop> {
    const LEN: u64 = 3 * SECTOR;
    const MARKER: u64 = 3;
    let at = file_size.checked_sub(LEN).filter(|at| *at >= SECTOR);
    let at = at.ok_or(Danger::Truncated { format: FORMAT, part: "footer" })?;
    let footer = Piece::whole(source, FORMAT, "footer", at, LEN as usize)?;
    let marked = footer.le32(8)? == 0
        && u64::from(footer.le32(12)?) == MARKER
        && footer.data[16..512].iter().all(|byte| *byte == 0)
        && footer.data[1024..].iter().all(|byte| *byte == 0);
    if !marked {
        return Err(Danger::Truncated { format: FORMAT, part: "footer" }.into());
    }
    let copy = &footer.data[512..1024];
    let same = Some(&copy[..48]) == header.data.get(..48) && Some(&copy[77..79]) == header.data.get(77..79);
    rule(same, FORMAT, || "its footer is not like its header".to_owned())?;
    let directory = footer.le64(512 + 56)?;
    rule(directory != AT_END, FORMAT, || "its footer points at another footer".to_owned())?;
    Ok(check_directory(directory, header, file_size)?)
}

/// The value of `createType="…"`, shortened to what fits in a message.
fn create_type(text: &str) -> Option<String> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| line.split_once('=').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case("createtype")))?;
    let value = line.split_once('=')?.1.trim().trim_matches('"');
    Some(value.chars().filter(char::is_ascii_alphanumeric).take(40).collect())
}

fn check_descriptor(text: &str) -> Result<(), Danger> {
    let kind = create_type(text).unwrap_or_default();
    if !["monolithicsparse", "streamoptimized"].contains(&kind.to_ascii_lowercase().as_str()) {
        let create_type = if kind.is_empty() { "none".to_owned() } else { kind };
        return Err(Danger::VmdkSubformat { create_type });
    }
    let mut extents = 0_u32;
    let mut kinds = 0_u32;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let first = line.split_ascii_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if matches!(first.as_str(), "rw" | "rdonly" | "noaccess") {
            extents += 1;
            check_extent(line)?;
            continue;
        }
        let pair = line.split_once('=').map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace)) else {
            return Err(malformed("its descriptor has a line that is not understood"));
        };
        match key.as_str() {
            "parentcid" if !value.eq_ignore_ascii_case("ffffffff") => return Err(Danger::Parent),
            "createtype" => kinds += 1,
            _ => {}
        }
    }
    rule(kinds == 1, FORMAT, || format!("its descriptor sets createType {kinds} times"))?;
    rule(extents == 1, FORMAT, || format!("its descriptor has {extents} extents"))
}

/// The one extent is the file itself: sparse, and with a plain name.
fn check_extent(line: &str) -> Result<(), Danger> {
    let escape = || Danger::VmdkExtent { extent: line.chars().filter(|c| !c.is_control()).take(100).collect() };
    let (fields, rest) = line.split_once('"').ok_or_else(escape)?;
    let name = rest.strip_suffix('"').ok_or_else(escape)?;
    let plain = !name.is_empty() && name != ".." && !name.contains(['/', '\\', '"', ':', '\0']);
    let mut fields = fields.split_ascii_whitespace();
    let (_access, sectors, kind) = (fields.next(), fields.next(), fields.next());
    if !plain || fields.next().is_some() || !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("sparse")) {
        return Err(escape());
    }
    let number = sectors.is_some_and(|text| text.parse::<u64>().is_ok());
    rule(number, FORMAT, || "its extent has no size".to_owned())
}

fn malformed(what: &str) -> Danger {
    Danger::Malformed { format: FORMAT, what: what.to_owned() }
}
