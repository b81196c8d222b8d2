"""Uploads that do not come to their end: the image is `queued` again, nothing of them is kept, and the next one works."""
import hashlib
import json
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlparse
from lib import STATE, alive, endpoint, kill, osj, pid, ready, wait
from rest import call, token

GUEST = os.environ["DROVER_GUEST"]


def image(t, name, **more):
    body = {"name": name, "disk_format": "qcow2", "container_format": "bare", **more}
    status, _, made = call("POST", "/image/v2/images", t, body)
    assert status == 201, made
    return made["id"]


def blobs():
    """Every file of the image store, whole ones and unfinished ones."""
    return sorted(os.path.join(at, name) for at, _, names in os.walk(f"{STATE}/images") for name in names if name != "lock")


def begin(t, which, *headers):
    """A connection on which the head of an upload was sent."""
    place = urlparse(endpoint())
    tcp = socket.create_connection((place.hostname, place.port), 30)
    lines = [f"PUT /image/v2/images/{which}/file HTTP/1.1", f"Host: {place.netloc}", f"X-Auth-Token: {t}",
             "Content-Type: application/octet-stream", *headers]
    tcp.sendall("\r\n".join(lines + ["", ""]).encode())
    return tcp


def answer(tcp, seconds=30):
    """The status of what comes back; 0 if the connection only ends."""
    tcp.settimeout(seconds)
    try:
        head = tcp.recv(4096)
    except ConnectionError:
        return 0
    return int(head.split()[1]) if head else 0


def cut(tcp):
    """Ends the connection like a program that dies: with a reset."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()


def content(size=None):
    with open(GUEST, "rb") as f:
        return f.read(size) if size else f.read()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def status(t, which):
    return call("GET", f"/image/v2/images/{which}", t)[2]["status"]


def comes_back(t, which, before, seconds=15):
    """The image can be uploaded again, nothing is left, and then it is whole."""
    wait("queued", lambda: status(t, which) == "queued", seconds)
    wait("nothing left of the upload", lambda: blobs() == before, seconds)
    whole = content()
    tcp = begin(t, which, f"Content-Length: {len(whole)}")
    tcp.sendall(whole)
    assert answer(tcp, 60) == 204
    tcp.close()
    seen = call("GET", f"/image/v2/images/{which}", t)[2]
    assert (seen["status"], seen["size"], seen["os_hash_value"]) == ("active", len(whole), hashlib.sha512(whole).hexdigest())
    assert call("DELETE", f"/image/v2/images/{which}", t)[0] == 204


def test_less_than_announced_and_a_cut_connection():
    t, before = token(), blobs()
    for end in (cut, lambda tcp: tcp.close()):
        which = image(t, "short")
        tcp = begin(t, which, f"Content-Length: {len(content())}")
        tcp.sendall(content(1 << 20))
        wait("saving", lambda: status(t, which) == "saving", 10)
        end(tcp)
        comes_back(t, which, before)


def test_less_than_announced_and_an_answer_is_awaited():
    t, before = token(), blobs()
    which = image(t, "half-closed")
    tcp = begin(t, which, f"Content-Length: {len(content())}")
    tcp.sendall(content(1 << 20))
    tcp.shutdown(socket.SHUT_WR)
    assert answer(tcp) in (0, 400)
    tcp.close()
    comes_back(t, which, before)


def test_chunks_that_stop():
    t, before = token(), blobs()
    first = chunk(content(1 << 16))
    for name, sent in {"between": first, "within": first + first[:1000], "in a size": first + b"10", "no size": first + b"xyz\r\n"}.items():
        which = image(t, name)
        tcp = begin(t, which, "Transfer-Encoding: chunked")
        tcp.sendall(sent)
        wait("saving", lambda: status(t, which) in ("saving", "queued"), 10)
        tcp.shutdown(socket.SHUT_WR)
        assert answer(tcp) in (0, 400), name
        tcp.close()
        comes_back(t, which, before)


def test_another_size_than_the_client_says():
    t, before = token(), blobs()
    which = image(t, "said")
    data = content(1 << 16)
    tcp = begin(t, which, "Transfer-Encoding: chunked", f"X-Openstack-Image-Size: {len(data) + 1}")
    tcp.sendall(chunk(data) + b"0\r\n\r\n")
    assert answer(tcp) == 400
    tcp.close()
    comes_back(t, which, before)


def test_slow_clients():
    """One that is slow gets there; one that stands still is let go after a minute; a second upload meanwhile is refused."""
    t, before = token(), blobs()

    def slow():
        which = image(t, "slow")
        data = content()
        tcp = begin(t, which, f"Content-Length: {len(data)}")
        for i in range(40):
            tcp.sendall(data[i * 1000:(i + 1) * 1000])
            time.sleep(0.2)
        tcp.sendall(data[40_000:])
        assert answer(tcp) == 204
        tcp.close()
        return which

    def still():
        which = image(t, "still")
        tcp = begin(t, which, f"Content-Length: {len(content())}")
        tcp.sendall(content(1000))
        wait("saving", lambda: status(t, which) == "saving", 10)
        second = begin(t, which, "Content-Length: 4")
        second.sendall(b"data")
        assert answer(second) == 409
        second.close()
        start = time.time()
        assert answer(tcp, 90) in (0, 400, 408)
        assert 30 < time.time() - start < 80
        tcp.close()
        return which
    with ThreadPoolExecutor(2) as pool:
        done, failed = pool.submit(slow), pool.submit(still)
        assert call("DELETE", f"/image/v2/images/{done.result()}", t)[0] == 204
        which = failed.result()
    wait("the blob of the image that is gone", lambda: [b for b in blobs() if "incoming" in b] == [], 10)
    comes_back(t, which, before)


def test_our_own_end():
    t, before = token(), blobs()
    which = image(t, "killed")
    tcp = begin(t, which, f"Content-Length: {len(content())}")
    tcp.sendall(content(1 << 20))
    wait("saving", lambda: status(t, which) == "saving", 10)
    old = kill("serve")
    wait("another serve", lambda: pid("serve") != old and alive(pid("serve")) and ready(), 30)
    tcp.close()
    comes_back(t, which, before, 60)


def test_an_image_deleted_while_it_comes():
    t, before = token(), blobs()
    which = image(t, "gone")
    tcp = begin(t, which, f"Content-Length: {len(content())}")
    tcp.sendall(content(1 << 20))
    wait("saving", lambda: status(t, which) == "saving", 10)
    assert call("DELETE", f"/image/v2/images/{which}", t)[0] == 204
    try:
        tcp.sendall(content()[1 << 20:])
        assert answer(tcp) in (0, 404, 410)
    except ConnectionError:
        pass
    tcp.close()
    wait("nothing of it", lambda: blobs() == before, 20)
    assert json.dumps(osj("image list")).count("gone") == 0
