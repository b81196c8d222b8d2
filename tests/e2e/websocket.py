"""The client side of a WebSocket (RFC 6455), as far as a console needs it."""
import base64
import hashlib
import os
import socket
import struct
from urllib.parse import urlparse

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


class WebSocket:
    """A stream of bytes over binary frames. `read` raises EOFError when the other side closes."""

    def __init__(self, url, origin=None, timeout=20):
        place = urlparse(url)
        key = base64.b64encode(os.urandom(16)).decode()
        self.tcp = socket.create_connection((place.hostname, place.port), timeout)
        self.tcp.settimeout(timeout)
        self.bytes, self.held = b"", b""
        lines = [f"GET {place.path} HTTP/1.1", f"Host: {place.netloc}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: binary"]
        lines += [f"Origin: {origin}"] if origin else []
        self.tcp.sendall("\r\n".join(lines + ["", ""]).encode())
        while b"\r\n\r\n" not in self.held:
            self.held += self._receive()
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 101:
            self.tcp.close()
            raise Refused(status, self.held.decode(errors="replace"))
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        assert accept in head, head

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tcp.close()

    def _receive(self):
        got = self.tcp.recv(65536)
        if not got:
            raise EOFError("the connection ended")
        return got

    def _take(self, count):
        while len(self.held) < count:
            self.held += self._receive()
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def _frame(self):
        first, second = self._take(2)
        size = second & 0x7f
        if size >= 126:
            size, = struct.unpack("!H" if size == 126 else "!Q", self._take(2 if size == 126 else 8))
        return first & 0x0f, self._take(size)

    def read(self, count):
        while len(self.bytes) < count:
            kind, content = self._frame()
            if kind == CLOSE:
                raise EOFError("the other side closed")
            if kind == BINARY:
                self.bytes += content
        taken, self.bytes = self.bytes[:count], self.bytes[count:]
        return taken

    def write(self, content, kind=BINARY):
        mask = os.urandom(4)
        size = bytes([0x80 | len(content)]) if len(content) < 126 else bytes([0x80 | 126]) + struct.pack("!H", len(content))
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(content))
        self.tcp.sendall(bytes([0x80 | kind]) + size + mask + masked)
