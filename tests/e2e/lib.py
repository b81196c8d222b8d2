"""What the parts share: commands, waits with a deadline, and a look at the host."""
import json
import os
import re
import signal
import subprocess
import time

STATE = os.environ["DROVER_STATE"]
DROVER = os.environ["DROVER_BIN"]
SSH = ["ssh", "-i", f"{STATE}/demo_key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
       "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]


def run(*argv, timeout=300, check=True, stdin=None):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, input=stdin)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def osc(line, cloud="drover", **options):
    """An `openstack` command line; spaces in arguments are written as `_~`."""
    argv = [word.replace("_~", " ") for word in line.split()]
    return run("openstack", "--os-cloud", cloud, *argv, **options)


def osj(line, cloud="drover", **options):
    return json.loads(osc(f"{line} -f json", cloud, **options))


def wait(what, probe, seconds=60):
    """Waits until `probe` gives something true, and gives it back."""
    until, last = time.time() + seconds, None
    while time.time() < until:
        try:
            last = probe()
            if last:
                return last
        except Exception as e:
            last = e
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {seconds} s; last seen: {last!r}")


def ssh(address, command, seconds=120):
    def once():
        done = subprocess.run([*SSH, f"root@{address}", command], capture_output=True, text=True, timeout=20)
        return (done.stdout.strip() or "ok") if done.returncode == 0 else None
    return wait(f"ssh root@{address}", once, seconds)


def record(role):
    """The process of a role, as the supervisor recorded it."""
    with open(f"{STATE}/run/drover/{role}.json") as f:
        return json.load(f)


def pid(role):
    found = record(role)
    return found.get("pid") or found["id"]["pid"]


def alive(number):
    return os.path.exists(f"/proc/{number}")


def kill(role):
    number = pid(role)
    os.kill(number, signal.SIGKILL)
    return number


def ready():
    import urllib.request
    with urllib.request.urlopen(endpoint() + "/readyz", timeout=3) as answer:
        return answer.status == 200


def endpoint():
    with open(f"{STATE}/clouds.yaml") as f:
        return re.search(r"auth_url: (http://[^/\s]+)", f.read()).group(1)


def guests():
    """QEMU processes of this cloud, by server id."""
    found = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as f:
                line = f.read().decode(errors="replace")
        except OSError:
            continue
        if "qemu-system" in line and STATE in line:
            match = re.search(r"servers/([0-9a-f-]{36})", line)
            found[match.group(1) if match else number] = int(number)
    return found


def world():
    """Everything on the host that belongs to a server."""
    links = [link["ifname"] for link in json.loads(run("ip", "-j", "link"))]
    nb = f"unix:{STATE}/ovn/central/nb.sock"
    ports = run("ovn-nbctl", f"--db={nb}", "--bare", "--columns=name", "find", "Logical_Switch_Port", "type=\"\"").split()
    ovs = f"unix:{STATE}/ovn/chassis/db.sock"
    plugged = run("ovs-vsctl", f"--db={ovs}", "--bare", "--columns=name", "find", "Interface", "external_ids:iface-id!=\"\"").split()
    servers = os.listdir(f"{STATE}/node/servers") if os.path.isdir(f"{STATE}/node/servers") else []
    return {
        "taps": sorted(name for name in links if re.match(r"d[0-9a-f]{3}t", name)),
        "ports": sorted(ports),
        "plugged": sorted(name for name in plugged if re.match(r"d[0-9a-f]{3}t", name)),
        "directories": sorted(servers),
        "processes": sorted(guests()),
    }
