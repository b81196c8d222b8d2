use super::{vhd, vhdx, *};
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::LazyLock};

const MIB: usize = 1 << 20;

fn qemu_img(args: &[&str]) -> String {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img is installed");
    assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn info(driver: &str, path: &Path) -> serde_json::Value {
    serde_json::from_str(&qemu_img(&["info", "--output", "json", "-f", driver, path.to_str().unwrap()])).unwrap()
}

/// An image of 3 MiB with some content, made by qemu-img.
fn made(driver: &str, options: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.img"));
    let content: Vec<u8> = (0..3 * MIB).map(|n| if n < 100_000 { (n % 251) as u8 } else { 0 }).collect();
    fs::write(&raw, content).unwrap();
    let mut args = vec!["convert", "-f", "raw", "-O", driver];
    if options.contains("compression_type") {
        args.push("-c");
    }
    if !options.is_empty() {
        args.extend(["-o", options]);
    }
    args.extend([raw.to_str().unwrap(), image.to_str().unwrap()]);
    qemu_img(&args);
    (dir, image)
}

fn of(bytes: &[u8]) -> Inspection {
    inspect(&bytes).unwrap()
}

fn danger(bytes: &[u8]) -> Danger {
    of(bytes).safety.unwrap_err()
}

/// Valid images by name, made once.
static VALID: LazyLock<BTreeMap<&str, Vec<u8>>> = LazyLock::new(|| {
    [
        ("qcow2", "qcow2", ""),
        ("qcow2-v2", "qcow2", "compat=0.10"),
        ("qcow2-zstd", "qcow2", "compression_type=zstd"),
        ("vmdk", "vmdk", ""),
        ("vmdk-stream", "vmdk", "subformat=streamOptimized"),
        ("vhd", "vpc", ""),
        ("vhd-fixed", "vpc", "subformat=fixed"),
        ("vhdx", "vhdx", ""),
        ("vdi", "vdi", ""),
    ]
    .map(|(name, driver, options)| (name, fs::read(made(driver, options).1).unwrap()))
    .into()
});

fn with(name: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = VALID[name].clone();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

fn with_text(name: &str, from: &str, to: &str) -> Vec<u8> {
    let mut image = VALID[name].clone();
    let text = String::from_utf8(image[512..512 + 20 * 512].to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    let mut text = text.replace(from, to).into_bytes();
    text.resize(20 * 512, 0);
    image[512..512 + 20 * 512].copy_from_slice(&text);
    image
}

#[test]
fn images_of_qemu_are_recognised_with_their_size() {
    let table = [
        ("qcow2", "compat=1.1", Format::Qcow2),
        ("qcow2", "compat=0.10", Format::Qcow2),
        ("qcow2", "cluster_size=512", Format::Qcow2),
        ("qcow2", "cluster_size=2M", Format::Qcow2),
        ("qcow2", "extended_l2=on,cluster_size=128k", Format::Qcow2),
        ("qcow2", "compression_type=zstd", Format::Qcow2),
        ("qcow2", "compression_type=zlib", Format::Qcow2),
        ("qcow2", "lazy_refcounts=on", Format::Qcow2),
        ("qcow2", "preallocation=metadata", Format::Qcow2),
        ("qcow2", "refcount_bits=1", Format::Qcow2),
        ("vmdk", "", Format::Vmdk),
        ("vmdk", "adapter_type=lsilogic,compat6=on", Format::Vmdk),
        ("vmdk", "subformat=streamOptimized", Format::Vmdk),
        ("vpc", "", Format::Vhd),
        ("vpc", "force_size=on", Format::Vhd),
        ("vpc", "subformat=fixed", Format::Vhd),
        ("vpc", "subformat=fixed,force_size=on", Format::Vhd),
        ("vhdx", "", Format::Vhdx),
        ("vhdx", "subformat=fixed", Format::Vhdx),
        ("vdi", "", Format::Vdi),
        ("vdi", "static=on", Format::Vdi),
        ("raw", "", Format::Raw),
    ];
    for (driver, options, format) in table {
        let (_dir, path) = made(driver, options);
        let found = inspect(&fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(found.format, format, "{driver} {options}");
        assert_eq!(found.safety, Ok(()), "{driver} {options}");
        assert_eq!(found.virtual_size, info(driver, &path)["virtual-size"], "{driver} {options}");
        assert_eq!(found.format.driver(), Some(driver));
        // Memory and file are read alike.
        assert_eq!(of(&fs::read(&path).unwrap()).virtual_size, found.virtual_size);
    }
}

#[test]
fn large_and_odd_disks_have_the_size_that_qemu_sees() {
    let dir = tempfile::tempdir().unwrap();
    for (driver, size) in [("qcow2", "8T"), ("qcow2", "1000001k"), ("vmdk", "2T"), ("vpc", "130G"), ("vhdx", "1T"), ("vdi", "1T")]
    {
        let path = dir.path().join(format!("{driver}-{size}"));
        qemu_img(&["create", "-q", "-f", driver, path.to_str().unwrap(), size]);
        let found = inspect(&fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(found.safety, Ok(()), "{driver} {size}");
        assert_eq!(found.virtual_size, info(driver, &path)["virtual-size"], "{driver} {size}");
    }
}

#[test]
fn internal_snapshots_are_no_danger() {
    let (_dir, path) = made("qcow2", "");
    qemu_img(&["snapshot", "-c", "one", path.to_str().unwrap()]);
    assert_eq!(of(&fs::read(path).unwrap()).safety, Ok(()));
}

#[test]
fn formats_that_are_never_opened_are_named() {
    for (driver, format) in [("qcow", Format::Qcow), ("qed", Format::Qed), ("parallels", Format::Ploop)] {
        let (_dir, path) = made(driver, "");
        let found = of(&fs::read(path).unwrap());
        assert_eq!((found.format, found.safety), (format, Err(Danger::Unsupported { format })));
    }
    let found = of(&disk(MIB, &[(0, b"LUKS\xba\xbe\0\x02")]));
    assert_eq!((found.format, found.safety), (Format::Luks, Err(Danger::Luks)));
}

#[test]
fn qcow2_that_needs_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-f", "qcow2", &path("base"), "1M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &path("base"), "-F", "qcow2", &path("child")]);
    assert_eq!(danger(&fs::read(path("child")).unwrap()), Danger::BackingFile);
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &format!("data_file={}", path("data")), &path("head"), "1M"]);
    let head = fs::read(path("head")).unwrap();
    assert_eq!(danger(&head), Danger::DataFile);
    // Without its feature bit the name of the data file still counts.
    let mut hidden = head;
    hidden[79] = 0;
    assert_eq!(danger(&hidden), Danger::DataFile);
}

#[test]
fn qcow2_headers_are_checked() {
    let bit = |n: u32| with("qcow2", 72, &(1_u64 << n).to_be_bytes());
    assert_eq!(danger(&bit(0)), Danger::Dirty);
    assert_eq!(danger(&bit(1)), Danger::Corrupt);
    assert_eq!(danger(&bit(2)), Danger::DataFile);
    assert_eq!(danger(&bit(5)), Danger::UnknownFeatures { bits: 32 });
    assert_eq!(danger(&bit(63)), Danger::UnknownFeatures { bits: 1 << 63 });
    assert_eq!(danger(&with("qcow2-v2", 8, &9_u64.to_be_bytes())), Danger::BackingFile);
    assert_eq!(
        danger(&with("qcow2", 24, &u64::MAX.to_be_bytes())),
        Danger::Malformed { format: Format::Qcow2, what: "its L1 table is too small for its disk".into() }
    );
    let malformed = [
        (4, &4_u32.to_be_bytes()[..], "version"),
        (20, &8_u32.to_be_bytes(), "cluster size"),
        (20, &22_u32.to_be_bytes(), "cluster size"),
        (20, &u32::MAX.to_be_bytes(), "cluster size"),
        (32, &2_u32.to_be_bytes(), "no LUKS header"),
        (32, &3_u32.to_be_bytes(), "encryption method"),
        (36, &u32::MAX.to_be_bytes(), "L1 table has"),
        (36, &0_u32.to_be_bytes(), "too small"),
        (40, &1_u64.to_be_bytes(), "not aligned"),
        (40, &0xffff_ffff_ffff_0000_u64.to_be_bytes(), "outside the file"),
        (48, &0xffff_ffff_ffff_0000_u64.to_be_bytes(), "outside the file"),
        (56, &u32::MAX.to_be_bytes(), "refcount table has"),
        (56, &0_u32.to_be_bytes(), "refcount table has"),
        (60, &u32::MAX.to_be_bytes(), "snapshots"),
        (96, &7_u32.to_be_bytes(), "refcount order"),
        (100, &103_u32.to_be_bytes(), "header length"),
        (100, &u32::MAX.to_be_bytes(), "header length"),
        (116, &u32::MAX.to_be_bytes(), "extension has"),
    ];
    for (at, bytes, word) in malformed {
        let found = danger(&with("qcow2", at, bytes)).to_string();
        assert!(found.contains(word), "{at} {bytes:?}: {found}");
    }
    let mut locked = with("qcow2", 32, &2_u32.to_be_bytes());
    locked[112..116].copy_from_slice(&0x0537_be77_u32.to_be_bytes());
    assert_eq!(danger(&locked), Danger::Encrypted { how: "LUKS" });
    assert_eq!(danger(&with("qcow2", 32, &1_u32.to_be_bytes())), Danger::Encrypted { how: "AES, a method long broken" });
}

#[test]
fn vmdk_of_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for subformat in ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let path = dir.path().join(format!("{subformat}.vmdk"));
        qemu_img(&["create", "-q", "-f", "vmdk", "-o", &format!("subformat={subformat}"), path.to_str().unwrap(), "1M"]);
        let found = of(&fs::read(&path).unwrap());
        assert_eq!((found.format, found.safety), (Format::Vmdk, Err(Danger::VmdkSubformat { create_type: subformat.into() })));
    }
    for text in ["# Disk DescriptorFile\n", "\n# c\n \nversion=1\nRW 1 FLAT \"/etc/shadow\" 0\n", "CreateType=\"custom\"\n"] {
        assert!(matches!(danger(text.as_bytes()), Danger::VmdkSubformat { .. }), "{text}");
    }
    assert_eq!(danger(b"COWD\x01\0\0\0"), Danger::VmdkSubformat { create_type: "vmfsSparse".into() });
    let (base, child) = (dir.path().join("base"), dir.path().join("child"));
    qemu_img(&["create", "-q", "-f", "vmdk", base.to_str().unwrap(), "1M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-b", base.to_str().unwrap(), "-F", "vmdk", child.to_str().unwrap()]);
    assert_eq!(danger(&fs::read(child).unwrap()), Danger::Parent);
}

#[test]
fn vmdk_descriptors_are_read_strictly() {
    assert_eq!(danger(&with_text("vmdk", "parentCID=ffffffff", "parentCID=00000001")), Danger::Parent);
    assert_eq!(danger(&with_text("vmdk", "#DDB", "#ParentFileNameHint=\"x\"")), Danger::Parent);
    assert_eq!(
        danger(&with_text("vmdk", "monolithicSparse", "monolithicFlat")),
        Danger::VmdkSubformat { create_type: "monolithicFlat".into() }
    );
    assert_eq!(danger(&with_text("vmdk", "createType", "x")), Danger::VmdkSubformat { create_type: "none".into() });
    for (from, to) in
        [("disk.img", "/etc/shadow"), ("disk.img", "..\\x"), ("SPARSE", "FLAT"), ("disk.img\"", "disk.img\" 0"), ("disk.img", "")]
    {
        assert!(matches!(danger(&with_text("vmdk", from, to)), Danger::VmdkExtent { .. }), "{to}");
    }
    let line = "RW 6144 SPARSE \"disk.img\"";
    for (from, to, word) in [
        (line, "", "0 extents"),
        (line, &format!("{line}\n{line}"), "2 extents"),
        ("#DDB", "run away", "not understood"),
        ("#DDB", "createType=\"monolithicSparse\"", "2 times"),
    ] {
        let found = danger(&with_text("vmdk", from, to)).to_string();
        assert!(found.contains(word), "{to}: {found}");
    }
    // No capacity: QEMU would take the extents of the text.
    assert!(danger(&with("vmdk", 12, &0_u64.to_le_bytes())).to_string().contains("no capacity"));
    assert!(danger(&with("vmdk", 28, &2_u64.to_le_bytes())).to_string().contains("not where"));
    assert!(danger(&with("vmdk", 20, &0_u64.to_le_bytes())).to_string().contains("grains"));
    assert!(danger(&with("vmdk", 44, &0_u32.to_le_bytes())).to_string().contains("entries"));
    assert!(danger(&with("vmdk", 12, &u64::MAX.to_le_bytes())).to_string().contains("grain directory"));
}

#[test]
fn vmdk_footers_must_repeat_the_header() {
    let mut image = VALID["vmdk-stream"].clone();
    let mut footer = vec![0; 1536];
    footer[12] = 3;
    footer[512..1024].copy_from_slice(&image[..512]);
    image[56..64].copy_from_slice(&u64::MAX.to_le_bytes());
    let whole = [image.clone(), footer.clone()].concat();
    assert_eq!(of(&whole).safety, Ok(()));
    assert_eq!(danger(&image), Danger::Truncated { format: Format::Vmdk, part: "footer" });
    footer[512 + 28] = 9;
    assert!(danger(&[image.clone(), footer.clone()].concat()).to_string().contains("not like its header"));
    footer[512 + 28] = 1;
    footer[512 + 56..512 + 64].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(danger(&[image, footer].concat()).to_string().contains("another footer"));
}

#[test]
fn vhd_vhdx_and_vdi_with_parents_or_logs_are_refused() {
    let seal_vhd = |mut image: Vec<u8>, at: usize, field: usize, len: usize| {
        let sum = vhd::checksum(&image[at..at + len], field);
        image[at + field..at + field + 4].copy_from_slice(&sum.to_be_bytes());
        image
    };
    assert_eq!(danger(&seal_vhd(with("vhd", 60, &4_u32.to_be_bytes()), 0, 64, 512)), Danger::Parent);
    assert_eq!(danger(&seal_vhd(with("vhd", 512 + 40, &[1; 16]), 512, 36, 1024)), Danger::Parent);
    assert!(danger(&with("vhd", 60, &4_u32.to_be_bytes())).to_string().contains("checksum"));

    let seal_vhdx = |mut image: Vec<u8>, at: usize| {
        let sum = vhdx::crc32c(&image[at..at + 4096], 4);
        image[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        image
    };
    // Sequence numbers begin anywhere.
    let sequence = |at: &usize| u64::from_le_bytes(VALID["vhdx"][at + 8..at + 16].try_into().unwrap());
    let current = [65536, 131_072].into_iter().max_by_key(sequence).unwrap();
    assert_eq!(danger(&seal_vhdx(with("vhdx", current + 48, &[7; 16]), current)), Danger::PendingLog);
    // A log in the older header was replayed long ago.
    let older = 65536 + 131_072 - current;
    assert_eq!(of(&seal_vhdx(with("vhdx", older + 48, &[7; 16]), older)).safety, Ok(()));
    assert!(danger(&with("vhdx", 196_608 + 16, &[9])).to_string().contains("tables differ"));
    let id = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d];
    let metadata = 3 * MIB;
    let entry = VALID["vhdx"][metadata..].windows(8).position(|window| window == id).unwrap() + metadata;
    let item = u32::from_le_bytes(VALID["vhdx"][entry + 16..entry + 20].try_into().unwrap()) as usize;
    assert_eq!(danger(&with("vhdx", metadata + item + 4, &[2])), Danger::Parent);
    assert!(danger(&with("vhdx", entry, &[9])).to_string().contains("metadata item is missing"));

    assert_eq!(danger(&with("vdi", 440, &[1])), Danger::Parent);
    assert_eq!(danger(&with("vdi", 424, &[1])), Danger::Parent);
    assert_eq!(danger(&with("vdi", 76, &[4])), Danger::Parent);
    assert!(danger(&with("vdi", 368, &u64::MAX.to_le_bytes())).to_string().contains("too few blocks"));
    assert!(danger(&with("vdi", 384, &u32::MAX.to_le_bytes())).to_string().contains("blocks"));
}

fn disk(len: usize, marks: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; len];
    for (at, mark) in marks {
        image[*at..at + mark.len()].copy_from_slice(mark);
    }
    image
}

const BOOT: (usize, &[u8]) = (510, &[0x55, 0xaa]);
const LINUX: (usize, &[u8]) = (446, &[0x80, 0, 2, 0, 0x83]);
const PROTECTIVE: (usize, &[u8]) = (446, &[0, 0, 2, 0, 0xee]);
const EFI: (usize, &[u8]) = (512, b"EFI PART");
const ISO: (usize, &[u8]) = (32_769, b"CD001");

#[test]
fn raw_disks_may_have_partitions() {
    for (image, partitions) in [
        (disk(MIB, &[]), None),
        (disk(1, &[]), None),
        (disk(700, &[]), None),
        (disk(MIB, &[BOOT, LINUX]), Some(Partitions::Mbr)),
        (disk(MIB, &[BOOT, PROTECTIVE, EFI]), Some(Partitions::Gpt)),
        // A kernel: the mark of a boot sector, but code where the table would be.
        (disk(MIB, &[BOOT, (446, &[0x12, 0x34])]), None),
    ] {
        let found = of(&image);
        assert_eq!((found.format, found.partitions, found.safety), (Format::Raw, partitions, Ok(())));
        assert_eq!(found.virtual_size, image.len() as u64);
    }
}

#[test]
fn hybrid_isos_are_isos() {
    for image in [
        disk(MIB, &[ISO]),
        disk(MIB, &[ISO, BOOT, LINUX]),
        disk(MIB, &[ISO, BOOT, PROTECTIVE, EFI]),
        disk(MIB, &[(32_769, b"NSR02")]),
    ] {
        let found = of(&image);
        assert_eq!((found.format, found.safety), (Format::Iso, Ok(())));
    }
}

#[test]
fn polyglots_are_refused() {
    let footer = |name: &str| [VALID[name].clone(), disk(512, &[(0, b"conectix")])].concat();
    for (image, format, other) in [
        (with("qcow2", ISO.0, ISO.1), Format::Qcow2, Format::Iso),
        (with("vmdk", ISO.0, ISO.1), Format::Vmdk, Format::Iso),
        (with("vhdx", ISO.0, ISO.1), Format::Vhdx, Format::Iso),
        (with("vdi", 0, b"KDMV"), Format::Vmdk, Format::Vdi),
        (with("vdi", 0, b"QFI\xfb\0\0\0\x03"), Format::Qcow2, Format::Vdi),
        (footer("qcow2"), Format::Qcow2, Format::Vhd),
        (disk(MIB, &[ISO, (0, b"version=1\n")]), Format::Vmdk, Format::Iso),
        (disk(MIB, &[ISO, (MIB - 512, b"conectix")]), Format::Iso, Format::Vhd),
    ] {
        assert_eq!(danger(&image), Danger::Polyglot { format, other });
    }
}

#[test]
fn cut_files_are_refused() {
    assert_eq!(danger(b""), Danger::Empty);
    for (name, image) in VALID.iter().filter(|(name, _)| **name != "vhd-fixed") {
        for len in [8, 72, 511, 600] {
            let found = of(&image[..len.min(image.len() - 1)]);
            // VDI's mark is at 64: what ends before it is any file.
            let unmarked = *name == "vdi" && len < 68;
            assert!(found.safety.is_err() || (unmarked && found.format == Format::Raw), "{name} cut to {len}");
        }
    }
    let image = &VALID["qcow2"];
    assert!(of(&image[..3 * 65_536]).safety.is_err());
    let fixed = &VALID["vhd-fixed"];
    let short = [&fixed[..MIB], &fixed[fixed.len() - 512..]].concat();
    assert!(danger(&short).to_string().contains("shorter than its disk"));
}

#[test]
fn the_declared_format_must_be_the_one_found() {
    let raw = disk(MIB, &[BOOT, LINUX]);
    for declared in ["raw", "gpt", "aki", "ari", "ami"] {
        assert_eq!(check(declared, &of(&raw)), Ok(()), "{declared}");
    }
    assert!(check("gpt", &of(&disk(MIB, &[]))).is_err());
    for (name, image) in VALID.iter() {
        let format = name.split('-').next().unwrap();
        assert_eq!(check(format, &of(image)), Ok(()), "{name}");
        for declared in ["raw", "ami", "iso", "qcow", "", "QCOW2"] {
            assert!(matches!(check(declared, &of(image)), Err(Refusal::Mismatch { .. })), "{name} as {declared}");
        }
        assert!(matches!(check(format, &of(&raw)), Err(Refusal::Mismatch { .. })), "raw as {name}");
    }
    assert_eq!(check("iso", &of(&disk(MIB, &[ISO, BOOT, LINUX]))), Ok(()));
    assert!(check("raw", &of(&disk(MIB, &[ISO]))).is_err());
    assert_eq!(check("qcow2", &of(b"")), Err(Refusal::Unsafe(Danger::Empty)));
    assert_eq!(check("luks", &of(&disk(MIB, &[(0, b"LUKS\xba\xbe")]))), Err(Refusal::Unsafe(Danger::Luks)));
    let text = check("raw", &of(&VALID["qcow2"])).unwrap_err().to_string();
    assert_eq!(text, "disk_format is raw, but the content is qcow2; set disk_format to qcow2, or convert the file");
}

#[test]
fn growth_is_limited_for_large_disks_only() {
    let sparse =
        |file_size, virtual_size| Inspection { format: Format::Qcow2, virtual_size, file_size, partitions: None, safety: Ok(()) };
    assert_eq!(check_growth(&sparse(200_000, 1 << 30), 1 << 40, 1000), Ok(()));
    assert!(matches!(check_growth(&sparse(200_000, 1 << 39), 1 << 40, 1000), Err(Refusal::Growth { .. })));
    assert!(matches!(check_growth(&sparse(200_000, u64::MAX), u64::MAX, 1000), Err(Refusal::Growth { .. })));
    assert_eq!(check_growth(&sparse(1 << 30, 1 << 39), 1 << 40, 1000), Ok(()));
    assert!(matches!(check_growth(&sparse(u64::MAX, u64::MAX), 1 << 40, 1000), Err(Refusal::TooLarge { .. })));
}

/// What holds for every file.
fn sane(bytes: &[u8]) {
    let found = of(bytes);
    assert_eq!(found.file_size, bytes.len() as u64);
    if found.safety.is_ok() {
        assert!(found.format.driver().is_some());
        assert!((1..=MAX_VIRTUAL_SIZE).contains(&found.virtual_size));
    }
    for declared in ["raw", "qcow2", "vmdk", "luks"] {
        if let Err(refusal) = check(declared, &found) {
            assert!(refusal.to_string().len() < 400);
        }
    }
}

/// A change of a valid image: which, where in its interesting parts, and what is written there.
fn mutation() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let names: Vec<&str> = VALID.keys().copied().collect();
    let value = prop_oneof![Just(vec![0xff; 8]), Just(vec![0; 8]), prop::collection::vec(any::<u8>(), 1..9)];
    let place = prop_oneof![6 => 4_usize..600, 2 => 0_usize..70_000, 1 => 65_536_usize..66_000, 1 => 196_608_usize..197_000, 1 => 3_usize * MIB..3 * MIB + 70_000];
    let changes = prop::collection::vec((place, value), 1..4);
    (prop::sample::select(names), changes, prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(name, changes, cut)| {
            let mut image = VALID[name].clone();
            for (at, value) in changes {
                let at = at % (image.len() - value.len());
                image[at..at + value.len()].copy_from_slice(&value);
            }
            if let Some(cut) = cut {
                image.truncate(cut.index(image.len()));
            }
            (name, image)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_inspected(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        sane(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_mark_are_inspected(
        mark in prop::sample::select(vec![&b"QFI\xfb\0\0\0\x03"[..], b"QFI\xfb\0\0\0\x02", b"KDMV", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n", b"version=1\n"]),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        sane(&[mark, &bytes].concat());
    }

    #[test]
    fn changed_images_are_inspected((_, image) in mutation()) {
        sane(&image);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// QEMU is the judge: whatever passes has the size that we found, and names no other file.
    #[test]
    fn what_passes_is_what_qemu_opens((name, image) in mutation()) {
        let found = of(&image);
        let Some(driver) = found.format.driver().filter(|_| found.safety.is_ok()) else { return Ok(()) };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        fs::write(&path, &image).unwrap();
        let out = Command::new("qemu-img").args(["info", "--output", "json", "-f", driver]).arg(&path).output().unwrap();
        // QEMU may refuse more than we do; that is no danger.
        if let Ok(seen) = serde_json::from_slice::<serde_json::Value>(&out.stdout) {
            let sectors = found.virtual_size.div_ceil(512) * 512;
            prop_assert!(seen["virtual-size"] == found.virtual_size || seen["virtual-size"] == sectors, "{} {}", name, seen);
            let text = seen.to_string();
            prop_assert!(!text.contains("backing-filename") && !text.contains("data-file\""), "{} {}", name, text);
        }
    }
}
