//! The node agent: QEMU, disks and interfaces of one host, and a simulated host
