"""A full disk: writes are refused precisely, reads go on, nothing half-done stays, and it is over when there is space again.

Runs in a cloud whose state directory is on a small file system (`tests/run full_disk`).
"""
import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from lib import DROVER, STATE, alive, guests, kill, osj, pid, ready, run, running as running_servers, ssh, wait
from rest import call, get, tiny, token
from uploads import answer, begin, blobs, content, image, status

BALLAST = f"{STATE}/ballast"
COMPUTE, NETWORK = "/compute/v2.1", "/network/v2.0"


def space():
    now = os.statvfs(STATE)
    return now.f_bavail * now.f_frsize


@contextmanager
def full():
    """The disk has no space left, until the end."""
    assert space() < 8 << 30, "the state directory is on no small file system"
    try:
        with open(BALLAST, "ab", buffering=0) as f:
            for size in (64 << 20, 1 << 20, 1 << 16, 4096):
                try:
                    while True:
                        os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, size)
                except OSError as e:
                    assert e.errno == errno.ENOSPC, e
        assert space() < 64 << 10, f"{space()} bytes are left"
        yield
    finally:
        os.remove(BALLAST)


def refusal(path, code, text):
    """A refusal in the form of its service, that says what is the matter."""
    if path.startswith("/image"):
        assert text.startswith("<html>") and str(code) in text, text
        message = text
    else:
        body = json.loads(text)
        key = {"/compute": "serviceUnavailable", "/network": "NeutronError", "/identity": "error"}["/" + path.split("/")[1]]
        assert key in body, text
        message = body[key]["message"]
    assert "full" in message and "space" in message, message


def write(t, path, body):
    """The status of a write: done, or refused for the one reason that there is."""
    start = time.time()
    code, _, text = call("POST", path, t, body, timeout=30)
    assert time.time() - start < 15, f"POST {path} took {time.time() - start:.0f} s"
    if code >= 400:
        assert code == 503, f"POST {path}: {code} {text}"
        refusal(path, code, text)
    return code


def writes(t, admin):
    """One of each service, by path."""
    big = "x" * 60_000
    return [
        (t, "/image/v2/images", {"name": "full", "about": big[:50_000], "disk_format": "raw", "container_format": "bare"}),
        (t, f"{NETWORK}/networks", {"network": {"name": "full", "description": big[:200]}}),
        (t, f"{NETWORK}/security-groups", {"security_group": {"name": "full", "description": big[:200]}}),
        (t, f"{COMPUTE}/os-keypairs", {"keypair": {"name": f"full-{time.time_ns()}", "public_key": public_key()}}),
        (admin, "/identity/v3/projects", {"project": {"name": f"full-{time.time()}", "domain_id": "default", "more": big}}),
        (admin, "/identity/v3/roles", {"role": {"name": f"full-{time.time()}"}}),
    ]


def public_key():
    with open(f"{STATE}/demo_key.pub") as f:
        return f.read().strip()


def reads(t, admin):
    for path in ("/servers/detail", "/flavors", "/os-keypairs", "/limits"):
        get(COMPUTE + path, t)
    for path in ("/networks", "/ports", "/security-groups", "/routers"):
        get(NETWORK + path, t)
    get("/image/v2/images", t)
    get("/identity/v3/projects", admin)
    get("/placement/resource_providers", admin)
    token()


def until_refused(t, admin):
    """Writes until the store has no space left; what it had put aside serves the first of them."""
    refused = set()
    until = time.time() + 120
    one_of_each = len(writes(t, admin))
    while len(refused) < one_of_each and time.time() < until:
        who, path, body = writes(t, admin)[0]
        while write(who, path, body) != 503:
            assert time.time() < until, "the disk never filled up"
        refused |= {path for who, path, body in writes(t, admin) if write(who, path, body) == 503}
    assert len(refused) == one_of_each, f"not every service ran out of space: {refused}"


def cleanup(t, admin):
    """Removes what the writes that went through have made."""
    for who, path, key in ((t, "/image/v2/images", "images"), (t, f"{NETWORK}/networks", "networks"),
                           (t, f"{NETWORK}/security-groups", "security_groups"), (admin, "/identity/v3/projects", "projects"),
                           (admin, "/identity/v3/roles", "roles")):
        while True:
            found = [x["id"] for x in get(f"{path}?limit=100" if key == "images" else path, who)[key] if x["name"].startswith("full")]
            if not found:
                break
            for which in found:
                code = call("DELETE", f"{path}/{which}", who)[0]
                assert code in (204, 404), code
    for pair in get(f"{COMPUTE}/os-keypairs", t)["keypairs"]:
        if pair["keypair"]["name"].startswith("full"):
            assert call("DELETE", f"{COMPUTE}/os-keypairs/{pair['keypair']['name']}", t)[0] in (202, 204)


def boot(t, name, seconds=90):
    """The server's final state, or nothing when even its row was refused."""
    code, _, made = call("POST", f"{COMPUTE}/servers", t, {"server": {"name": name, "key_name": "demo", **tiny(t)}})
    if code == 503:
        refusal(f"{COMPUTE}/servers", code, made)
        return None
    assert code == 202, f"{code} {made}"
    path = f"{COMPUTE}/servers/{made['server']['id']}"
    return wait(f"{name} ACTIVE or ERROR", lambda: (s := get(path, t)["server"])["status"] in ("ACTIVE", "ERROR") and s, seconds)


def gone(t, server):
    path = f"{COMPUTE}/servers/{server['id']}"
    assert call("DELETE", path, t)[0] == 204
    wait("404", lambda: call("GET", path, t)[0] == 404, 60)


def put_aside(t):
    """Makes the store's log grow and begin anew, so that the store has space of its own when the disk has none."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: image(t, "full", about="x" * 60_000), range(400)))
        gone = list(pool.map(lambda which: call("DELETE", f"/image/v2/images/{which}", t)[0], made))
    assert set(gone) == {204}, gone


def test_an_upload_that_does_not_fit():
    t, before = token(), blobs()
    put_aside(t)
    which = image(t, "fits-not")
    data = content()
    with full():
        tcp = begin(t, which, f"Content-Length: {len(data)}")
        tcp.sendall(data)
        code = answer(tcp, 30)
        assert code == 413, code
        tcp.close()
        wait("nothing of it", lambda: blobs() == before, 10)
        wait("queued", lambda: status(t, which) == "queued", 10)
    tcp = begin(t, which, f"Content-Length: {len(data)}")
    tcp.sendall(data)
    assert answer(tcp, 30) == 204
    tcp.close()
    assert call("DELETE", f"/image/v2/images/{which}", t)[0] == 204


def test_a_server_that_does_not_fit():
    t = token()
    with full():
        server = boot(t, "fits-not")
        assert server, "its row has space, only its disk has not"
        assert server["status"] == "ERROR", server["status"]
        assert "space" in server["fault"]["message"], server["fault"]
        gone(t, server)
        assert get(f"{COMPUTE}/servers", t)["servers"], "the server demo is there"
    server = boot(t, "fits")
    assert server["status"] == "ACTIVE", server["fault"]
    gone(t, server)


def test_writes_are_refused_and_reads_go_on():
    t, admin = token(), token("admin")
    serve, running = pid("serve"), running_servers()
    with full():
        until_refused(t, admin)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda w: write(*w), writes(t, admin) * 8))
        reads(t, admin)
        assert ssh(osj("floating ip list")[0]["Floating IP Address"], "hostname") == "demo"
        run(DROVER, "status", "--state", STATE)
        run(DROVER, "why", "server", "demo", "--state", STATE)
    wait("a write of every service", lambda: all(write(*w) < 300 for w in writes(t, admin)), 30)
    cleanup(t, admin)
    server = boot(t, "after")
    assert server["status"] == "ACTIVE", server
    gone(t, server)
    assert pid("serve") == serve and alive(serve), "it went on without a restart"
    assert running_servers() == running


def test_our_end_on_a_full_disk_is_over_when_there_is_space():
    t, admin = token(), token("admin")
    running = running_servers()
    with full():
        until_refused(t, admin)
        old = kill("serve")
        wait("the end of serve", lambda: not alive(old), 10)
    wait("serve", ready, 60)
    assert running_servers() == running and status(t, get("/image/v2/images?name=tiny", t)["images"][0]["id"]) == "active"
    server = boot(t, "again")
    assert server["status"] == "ACTIVE", server
    gone(t, server)
    cleanup(t, admin)


def test_down_works_on_a_full_disk():
    with full():
        run(DROVER, "down", "--state", STATE, timeout=120)
        assert not guests()
    run(DROVER, "up", "--state", STATE, timeout=300)
    assert osj("server show demo")["status"] == "ACTIVE"
