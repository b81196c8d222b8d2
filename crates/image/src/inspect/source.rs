//! Bounded reads at offsets, and numbers out of what was read.
use super::{Danger, Format};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes at offsets: a file or memory.
pub trait Source {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; returns fewer bytes only at the end of the source.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl Source for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl Source for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Source::size(*self)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Source::read_at(*self, offset, buf)
    }
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            // An offset that the kernel cannot express lies behind the end of any file.
            let Some(at) = offset.checked_add(done as u64).filter(|at| i64::try_from(*at).is_ok()) else { break };
            match FileExt::read_at(self, &mut buf[done..], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Why a format's reader ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Danger(Danger),
    Io(io::Error),
}

impl From<Danger> for Stop {
    fn from(danger: Danger) -> Self {
        Self::Danger(danger)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// No structure that is read as a whole may be larger.
pub(super) const MAX_PIECE: usize = 1 << 20;

/// Up to `len` bytes at `offset`; fewer at the end of the source.
pub(super) fn bytes(source: &dyn Source, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; len.min(MAX_PIECE)];
    let count = source.read_at(offset, &mut buf)?;
    buf.truncate(count);
    Ok(buf)
}

/// A structure of a format, with numbers read out of it safely.
pub(super) struct Piece {
    pub(super) format: Format,
    part: &'static str,
    pub(super) data: Vec<u8>,
}

impl Piece {
    /// Reads up to `len` bytes; a short one shows when a number behind its end is asked for.
    pub(super) fn read(source: &dyn Source, format: Format, part: &'static str, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { format, part, data: bytes(source, offset, len)? })
    }

    /// Reads exactly `len` bytes.
    pub(super) fn whole(source: &dyn Source, format: Format, part: &'static str, offset: u64, len: usize) -> Result<Self, Stop> {
        let piece = Self::read(source, format, part, offset, len)?;
        if piece.data.len() == len { Ok(piece) } else { Err(piece.truncated().into()) }
    }

    fn truncated(&self) -> Danger {
        Danger::Truncated { format: self.format, part: self.part }
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Danger> {
        let bytes = at.checked_add(N).and_then(|end| self.data.get(at..end));
        bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| self.truncated())
    }

    pub(super) fn be32(&self, at: usize) -> Result<u32, Danger> {
        self.array(at).map(u32::from_be_bytes)
    }
    pub(super) fn be64(&self, at: usize) -> Result<u64, Danger> {
        self.array(at).map(u64::from_be_bytes)
    }
    pub(super) fn le16(&self, at: usize) -> Result<u16, Danger> {
        self.array(at).map(u16::from_le_bytes)
    }
    pub(super) fn le32(&self, at: usize) -> Result<u32, Danger> {
        self.array(at).map(u32::from_le_bytes)
    }
    pub(super) fn le64(&self, at: usize) -> Result<u64, Danger> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// `Ok` when the rule holds, else the format's `Malformed`.
pub(super) fn rule(holds: bool, format: Format, what: impl FnOnce() -> String) -> Result<(), Danger> {
    if holds { Ok(()) } else { Err(Danger::Malformed { format, what: what() }) }
}
