"""Small images in every format that Tempest's tests of formats ask about, good ones and dangerous ones, and the manifest that names them.

The manifest is that of upstream's os-test-images: name, format, file, whether the image can be used, whether it is insecure.
"""

import struct
import subprocess

import yaml


def qemu_img(directory, image_format, name, size="10M", *options):
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format, *options, name, size], cwd=directory, check=True)


def overwrite(directory, name, at, data):
    with open(directory / name, "r+b") as file:
        file.seek(at)
        file.write(data)


def iso(directory, name, *options):
    (directory / "content").write_text("some content\n")
    subprocess.run(["genisoimage", "-quiet", *options, "-V", "test", "-o", name, "content"], cwd=directory, check=True,
                   stderr=subprocess.DEVNULL)


def iso_that_begins_as_qcow2(directory, name):
    iso(directory, name)
    qemu_img(directory, "qcow2", "head")
    overwrite(directory, name, 0, (directory / "head").read_bytes()[:32768])


def gpt(directory, name):
    (directory / name).write_bytes(bytes(1 << 20))
    subprocess.run(["sfdisk", "-q", name], cwd=directory, input=b"label: gpt\n", check=True)


def flat_vmdk(directory, name, extent=None):
    """A text that names another file, which is not there or one of the host."""
    qemu_img(directory, "vmdk", name, "10M", "-o", "subformat=monolithicFlat")
    data = f"{name.removesuffix('.vmdk')}-flat.vmdk"
    (directory / data).unlink()
    if extent:
        path = directory / name
        path.write_text(path.read_text().replace(data, extent))


def sparse_vmdk_of_another_file(directory, name):
    qemu_img(directory, "vmdk", name, "10M", "-o", "subformat=monolithicSparse")
    descriptor = (directory / name).read_bytes()[512:1024]
    overwrite(directory, name, 512, descriptor.replace(name.encode(), b"/etc/hosts").ljust(512, b"\0")[:512])


def vmdk_with_footer(directory, name):
    """The grain directory's place is told by a copy of the header at the end; in the header it says so."""
    qemu_img(directory, "vmdk", name, "10M", "-o", "subformat=monolithicSparse")
    path = directory / name
    whole = path.read_bytes()
    header = whole[:512]
    marker = struct.pack("<QII", 0, 0, 3).ljust(512, b"\0")
    at_end = header[:56] + b"\xff" * 8 + header[64:]
    path.write_bytes(at_end + whole[512:] + marker + header + bytes(512))


def qcow2_of_another_data_file(directory, name):
    qemu_img(directory, "qcow2", name, "10M", "-o", "data_file=data,data_file_raw=on")
    (directory / "data").unlink()


# Name, format, can be used, insecure, how it is made.
IMAGES = [
    ("qcow2-v3", "qcow2", True, False, lambda d, n: qemu_img(d, "qcow2", n)),
    ("qcow2-backing", "qcow2", False, True, lambda d, n: qemu_img(d, "qcow2", n, "10M", "-F", "raw", "-b", "/etc/hosts")),
    ("qcow2-data-file", "qcow2", False, True, qcow2_of_another_data_file),
    ("raw-blank", "raw", True, False, lambda d, n: qemu_img(d, "raw", n, "1M")),
    ("gpt-blank", "gpt", True, False, gpt),
    ("qed", "qed", False, False, lambda d, n: qemu_img(d, "qed", n)),
    ("iso9660", "iso", True, False, iso),
    ("udf", "iso", True, False, lambda d, n: iso(d, n, "-udf")),
    ("iso-qcow2", "iso", False, True, iso_that_begins_as_qcow2),
    ("vdi", "vdi", True, False, lambda d, n: qemu_img(d, "vdi", n)),
    ("vhd", "vhd", True, False, lambda d, n: qemu_img(d, "vpc", n)),
    ("vhdx", "vhdx", True, False, lambda d, n: qemu_img(d, "vhdx", n)),
    ("vmdk-sparse", "vmdk", True, False, lambda d, n: qemu_img(d, "vmdk", n, "10M", "-o", "subformat=monolithicSparse")),
    ("vmdk-stream", "vmdk", True, False, lambda d, n: qemu_img(d, "vmdk", n, "10M", "-o", "subformat=streamOptimized")),
    ("vmdk-flat", "vmdk", False, False, flat_vmdk),
    ("vmdk-flat-leak", "vmdk", False, True, lambda d, n: flat_vmdk(d, n, "/etc/hosts")),
    ("vmdk-other-file", "vmdk", False, True, sparse_vmdk_of_another_file),
    ("vmdk-footer", "vmdk", True, False, vmdk_with_footer),
]


def make(directory):
    """All of them, the manifest, and tiny.qcow2, which is served on the web."""
    listed = []
    for name, image_format, usable, insecure, build in IMAGES:
        filename = f"{name}.{image_format}"
        build(directory, filename)
        listed.append({"name": name, "format": image_format, "filename": filename, "usable": usable, "insecure": insecure})
    (directory / "manifest.yaml").write_text(yaml.safe_dump({"images": listed}))
    qemu_img(directory, "qcow2", "tiny.qcow2")
