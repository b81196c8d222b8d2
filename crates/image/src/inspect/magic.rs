//! The marks by which programs recognise formats, at the start, at 32 KiB and at the end of a file.
use super::{
    Format, Partitions, Source,
    source::{bytes, rule},
    vmdk,
};
use std::io;

const SECTOR: usize = 512;

/// Every format whose mark the file bears. One is the answer, none means raw, two are a polyglot.
pub(super) fn marks(source: &dyn Source, file_size: u64) -> io::Result<Vec<Format>> {
    let head = bytes(source, 0, vmdk::TEXT_PROBE)?;
    let mut found = Vec::new();
    found.extend(at_start(&head));
    // VirtualBox keeps its mark behind a text that may say anything, also another format's mark.
    if head.get(0x40..0x44) == Some(&0xbeda_107f_u32.to_le_bytes()) {
        found.push(Format::Vdi);
    }
    if is_iso(source)? {
        found.push(Format::Iso);
    }
    // A fixed VHD is a raw disk with a footer and nothing at its start.
    if file_size >= SECTOR as u64 && bytes(source, file_size - SECTOR as u64, 8)? == b"conectix" {
        found.push(Format::Vhd);
    }
    let mut seen = Vec::new();
    found.retain(|format| {
        !seen.contains(format) && {
            seen.push(*format);
            true
        }
    });
    Ok(found)
}

fn at_start(head: &[u8]) -> Option<Format> {
    const MARKS: &[(&[u8], Format)] = &[
        (b"KDMV", Format::Vmdk),
        (b"COWD", Format::Vmdk),
        (b"conectix", Format::Vhd),
        (b"vhdxfile", Format::Vhdx),
        (b"QED\0", Format::Qed),
        (b"LUKS\xba\xbe", Format::Luks),
        (b"SKUL\xba\xbe", Format::Luks),
        (b"WithoutFreeSpace", Format::Ploop),
        (b"WithouFreSpacExt", Format::Ploop),
        (b"Bochs Virtual HD Image", Format::Bochs),
        (b"#!/bin/sh\n#V2.0 Format\n", Format::Cloop),
    ];
    if head.starts_with(b"QFI\xfb") {
        // Version 1 has no feature bits to check; later ones are told apart, and refused, by their own module.
        let old = head.get(4..8) == Some(&1_u32.to_be_bytes());
        return Some(if old { Format::Qcow } else { Format::Qcow2 });
    }
    let marked = MARKS.iter().find(|(mark, _)| head.starts_with(mark)).map(|(_, format)| *format);
    marked.or_else(|| vmdk::is_descriptor(head).then_some(Format::Vmdk))
}

/// ISO 9660 and UDF both put a volume descriptor at 32 KiB.
fn is_iso(source: &dyn Source) -> io::Result<bool> {
    let id = bytes(source, 32 * 1024 + 1, 5)?;
    Ok([b"CD001", b"NSR02", b"NSR03", b"BEA01"].iter().any(|mark| id == *mark))
}

/// The partition table in the first sectors, if there is one.
pub(super) fn partitions(source: &dyn Source) -> io::Result<Option<Partitions>> {
    let head = bytes(source, 0, 4096 + 8)?;
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Ok(None);
    }
    if [512, 4096].iter().any(|at| head.get(*at..at + 8) == Some(b"EFI PART")) {
        return Ok(Some(Partitions::Gpt));
    }
    // Boot sectors of FAT file systems and kernels end in the same mark, but have code where the table would be.
    let entries = head[446..510].chunks_exact(16);
    let table = entries.clone().all(|entry| matches!(entry[0], 0 | 0x80)) && entries.clone().any(|entry| entry[4] != 0);
    Ok(table.then_some(Partitions::Mbr))
}

/// Is `[offset, offset + len)` inside the file?
pub(super) fn inside(format: Format, what: &str, offset: u64, len: u64, file_size: u64) -> Result<(), super::Danger> {
    let fits = offset.checked_add(len).is_some_and(|end| end <= file_size);
    rule(fits, format, || format!("its {what} lies outside the file"))
}
