"""The VNC console with a client of its own: WebSocket, then RFB 3.8 (RFC 6143)."""
import json
import os
import sqlite3
import struct
import time
from urllib.parse import urlparse
from lib import STATE, osj, wait
from rest import call, tiny, token
from websocket import PING, Refused, WebSocket


def console(server="demo"):
    return osj(f"console url show --novnc {server}")["url"]


def handshake(screen):
    """RFB up to the server's first message; gives the screen's size and the bytes of one pixel."""
    assert screen.read(12) == b"RFB 003.008\n"
    screen.write(b"RFB 003.008\n")
    kinds = screen.read(screen.read(1)[0])
    assert 1 in kinds, f"security types {kinds!r} without None"
    screen.write(b"\x01")
    assert screen.read(4) == b"\0\0\0\0", "the security handshake failed"
    screen.write(b"\x01")
    width, height, bits = struct.unpack("!HHB", screen.read(5))
    screen.read(15)
    name = screen.read(struct.unpack("!I", screen.read(4))[0])
    return width, height, bits // 8, name.decode()


def pixels(screen, width, height, pixel):
    """Asks for the whole screen without compression and takes what comes until every pixel is there."""
    screen.write(struct.pack("!BxHi", 2, 1, 0))
    screen.write(struct.pack("!BBHHHH", 3, 0, 0, 0, width, height))
    seen = 0
    while seen < width * height:
        assert screen.read(1) == b"\0", "something else than a framebuffer update"
        for _ in range(struct.unpack("!xH", screen.read(3))[0]):
            _, _, w, h, encoding = struct.unpack("!HHHHi", screen.read(12))
            assert encoding == 0, f"encoding {encoding} was not asked for"
            assert len(screen.read(w * h * pixel)) == w * h * pixel
            seen += w * h
    return seen


def refused(url, **options):
    try:
        WebSocket(url, **options).tcp.close()
    except Refused as e:
        return e.status
    raise AssertionError(f"{url} {options} was opened")


def test_a_console_shows_the_screen_of_its_server():
    server = osj("server show demo")["id"]
    with WebSocket(console()) as screen:
        width, height, pixel, name = handshake(screen)
        assert server in name, f"the screen is that of {name}"
        assert width >= 640 and height >= 400 and pixel == 4
        # Control frames are the WebSocket's own business and must not reach the display.
        screen.write(b"are you there", PING)
        assert pixels(screen, width, height, pixel) == width * height
        screen.write(struct.pack("!BBxxI", 4, 1, 0xff0d) + struct.pack("!BBxxI", 4, 0, 0xff0d))
        assert pixels(screen, width, height, pixel) == width * height


def test_an_address_opens_once():
    url = console()
    assert call("GET", urlparse(url).path)[0] == 400, "what is no WebSocket is told so and does not use it up"
    WebSocket(url).tcp.close()
    assert refused(url) == 404


def test_a_wrong_token_opens_nothing():
    url = console()
    assert refused(url[:-4] + "0000") == 404
    used = url.rsplit("/", 1)[1]
    for wrong in ("../vnc/" + used[:-1], "%00", used + used, used.upper() + "x"):
        assert refused(url.replace(used, wrong)) in (400, 401, 404), wrong
    WebSocket(url).tcp.close()


def test_an_address_lives_for_minutes():
    console()
    with sqlite3.connect(f"file:{STATE}/drover.db?mode=ro", uri=True) as db:
        rows = [json.loads(value) for _, value in db.execute("select key, value from rows where key like '%console%'")]
    ends = [row["expires_at"] for row in rows if "expires_at" in row]
    assert ends and all(end / 1e6 < time.time() + 601 for end in ends), rows


def test_pages_of_other_sites_are_refused():
    url = console()
    for origin in ("http://evil.example", "null", f"http://{urlparse(url).netloc}.evil.example"):
        assert refused(url, origin=origin) == 403, origin
    place = urlparse(url)
    WebSocket(url, origin=f"{place.scheme}://{place.netloc}").tcp.close()


def test_a_console_ends_with_its_server():
    t = token()
    made = call("POST", "/compute/v2.1/servers", t, {"server": {"name": "screen", **tiny(t)}})[2]["server"]["id"]
    path = f"/compute/v2.1/servers/{made}"
    wait("ACTIVE", lambda: call("GET", path, t)[2]["server"]["status"] == "ACTIVE")
    unused = console("screen")
    with WebSocket(console("screen")) as screen:
        handshake(screen)
        assert call("DELETE", path, t)[0] == 204

        def closed():
            try:
                screen.read(1)
            except (EOFError, ConnectionError):
                return True
        wait("the end of the console", closed, 20)
    wait("404", lambda: call("GET", path, t)[0] == 404)
    assert refused(unused) == 404


def test_tokens_are_in_no_log_nor_in_the_store():
    url = console()
    WebSocket(url).tcp.close()
    secret = url.rsplit("/", 1)[1].encode()
    for name in ("run/drover/serve.log", "drover.db", "drover.db-wal"):
        with open(os.path.join(STATE, name), "rb") as f:
            assert secret not in f.read(), name
