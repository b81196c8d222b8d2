"""Volumes: guests write to them, they move between guests, are copied and booted from, while processes are killed."""
import os
from lib import STATE, alive, kill, osc, osj, pid, ready, ssh, wait

NODE = f"{STATE}/node"


def status(kind, name, cloud="drover"):
    return osj(f"{kind} show {name}", cloud)["status"]


def volume(line, name):
    osc(f"volume create {line} {name}")
    wait(f"volume {name}", lambda: status("volume", name) == "available", 90)


def server(line, name):
    osc(f"server create {line} --flavor m1.nano --key-name demo --network private --wait {name}")
    address = osj("floating ip create public")["floating_ip_address"]
    osc(f"server add floating ip {name} {address}")
    assert ssh(address, "hostname") == name
    return address


def disks(address):
    return ssh(address, "grep -E ' vd[a-z]$' /proc/partitions | wc -l")


def attach(name, vol, address):
    before = int(disks(address))
    osc(f"server add volume {name} {vol}")
    wait("in use", lambda: status("volume", vol) == "in-use")
    wait("another disk", lambda: int(disks(address)) == before + 1)


def detach(name, vol):
    osc(f"server remove volume {name} {vol}")
    wait("available", lambda: status("volume", vol) == "available", 120)


# What the small guest has: dd and cmp over the whole path, with the page cache out of the way.
WRITE = "dd if=/dev/urandom of=/tmp/x bs=4k count=64 2>/dev/null; dd if=/tmp/x of={0} bs=4k 2>/dev/null; sync; md5sum < /tmp/x"
READ = "echo 3 > /proc/sys/vm/drop_caches; dd if={0} bs=4k count=64 2>/dev/null | md5sum"


def daemons():
    """Storage daemons of this cloud, by volume."""
    found = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as f:
                line = f.read().decode(errors="replace")
        except OSError:
            continue
        start = f"path={NODE}/volumes/"
        if start in line:
            found[line.split(start)[1].split("/")[0]] = int(number)
    return found


def test_data_moves_between_guests():
    volume("--size 1", "vol")
    one = server("--image tiny", "vol-one")
    attach("vol-one", "vol", one)
    written = ssh(one, WRITE.format("/dev/vdb"))
    assert ssh(one, READ.format("/dev/vdb")) == written

    # Neither a kill of our process nor of the storage daemon is noticed.
    number = osj("volume show vol")["id"]
    old = kill("serve")
    assert ssh(one, READ.format("/dev/vdb")) == written
    wait("another serve", lambda: pid("serve") != old and alive(pid("serve")) and ready(), 30)
    before = daemons()[number]
    os.kill(before, 9)
    wait("another storage daemon", lambda: daemons().get(number, before) != before, 30)
    assert ssh(one, READ.format("/dev/vdb")) == written

    osc("server reboot --hard --wait vol-one")
    assert ssh(one, READ.format("/dev/vdb")) == written
    # Without force: since 3.66 a volume in use needs none.
    osc("--os-volume-api-version 3.70 volume snapshot create --volume vol snap")
    wait("snapshot", lambda: status("volume snapshot", "snap") == "available")
    later = ssh(one, WRITE.format("/dev/vdb"))
    assert later != written

    detach("vol-one", "vol")
    wait("no disk", lambda: disks(one) == "1")
    two = server("--image tiny", "vol-two")
    attach("vol-two", "vol", two)
    assert ssh(two, READ.format("/dev/vdb")) == later
    volume("--snapshot snap --size 1", "copy")
    attach("vol-two", "copy", two)
    assert ssh(two, READ.format("/dev/vdc")) == written

    # It grows while it is used, and the guest sees it.
    osc("--os-volume-api-version 3.70 volume set --size 2 copy")
    wait("2 GiB", lambda: ssh(two, "grep vdc /proc/partitions").split()[2] == "2097152")
    assert ssh(two, READ.format("/dev/vdc")) == written
    osc("server delete --wait vol-one vol-two")
    for name in ("vol", "copy"):
        wait("available", lambda: status("volume", name) == "available", 120)


def test_a_server_boots_from_a_volume():
    volume("--image tiny --size 1 --bootable", "root")
    address = server("--volume root", "vol-boot")
    assert osj("server show vol-boot")["image"] in ("", None, "N/A (booted from volume)")
    ssh(address, "echo kept > /etc/mark; sync")
    osc("server stop vol-boot")
    wait("SHUTOFF", lambda: status("server", "vol-boot") == "SHUTOFF", 90)
    osc("server start vol-boot")
    wait("ACTIVE", lambda: status("server", "vol-boot") == "ACTIVE", 90)
    assert ssh(address, "cat /etc/mark") == "kept"
    osc("server delete --wait vol-boot")
    wait("available", lambda: status("volume", "root") == "available", 120)
    # The same disk in another server.
    address = server("--volume root", "vol-again")
    assert ssh(address, "cat /etc/mark") == "kept"
    osc("server delete --wait vol-again")
    wait("available", lambda: status("volume", "root") == "available", 120)


def test_nothing_is_left_of_volumes():
    for address in osj("floating ip list"):
        if not address["Port"]:
            osc(f"floating ip delete {address['ID']}")
    # In an order that only works because layers, not volumes, are what depends.
    osc("volume snapshot delete snap")
    wait("no snapshot", lambda: not osj("volume snapshot list"))
    for name in ("vol", "root", "copy"):
        osc(f"volume delete {name}")
    wait("no volumes", lambda: not osj("volume list"))

    def clean():
        left = daemons(), os.listdir(f"{NODE}/exports"), os.listdir(f"{NODE}/volumes/layers"), os.listdir(f"{NODE}/volumes")
        if any(left[:3]) or left[3] != ["layers"]:
            raise AssertionError(left)
        return True
    wait("a clean host", clean, 90)
