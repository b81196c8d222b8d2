//! The command line of a guest's process. Pure, so that a golden test shows all of it.
//!
//! Interfaces are not on it: they are attached over QMP while the guest is still held, exactly as later ones are, so that there is one
//! path, and so that the unprivileged process never opens `/dev/net/tun`. The default machine is `pc`: it takes up to 20 hot-plugged
//! devices without root ports made in advance, and no start-up difference to `q35` could be measured.
use assign::AttachedVolume;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Interfaces a guest can have; each has a slot.
pub(crate) const SLOTS: u8 = 8;
/// Seconds that a guest's requests wait for a volume whose storage daemon is away. Longer than a restart of it takes; while they wait,
/// the monitor may hang, so not much longer.
const RECONNECT_SECONDS: u32 = 60;

/// A disk of a guest that is there from the start.
#[derive(Clone, Debug)]
pub(crate) enum Drive {
    Overlay {
        /// Its format is always qcow2.
        file: PathBuf,
        backing: PathBuf,
        backing_format: String,
    },
    Volume(AttachedVolume),
}

/// All that decides the command line.
#[derive(Clone, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) id: &'a str,
    pub(crate) dir: &'a Path,
    /// Versioned, so that a guest keeps its hardware when QEMU is upgraded.
    pub(crate) machine: &'a str,
    pub(crate) accelerator: &'a str,
    pub(crate) tcg_cache_mib: u32,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// In boot order.
    pub(crate) drives: Vec<Drive>,
    pub(crate) config_drive: Option<PathBuf>,
    pub(crate) cdrom_bus: Option<&'a str>,
    pub(crate) watchdog: Option<&'a str>,
}

pub(crate) fn is_q35(machine: &str) -> bool {
    machine.contains("q35")
}

/// The `device_add` arguments of an interface in a slot.
pub(crate) fn nic(port: &assign::PortAssignment, slot: u8, machine: &str) -> Value {
    let mut device = json!({
        "driver": "virtio-net-pci", "id": nic_id(&port.id), "netdev": netdev_id(&port.id), "mac": port.mac,
        "romfile": "", "host_mtu": port.mtu,
    });
    if is_q35(machine) {
        device["bus"] = json!(format!("nic{slot}"));
    } else {
        device["bus"] = json!("pci.0");
        device["addr"] = json!(format!("0x{:x}", 0x10 + slot));
    }
    device
}
pub(crate) fn nic_id(port: &str) -> String {
    format!("nic-{port}")
}
pub(crate) fn netdev_id(port: &str) -> String {
    format!("net-{port}")
}

/// Volumes besides the root disk that a guest can have; each has a slot.
pub(crate) fn volume_slots(machine: &str) -> u8 {
    if is_q35(machine) { 8 } else { 16 }
}

/// The `device_add` arguments of a volume in a slot. Slots rise with the address, so that a guest that boots finds its disks in order.
pub(crate) fn volume(volume: &AttachedVolume, slot: u8, machine: &str) -> Value {
    let mut device = json!({
        "driver": "virtio-blk-pci", "id": volume_id(&volume.attachment_id), "drive": volume_node(&volume.attachment_id),
        "serial": serial(volume), "werror": "stop", "rerror": "stop",
    });
    if is_q35(machine) {
        device["bus"] = json!(format!("volume{slot}"));
    } else {
        device["bus"] = json!("pci.0");
        // Interfaces lie between the first eight and the rest.
        device["addr"] = json!(format!("0x{:x}", if slot < 8 { 0x08 + slot } else { 0x10 + slot }));
    }
    device
}
pub(crate) fn volume_id(attachment: &str) -> String {
    format!("vol-{attachment}")
}
/// Names of nodes have at most 31 bytes.
pub(crate) fn volume_node(attachment: &str) -> String {
    let digits: String = attachment.chars().filter(char::is_ascii_hexdigit).take(30).collect();
    format!("v{digits}")
}
/// What a guest finds in `/dev/disk/by-id`: virtio has room for twenty bytes.
fn serial(volume: &AttachedVolume) -> String {
    volume.volume_id.chars().take(20).collect()
}

/// The `blockdev-add` arguments of a volume.
pub(crate) fn volume_blockdev(volume: &AttachedVolume, node: &str) -> Value {
    let path = volume.endpoint.strip_prefix("unix:").unwrap_or(&volume.endpoint);
    json!({
        "driver": "nbd", "node-name": node, "server": { "type": "unix", "path": path }, "export": volume.export,
        "read-only": volume.read_only, "reconnect-delay": RECONNECT_SECONDS, "discard": "unmap", "detect-zeroes": "unmap",
    })
}

impl Launch<'_> {
    /// Everything behind the program's name.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let socket = |name: &str| self.dir.join(name).display().to_string();
        let mut all: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| all.extend([format!("-{option}"), value]);
        add("name", format!("guest=drover-{},debug-threads=on", self.id));
        add("machine", format!("{},usb=off,hpet=off", self.machine));
        add(
            "accel",
            match self.accelerator {
                "tcg" => format!("tcg,thread=multi,tb-size={}", self.tcg_cache_mib),
                other => other.to_owned(),
            },
        );
        // TCG has no use for wide vectors: emulated, they are slower than the code they replace.
        add("cpu", if self.accelerator == "tcg" { "Nehalem" } else { "host" }.into());
        add("m", format!("{}M", self.memory_mib));
        add("smp", format!("{0},sockets={0},cores=1,threads=1", self.vcpus));
        add("uuid", self.id.to_owned());
        add(
            "smbios",
            format!(
                "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=27.0.0,serial={0},uuid={0},family=Virtual Machine",
                self.id
            ),
        );
        add("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
        // A guest that powers off stays as a process in state `shutdown`: the agent sees it even when it was away at that moment.
        add("action", "reboot=reset,shutdown=pause,panic=none".into());
        add("boot", "strict=on".into());
        add("rtc", "base=utc".into());
        add("qmp", format!("unix:{},server=on,wait=off", socket("qmp.sock")));
        add("vnc", format!("unix:{}", socket("vnc.sock")));
        add("device", "VGA,id=video".into());
        add("chardev", format!("file,id=console,path={},append=on", socket("console.log")));
        add("device", "isa-serial,chardev=console".into());
        add("object", "rng-random,id=random,filename=/dev/urandom".into());
        add("device", "virtio-rng-pci,rng=random".into());
        add("device", "pvpanic".into());
        if is_q35(self.machine) {
            for slot in 0..SLOTS {
                add("device", format!("pcie-root-port,id=nic{slot},chassis={},slot={}", slot + 1, slot + 1));
            }
            for slot in 0..volume_slots(self.machine) {
                let number = SLOTS + slot + 1;
                add("device", format!("pcie-root-port,id=volume{slot},chassis={number},slot={number}"));
            }
        }
        for (i, drive) in self.drives.iter().enumerate() {
            add("blockdev", drive.node(&format!("disk{i}")).to_string());
            let serial = match drive {
                Drive::Overlay { .. } => String::new(),
                Drive::Volume(v) => format!(",serial={}", serial(v)),
            };
            let device = format!("virtio-blk-pci,id=disk{i}-device,drive=disk{i},bootindex={}{serial}", i + 1);
            add("device", format!("{device},werror=stop,rerror=stop"));
        }
        if let Some(file) = &self.config_drive {
            let node = json!({ "driver": "raw", "node-name": "config", "read-only": true,
                "file": { "driver": "file", "filename": file, "read-only": true } });
            add("blockdev", node.to_string());
            add(
                "device",
                match self.cdrom_bus {
                    Some("ide" | "sata") => "ide-cd,id=config-device,drive=config".into(),
                    _ => "virtio-blk-pci,id=config-device,drive=config".into(),
                },
            );
        }
        if let Some(action) = self.watchdog {
            add("device", "i6300esb,id=watchdog".into());
            add("action", format!("watchdog={action}"));
        }
        all.extend(["-no-user-config", "-nodefaults", "-S"].map(str::to_owned));
        all
    }
}

impl Drive {
    /// The whole chain, with every format said: QEMU never guesses, and an image cannot name a further file.
    fn node(&self, name: &str) -> Value {
        let (file, backing, backing_format) = match self {
            Self::Overlay { file, backing, backing_format } => (file, backing, backing_format),
            Self::Volume(volume) => return volume_blockdev(volume, name),
        };
        let base_file = json!({ "driver": "file", "filename": backing, "read-only": true });
        let mut base =
            json!({ "driver": backing_format, "node-name": format!("{name}-base"), "read-only": true, "file": base_file });
        if backing_format == "qcow2" {
            base["backing"] = Value::Null;
        }
        json!({
            "driver": "qcow2", "node-name": name, "discard": "unmap", "detect-zeroes": "unmap", "backing": base,
            "file": { "driver": "file", "filename": file, "discard": "unmap" },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(machine: &str) -> Launch<'_> {
        Launch {
            id: "5d0f4c3e-0000-4000-8000-000000000001",
            dir: Path::new("/d"),
            machine,
            accelerator: "tcg",
            tcg_cache_mib: 64,
            vcpus: 2,
            memory_mib: 192,
            drives: vec![Drive::Overlay { file: "/d/disk".into(), backing: "/i/a".into(), backing_format: "qcow2".into() }],
            config_drive: Some("/d/config.iso".into()),
            cdrom_bus: None,
            watchdog: Some("reset"),
        }
    }

    #[test]
    fn golden() {
        let golden = r#"-name guest=drover-5d0f4c3e-0000-4000-8000-000000000001,debug-threads=on
-machine pc-i440fx-7.2,usb=off,hpet=off
-accel tcg,thread=multi,tb-size=64
-cpu Nehalem
-m 192M
-smp 2,sockets=2,cores=1,threads=1
-uuid 5d0f4c3e-0000-4000-8000-000000000001
-smbios type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=27.0.0,serial=5d0f4c3e-0000-4000-8000-000000000001,uuid=5d0f4c3e-0000-4000-8000-000000000001,family=Virtual Machine
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-action reboot=reset,shutdown=pause,panic=none
-boot strict=on
-rtc base=utc
-qmp unix:/d/qmp.sock,server=on,wait=off
-vnc unix:/d/vnc.sock
-device VGA,id=video
-chardev file,id=console,path=/d/console.log,append=on
-device isa-serial,chardev=console
-object rng-random,id=random,filename=/dev/urandom
-device virtio-rng-pci,rng=random
-device pvpanic
-blockdev {"driver":"qcow2","node-name":"disk0","discard":"unmap","detect-zeroes":"unmap","backing":{"driver":"qcow2","node-name":"disk0-base","read-only":true,"file":{"driver":"file","filename":"/i/a","read-only":true},"backing":null},"file":{"driver":"file","filename":"/d/disk","discard":"unmap"}}
-device virtio-blk-pci,id=disk0-device,drive=disk0,bootindex=1,werror=stop,rerror=stop
-blockdev {"driver":"raw","node-name":"config","read-only":true,"file":{"driver":"file","filename":"/d/config.iso","read-only":true}}
-device virtio-blk-pci,id=config-device,drive=config
-device i6300esb,id=watchdog
-action watchdog=reset
-no-user-config -nodefaults -S"#;
        let told = launch("pc-i440fx-7.2").arguments().join(" ");
        assert_eq!(told, golden.replace('\n', " "));
    }

    #[test]
    fn q35_has_a_root_port_for_each_slot() {
        let told = launch("pc-q35-7.2").arguments().join(" ");
        assert_eq!(told.matches("pcie-root-port").count(), usize::from(SLOTS + volume_slots("q35")));
        let port = assign::PortAssignment {
            id: "p".into(),
            network_id: "n".into(),
            mac: "fa:16:3e:00:00:01".into(),
            mtu: 1442,
            fixed_ips: vec![],
        };
        assert_eq!(nic(&port, 3, "pc-q35-7.2")["bus"], "nic3");
        assert_eq!(nic(&port, 3, "pc-i440fx-7.2")["addr"], "0x13");
    }

    fn attached() -> AttachedVolume {
        AttachedVolume {
            attachment_id: "0a1b2c3d-0000-4000-8000-00000000000f".into(),
            volume_id: "11111111-2222-4333-8444-555555555555".into(),
            epoch: 1,
            endpoint: "unix:/e/nbd".into(),
            export: "a-1".into(),
            size_gib: 1,
            read_only: false,
            boot: true,
        }
    }

    #[test]
    fn volumes_have_addresses_that_rise_and_a_serial() {
        let address = |slot| volume(&attached(), slot, "pc-i440fx-7.2")["addr"].as_str().unwrap().to_owned();
        assert_eq!(
            (0..16).map(address).collect::<Vec<_>>().join(" "),
            "0x8 0x9 0xa 0xb 0xc 0xd 0xe 0xf 0x18 0x19 0x1a 0x1b 0x1c 0x1d 0x1e 0x1f"
        );
        let device = volume(&attached(), 2, "pc-q35-7.2");
        assert_eq!((&device["bus"], &device["serial"]), (&json!("volume2"), &json!("11111111-2222-4333-8")));
        assert!(volume_node(&attached().attachment_id).len() <= 31);
    }

    #[test]
    fn a_volume_can_be_the_root_disk() {
        let mut l = launch("pc-i440fx-7.2");
        l.drives = vec![Drive::Volume(attached())];
        let told = l.arguments().join(" ");
        assert!(told.contains(r#"-blockdev {"driver":"nbd","node-name":"disk0","server":{"type":"unix","path":"/e/nbd"},"export":"a-1","read-only":false,"#), "{told}");
        assert!(told.contains("id=disk0-device,drive=disk0,bootindex=1,serial=11111111-2222-4333-8,werror=stop"), "{told}");
    }
}
