"""HTTP over TLS by hand, for many requests at once and faults in the middle of each: nothing is retried here, and every wait ends."""
import asyncio
import json
import ssl
from urllib.parse import quote

PORT, OWN_PORT = 8774, 8776
# Handshakes at once with one endpoint, and for how long one counts. The clients of a cloud are many machines; here they share two
# processors with the cloud, and thousands of handshakes at once, after an outage, would all be too late.
HANDSHAKES, COUNTS_FOR = 64, 1.0


class Failed(Exception):
    """There was no answer; what the server did is not known unless `sent` is false."""

    def __init__(self, cause, sent):
        super().__init__(cause)
        self.sent = sent


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body) if self.body else None

    def text(self):
        return self.body[:300].decode(errors="replace")


class Client:
    """Connections to one endpoint; each is used for `uses` requests and then closed."""

    def __init__(self, host, port, ca, uses=1):
        self.host, self.port, self.uses = host, port, uses
        self.tls = ssl.create_default_context(cafile=ca)
        self.idle = []
        self.handshakes = asyncio.Semaphore(HANDSHAKES)

    async def call(self, method, path, body=None, token=None, key=None, timeout=10.0, headers=None):
        sent = False
        connection = None
        try:
            async with asyncio.timeout(timeout):
                connection = await self.connect()
                reader, writer, left = connection
                writer.write(self.head(method, path, body, token, key, headers or {}, left))
                sent = True
                await writer.drain()
                answer = await read(reader, method)
        except (OSError, EOFError, asyncio.TimeoutError, ValueError) as e:
            if connection:
                connection[1].transport.abort()
            # The other end may be another host by now, which knows none of the connections that are kept.
            self.close()
            raise Failed(f"{type(e).__name__}: {e}", sent) from None
        except asyncio.CancelledError:
            if connection:
                connection[1].transport.abort()
            raise
        if left > 1 and answer.headers.get("connection", "").lower() != "close":
            self.idle.append((reader, writer, left - 1))
        else:
            writer.close()
        return answer

    async def connect(self):
        while self.idle:
            reader, writer, left = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer, left
            writer.close()
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            await self.handshakes.acquire()
            # One who gets no answer holds up nobody.
            counts = loop.call_later(COUNTS_FOR, self.handshakes.release)
            await writer.start_tls(self.tls, server_hostname=self.host)
        except BaseException:
            writer.transport.abort()
            raise
        if counts.when() > loop.time():
            counts.cancel()
            self.handshakes.release()
        return reader, writer, self.uses

    def head(self, method, path, body, token, key, headers, left):
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        lines = {"host": f"{self.host}:{self.port}", "content-length": len(data), "content-type": "application/json", **headers}
        if token:
            lines["x-auth-token"] = token
        if key:
            lines["idempotency-key"] = f'"{key}"'
        if left <= 1:
            lines["connection"] = "close"
        text = f"{method} {quote(path, safe='/?&=:,.-_~')} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        return text.encode() + b"\r\n" + data

    def close(self):
        for _, writer, _ in self.idle:
            writer.transport.abort()
        self.idle.clear()


async def read(reader, method):
    status = int((await line(reader)).split()[1])
    headers = {}
    while text := await line(reader):
        name, _, value = text.partition(":")
        headers[name.strip().lower()] = value.strip()
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while size := int((await line(reader)).split(";")[0], 16):
            parts.append(await reader.readexactly(size))
            await line(reader)
        await line(reader)
        return Answer(status, headers, b"".join(parts))
    if "content-length" in headers:
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
    return Answer(status, headers, await reader.read())


async def line(reader):
    text = await reader.readuntil(b"\r\n")
    return text[:-2].decode("latin-1")
