"""A controller dies in the middle of an upload, into a directory and into a bucket: the image is `queued` again, a second upload works, and
nothing of the first is left on the disk or in the bucket. Real processes of a cloud of its own; a real server that speaks S3."""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from lib import DROVER, STATE, admin_token, alive, call, wait

DIR = f"{STATE}-objects"
SIZE = 96 << 20
SECRET = "canary-secret-key-0f3a"
WORLD = {}


def run(*argv, timeout=300):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def s3(method, path):
    """Status and text of a request to the bucket's server, which lets everybody in."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{WORLD['s3']}{path}", method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def in_bucket():
    """Keys of whole objects, and number of uploads that are not finished."""
    whole = re.findall("<Key>(.*?)</Key>", s3("GET", "/images?list-type=2")[1])
    return whole, s3("GET", "/images?uploads")[1].count("<UploadId>")


def files():
    """Every file of the image store, whole ones and unfinished ones."""
    return sorted(os.path.join(at, name) for at, _, names in os.walk(f"{DIR}/state/images") for name in names if name != "lock")


def serve():
    with open(f"{DIR}/state/run/drover/serve.json") as f:
        found = json.load(f)
    return found.get("pid") or found["id"]["pid"]


def ready():
    with urllib.request.urlopen(f"{WORLD['url']}/readyz", timeout=3) as answer:
        return answer.status == 200


def api(method, path, body=None):
    return call(WORLD["url"], method, f"/image{path}", body, WORLD["token"], 30)


def test_a_cloud_with_a_bucket():
    shutil.rmtree(DIR, ignore_errors=True)
    os.makedirs(DIR, mode=0o711)
    with open(f"{DIR}/key", "w") as f:
        f.write(f"access\n{SECRET}\n")
    log = open(f"{DIR}/moto.log", "w")
    moto = os.path.join(os.path.dirname(__file__), "../../scripts/moto")
    WORLD["moto"] = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", "0"], stdout=log, stderr=log)
    found = wait("moto", lambda: re.search("Running on (http://[0-9.:]+)", open(f"{DIR}/moto.log").read()), 120)
    WORLD["s3"] = found.group(1)
    assert s3("PUT", "/images")[0] == 200
    WORLD["url"] = f"http://127.0.0.1:{port()}"
    store = f"id=objects,type=s3,endpoint={WORLD['s3']},bucket=images,credentials={DIR}/key"
    run(DROVER, "up", "--bare", "--listen", WORLD["url"][7:], "--simulate", "1", "--state", f"{DIR}/state", "--image-store", store)
    WORLD["token"] = admin_token(WORLD["url"], f"{DIR}/state")
    stores = api("GET", "/v2/info/stores")[2]["stores"]
    assert [s["id"] for s in stores] == ["local", "objects"], stores


def begin(which, store, sent):
    """A connection on which that many bytes of an upload were sent."""
    host = WORLD["url"][7:]
    tcp = socket.create_connection(tuple(host.split(":")), 30)
    lines = [f"PUT /image/v2/images/{which}/file HTTP/1.1", f"Host: {host}", f"X-Auth-Token: {WORLD['token']}",
             "Content-Type: application/octet-stream", f"X-Image-Meta-Store: {store}", f"Content-Length: {SIZE}", "", ""]
    tcp.sendall("\r\n".join(lines).encode())
    tcp.sendall(sent)
    return tcp


def test_the_death_of_the_controller_in_the_middle_of_an_upload():
    data = random.Random(7).randbytes(SIZE)
    for store in ("local", "objects"):
        body = {"name": "half", "disk_format": "raw", "container_format": "bare"}
        which = api("POST", "/v2/images", body)[2]["id"]
        tcp = begin(which, store, data[:SIZE // 2])
        wait("saving", lambda: api("GET", f"/v2/images/{which}")[2]["status"] == "saving", 10)
        if store == "objects":
            wait("parts in the bucket", lambda: in_bucket()[1] == 1, 20)
        old = serve()
        os.kill(old, signal.SIGKILL)
        start = time.time()
        tcp.settimeout(30)
        try:
            answer = tcp.recv(1000)
        except ConnectionError:
            answer = b""
        assert answer == b"" and time.time() - start < 5, (answer, time.time() - start)
        tcp.close()
        wait("another serve", lambda: serve() != old and alive(serve()) and ready(), 30)
        wait("queued", lambda: api("GET", f"/v2/images/{which}")[2]["status"] == "queued", 60)
        wait("nothing left", lambda: (files(), in_bucket()) == ([], ([], 0)), 90)
        again = begin(which, store, data)
        again.settimeout(60)
        assert b" 204 " in again.recv(1000)
        again.close()
        seen = api("GET", f"/v2/images/{which}")[2]
        assert (seen["status"], seen["size"], seen["stores"]) == ("active", SIZE, store), seen
        assert seen["os_hash_value"] == hashlib.sha512(data).hexdigest()
        assert (len(files()), len(in_bucket()[0])) == ((1, 0) if store == "local" else (0, 1))
        assert api("DELETE", f"/v2/images/{which}")[0] == 204
        if store == "objects":
            wait("the object is gone", lambda: in_bucket() == ([], 0), 20)
        else:
            # The blob of an image that is gone waits for its grace.
            for path in files():
                os.unlink(path)


def test_the_secret_is_in_no_log_and_no_option():
    shown = run(DROVER, "dump-config", "--state", f"{DIR}/state")
    assert "objects" in shown and SECRET not in shown
    for at, _, names in os.walk(f"{DIR}/state"):
        for name in names:
            with open(os.path.join(at, name), "rb") as f:
                assert SECRET.encode() not in f.read(), os.path.join(at, name)


def test_its_end():
    run(DROVER, "down", "--destroy", "--state", f"{DIR}/state")
    WORLD["moto"].kill()
    WORLD["moto"].wait()
    shutil.rmtree(DIR, ignore_errors=True)
