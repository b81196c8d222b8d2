"""What operators do: a backup of a cluster that runs becomes another cluster, and `drover doctor` finds what is broken. `tests/run operate`."""
import json
import os
import signal
import socket
import subprocess
import tarfile
from lib import DROVER, STATE, alive, wait

DIR = f"{STATE}-operate"
# Each host has a network of its own, so that the old cluster and the new one may both run at the same address.
TAG = f"do{os.getpid() % 100000}"
ADDRESS = "10.78.0.1"
BACKUP = f"{DIR}/backup.tar"


def run(*argv, timeout=300, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def drover(where, state, *args, check=True):
    return run("ip", "netns", "exec", f"{TAG}-{where}", DROVER, "--state", f"{DIR}/{state}", *args, check=check)


def plug(where):
    run("ip", "netns", "add", f"{TAG}-{where}")
    run("ip", "-n", f"{TAG}-{where}", "link", "set", "lo", "up")
    run("ip", "-n", f"{TAG}-{where}", "addr", "add", f"{ADDRESS}/32", "dev", "lo")


def call(where, state, method, path, body=None):
    """The answer of a controller's API to its administrator, and its status."""
    token = drover(where, state, "token").stdout.strip()
    argv = ["curl", "-s", "-m", "10", "-X", method, "--cacert", f"{DIR}/{state}/pki/ca.pem", "-H", f"x-auth-token: {token}",
            "-H", "content-type: application/json", "-w", "\n%{http_code}", f"https://{ADDRESS}:8776{path}"]
    done = run("ip", "netns", "exec", f"{TAG}-{where}", *argv, *(["-d", json.dumps(body)] if body else []))
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text) if text else None


def make(name):
    status, answer = call("old", "c1", "POST", "/identity/v3/projects", {"project": {"name": name}})
    assert status == 201, answer


def projects(where, state):
    return {p["name"] for p in call(where, state, "GET", "/identity/v3/projects")[1]["projects"]}


def doctor(where, state):
    """Findings that are not well, as (level, check, text); and the exit code says the worst of them."""
    done = drover(where, state, "doctor", "--json", check=False)
    found = json.loads(done.stdout)["findings"]
    worst = max(["ok", "warning", "error"].index(f["level"]) for f in found)
    assert done.returncode == worst, (done.returncode, found)
    assert all("advice" in f for f in found if f["level"] != "ok"), found
    return [(f["level"], f["check"], f["found"]) for f in found if f["level"] != "ok"]


def errors(found):
    return {check for level, check, _ in found if level == "error"}


def test_doctor_needs_no_cloud_and_changes_nothing():
    os.makedirs(DIR, mode=0o711)
    for where in ("old", "new"):
        plug(where)
    doctor("old", "nothing")
    assert not os.path.exists(f"{DIR}/nothing")


def test_a_cloud_of_one_machine_is_saved_with_all_that_it_takes():
    """The one that all parts share, with its real guest."""
    found = json.loads(run(DROVER, "--state", STATE, "doctor", "--json", check=False).stdout)["findings"]
    assert not [f for f in found if f["level"] == "error"], found
    assert any(f["check"] == "API" for f in found), found
    saved, there = f"{DIR}/whole.tar", f"{DIR}/whole"
    told = json.loads(run(DROVER, "--state", STATE, "backup", saved, "--json").stdout)
    assert told["store"] == "sqlite" and told["content"]["rows"] > 100, told
    refused = run(DROVER, "--state", STATE, "restore", saved, check=False)
    assert refused.returncode == 1 and "not empty" in refused.stderr, refused
    run(DROVER, "--state", there, "restore", saved)
    again = json.loads(run(DROVER, "--state", there, "backup", f"{DIR}/again.tar", "--json").stdout)
    assert again["content"] == told["content"], (told, again)
    for name in ("keys", "secrets"):
        run("diff", "-r", f"{STATE}/{name}", f"{there}/{name}")
    run("rm", "-rf", there)


def test_a_backup_is_taken_while_the_cluster_runs():
    drover("old", "c1", "server", "--name", "c1", "--address", ADDRESS)
    token = drover("old", "c1", "join-token", "node").stdout.strip()
    drover("old", "n1", "node", "--name", "n1", "--join", token, "--simulate")
    make("before")
    told = json.loads(drover("old", "c1", "backup", BACKUP, "--json").stdout)
    assert told["content"]["rows"] > 100 and told["secrets"], told
    assert os.stat(BACKUP).st_mode & 0o777 == 0o600
    with tarfile.open(BACKUP) as archive:
        names = set(archive.getnames())
    assert {"manifest.json", "README", "config.json", "pki/ca.key", "store.etcd", "secrets/admin", "SHA256"} <= names, names
    assert drover("old", "c1", "backup", BACKUP, check=False).returncode == 1, "nothing is overwritten"
    make("after")
    drover("old", "c1", "backup", "verify", BACKUP)
    at = os.stat(BACKUP).st_size // 2
    with open(BACKUP, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))
        f.flush()
        damaged = drover("old", "c1", "backup", "verify", BACKUP, check=False)
        assert damaged.returncode == 1 and "SHA-256" in damaged.stderr, damaged
        f.seek(at)
        f.write(byte)


def test_doctor_finds_what_is_broken():
    wait("all is well", lambda: not errors(doctor("old", "c1")), 30)
    assert not errors(doctor("old", "n1"))
    with open(f"{DIR}/c1/run/etcd/etcd-c1.json") as f:
        etcd = json.load(f)["pid"]
    os.kill(etcd, signal.SIGSTOP)
    try:
        found = doctor("old", "c1")
        assert "etcd" in errors(found) and any("No quorum" in t or "members answer" in t for _, _, t in found), found
    finally:
        os.kill(etcd, signal.SIGCONT)
    key = f"{DIR}/c1/pki/ca.key"
    os.chmod(key, 0o644)
    assert "permissions" in errors(doctor("old", "c1"))
    os.chmod(key, 0o600)
    certificate = f"{DIR}/n1/pki/cert.pem"
    with open(certificate) as f, open(f"{DIR}/c1/pki/cert.pem") as other:
        own, others = f.read(), other.read()
    with open(certificate, "w") as f:
        f.write(others)
    found = [text for level, check, text in doctor("old", "n1") if check == "certificate"]
    assert any("controller c1" in t for t in found) and any("key.pem" in t for t in found), found
    with open(certificate, "w") as f:
        f.write(own)


def process(state, of, name):
    with open(f"{DIR}/{state}/run/{of}/{name}.json") as f:
        return json.load(f)["pid"]


def test_a_service_manager_ends_the_pair_and_nothing_else():
    others = {"etcd": "etcd-c1", "door": "haproxy"}
    before = {of: process("c1", of, name) for of, name in others.items()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{DIR}/notify")
        manager.settimeout(60)
        argv = ["ip", "netns", "exec", f"{TAG}-old", DROVER, "--state", f"{DIR}/c1", "run"]
        service = subprocess.Popen(argv, env={**os.environ, "NOTIFY_SOCKET": f"{DIR}/notify"}, stderr=subprocess.DEVNULL)
        try:
            assert manager.recv(100) == b"READY=1"
            os.kill(process("c1", "drover", "supervise"), signal.SIGKILL)
            wait("it runs again", lambda: alive(process("c1", "drover", "supervise")), 20)
            drover("old", "c1", "restart")
            assert service.poll() is None, "it bears a restart"
            pair = [process("c1", "drover", role) for role in ("supervise", "serve")]
            os.kill(pair[0], signal.SIGSTOP)
            for both in pair:
                os.kill(both, signal.SIGKILL)
            wait("both run again", lambda: alive(process("c1", "drover", "serve")) and process("c1", "drover", "serve") != pair[1], 20)
            wait("it serves", lambda: not errors(doctor("old", "c1")) & {"API", "role"}, 30)
            pair = [process("c1", "drover", role) for role in ("supervise", "serve")]
            service.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert service.wait(60) == 0
        finally:
            service.kill()
    assert not any(alive(p) for p in pair), "the pair has ended"
    assert before == {of: process("c1", of, name) for of, name in others.items()} and all(alive(p) for p in before.values())
    drover("old", "c1", "up")
    serve = process("c1", "drover", "serve")
    drover("old", "c1", "restart")
    assert process("c1", "drover", "serve") != serve and not alive(serve)
    assert before == {of: process("c1", of, name) for of, name in others.items()} and all(alive(p) for p in before.values())
    figures = run("ip", "netns", "exec", f"{TAG}-old", "curl", "-s", "-m", "5", "http://127.0.0.1:8778/metrics").stdout
    assert "drover_certificate_expires_seconds" in figures and "drover_node_attached" in figures, figures


def test_doctor_finds_a_full_disk():
    small = f"{DIR}/small"
    os.mkdir(small)
    run("mount", "-t", "tmpfs", "-o", "size=8m", "drover-operate", small)
    try:
        with open(f"{small}/config.json", "w") as f:
            f.write("{}")
        os.chmod(f"{small}/config.json", 0o600)
        with open(f"{small}/filling", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass
        found = errors(doctor("old", "small"))
        assert {"disk", "disk latency", "role"} <= found, found
    finally:
        run("umount", small)


def test_a_backup_becomes_a_new_cluster():
    occupied = drover("new", "c1", "restore", BACKUP, check=False)
    assert occupied.returncode == 1 and "not empty" in occupied.stderr, occupied
    beside = drover("old", "r1", "restore", BACKUP, check=False)
    assert beside.returncode == 1 and "still runs" in beside.stderr, beside
    assert not os.path.exists(f"{DIR}/r1"), "nothing was begun"
    drover("new", "r1", "restore", BACKUP)
    drover("new", "r1", "up")
    names = projects("new", "r1")
    assert "before" in names and "after" not in names, names
    status, answer = call("new", "r1", "POST", "/identity/v3/projects", {"project": {"name": "since"}})
    assert status == 201, answer
    assert {"before", "after"} <= projects("old", "c1"), "the old one is as it was"
    with open(f"{DIR}/c1/pki/ca.pem") as old, open(f"{DIR}/r1/pki/ca.pem") as new:
        assert old.read() != new.read(), "no machine of the old cluster can speak to the new one"


def test_a_host_goes_over_only_when_it_is_told():
    drover("old", "n1", "down")
    drover("new", "n1", "up", check=False)
    wait("the host of the old cluster is refused", lambda: "link" in errors(doctor("new", "n1")), 30)
    drover("new", "n1", "down")
    os.makedirs(f"{DIR}/n1/node/servers/7f3c")
    # The row of the host says that it is up until its seat is known to be gone.
    wait("the host is down", lambda: "down" in drover("new", "r1", "node", "list").stdout, 120)
    token = drover("new", "r1", "join-token", "node").stdout.strip()
    refused = drover("new", "n1", "node", "--name", "n1", "--join", token, "--simulate", check=False)
    assert refused.returncode == 1 and "servers/7f3c" in refused.stderr and "--take-over" in refused.stderr, refused
    drover("new", "n1", "node", "--name", "n1", "--join", token, "--simulate", "--take-over")
    wait("the host is up", lambda: " up " in drover("new", "r1", "node", "list").stdout, 30)


def test_down_ends_what_a_service_manager_started():
    drover("new", "n1", "down")
    service = subprocess.Popen(["ip", "netns", "exec", f"{TAG}-new", DROVER, "--state", f"{DIR}/n1", "run"], stderr=subprocess.DEVNULL)
    try:
        wait("it runs", lambda: alive(process("n1", "drover", "serve")), 20)
        drover("new", "n1", "down")
        assert service.wait(20) == 0, "systemd does not start it again"
    finally:
        service.kill()


def test_the_end():
    for where, state in (("new", "n1"), ("new", "r1"), ("old", "c1")):
        drover(where, state, "down", "--destroy")
    for where in ("old", "new"):
        left = [p for p in run("ip", "netns", "pids", f"{TAG}-{where}").stdout.split() if alive(int(p))]
        assert not left, f"processes of {where} are left: {left}"
        run("ip", "netns", "del", f"{TAG}-{where}")
    run("rm", "-rf", DIR)
