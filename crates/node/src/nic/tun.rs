//! Opens an existing tap, to hand it to a guest's process. The only unsafe code of the crate: one ioctl that no safe wrapper covers.
#![expect(unsafe_code, reason = "TUNSETIFF takes a struct ifreq")]
use nix::libc;
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
nix::ioctl_write_ptr_bad!(set_interface, TUNSETIFF, libc::ifreq);

/// Opens the tap; with `offloads` packets carry a header that says what the receiver still has to compute.
pub(crate) fn open(interface: &str, offloads: bool) -> io::Result<OwnedFd> {
    if !super::exists(interface) {
        // The ioctl would make one that vanishes with the process.
        return Err(io::ErrorKind::NotFound.into());
    }
    let name = interface.as_bytes();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if offloads { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and the pointer is to a whole `ifreq` that outlives the call.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
    Ok(file.into())
}
