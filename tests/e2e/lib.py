"""What the parts share: commands, waits with a deadline, and a look at the host."""
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter

STATE = os.environ["DROVER_STATE"]
DROVER = os.environ["DROVER_BIN"]
SSH = ["ssh", "-i", f"{STATE}/demo_key", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
       "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]


def run(*argv, timeout=300, check=True, stdin=None, cwd=None):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, input=stdin, cwd=cwd)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def osc(line, cloud="drover", **options):
    """An `openstack` command line; spaces in arguments are written as `_~`."""
    argv = [word.replace("_~", " ") for word in line.split()]
    return run("openstack", "--os-cloud", cloud, *argv, **options)


def osj(line, cloud="drover", **options):
    return json.loads(osc(f"{line} -f json", cloud, **options))


def call(base, method, path, body=None, token=None, timeout=15, context=None):
    """Status, headers (lower case) and body; status 0 when there was no answer. `context` is for TLS."""
    headers = {"content-type": "application/json", **({"x-auth-token": token} if token else {})}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{base}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            text = answer.read()
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.loads(text) if text else None
    except urllib.error.HTTPError as e:
        return e.code, {k.lower(): v for k, v in e.headers.items()}, e.read().decode(errors="replace")
    except OSError as e:
        return 0, {}, str(e)


def admin_token(base, state, context=None):
    """A token of the administrator, whose password is in a state directory."""
    with open(f"{state}/secrets/admin") as f:
        password = f.read().strip()
    domain = {"id": "default"}
    user = {"name": "admin", "domain": domain, "password": password}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                     "scope": {"project": {"name": "admin", "domain": domain}}}}
    status, headers, answer = call(base, "POST", "/identity/v3/auth/tokens", body, context=context)
    assert status == 201, answer
    return headers["x-subject-token"]


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
    """It runs; a process that only waits to be reaped does not."""
    try:
        with open(f"/proc/{number}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


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


def running():
    """QEMU processes of servers, by server id: without the one that finds out, when the agent starts, whether there is KVM."""
    return {server: number for server, number in guests().items() if len(server) == 36}


def guests():
    """QEMU processes of this cloud, by server id, or by their own number where they are no server's."""
    found = {}
    for number, argv in commands():
        if "qemu-system" in argv[0]:
            match = re.search(r"servers/([0-9a-f-]{36})", " ".join(argv))
            found[match.group(1) if match else str(number)] = number
    return found


def tag():
    """What the names of this cloud's devices and namespaces begin with, after their own first letters."""
    links = [link["ifname"] for link in json.loads(run("ip", "-j", "link"))]
    return next(name for name in links if re.fullmatch(r"dv[0-9a-f]{3}-int", name))[2:5]


NB_TABLES = ["Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port", "NAT", "DHCP_Options", "Port_Group",
             "Address_Set", "ACL", "Load_Balancer", "HA_Chassis_Group", "QoS", "Static_MAC_Binding"]


def world():
    """Everything on the host that belongs to a server; each is empty when there is none."""
    links = [link["ifname"] for link in json.loads(run("ip", "-j", "link"))]
    ports = nb("find", "Logical_Switch_Port", 'type=""')
    ovs = f"unix:{STATE}/ovn/chassis/db.sock"
    plugged = run("ovs-vsctl", f"--db={ovs}", "--bare", "--columns=name", "find", "Interface", "external_ids:iface-id!=\"\"").split()
    servers = os.listdir(f"{STATE}/node/servers") if os.path.isdir(f"{STATE}/node/servers") else []
    return {
        "taps": sorted(name for name in links if re.match(rf"d{tag()}t", name)),
        "ports": sorted(ports),
        "plugged": sorted(name for name in plugged if re.match(rf"d{tag()}t", name)),
        "directories": sorted(servers),
        "processes": sorted(guests()),
    }


def nb(*words):
    return run("ovn-nbctl", f"--db=unix:{STATE}/ovn/central/nb.sock", "--bare", "--columns=_uuid", *words).split()


def everything():
    """The whole cloud as the host sees it, in a form that is equal before and after work that leaves nothing behind."""
    namespaces = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line]
    found = world()
    found["namespaces"] = sorted(name for name in namespaces if name.startswith(f"drover-{tag()}-"))
    found["links"] = sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link")))
    found["rows"] = {table: len(nb("list", table)) for table in NB_TABLES}
    found["daemons"] = sorted(argv[0] + " " + argv[-1] for number, argv in commands() if number != os.getpid())
    # Logs, the database, and what the agent remembers for a week of servers that are gone: their epoch.
    keep = re.compile(r"^node/gone/|\.log(\.\d)?$|\.log\.0$|drover\.db|~lock~$|ovn-controller\.\d+\.ctl$")
    files = [os.path.relpath(os.path.join(at, name), STATE) for at, _, names in os.walk(STATE) for name in names]
    found["files"] = sorted(name for name in files if not keep.search(name))
    return found


def commands():
    """Processes that were started with a path of this cloud in their command line."""
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as f:
                argv = f.read().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:
            continue
        if STATE in " ".join(argv):
            yield int(number), argv


def difference(before, after):
    """What two answers of `everything` do not have in common."""
    out = {}
    for key in before:
        if before[key] != after[key]:
            if isinstance(before[key], dict):
                out[key] = {k: (v, after[key][k]) for k, v in before[key].items() if after[key][k] != v}
            else:
                more, less = Counter(after[key]) - Counter(before[key]), Counter(before[key]) - Counter(after[key])
                out[key] = {"left": sorted(more.elements()), "lost": sorted(less.elements())}
    return out
