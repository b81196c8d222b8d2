"""An API as the door sees one: backend.py ADDRESS PORT CERTIFICATE KEY CA NAME DIRECTORY

/who is NAME. /die ends the first process of all that is asked, with
the request carried out and not answered. /wait writes NAME into DIRECTORY/waiting and
answers when DIRECTORY/go is there. /seen is what came in. Bodies are counted."""
import http.server, json, os, ssl, sys, time

address, port, certificate, key, ca, name, directory = sys.argv[1:]


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        size = len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path == "/die":
            with open(f"{directory}/died.{name}", "a") as f:
                f.write("x")
            try:
                os.close(os.open(f"{directory}/died", os.O_CREAT | os.O_EXCL))
                os._exit(1)
            except FileExistsError:
                self.answer(200, f"{name} {size}")
        elif self.path == "/wait":
            with open(f"{directory}/waiting", "a") as f:
                f.write(name + "\n")
            while not os.path.exists(f"{directory}/go"):
                time.sleep(0.01)
            self.answer(200, name)
        elif self.path == "/seen":
            self.answer(200, json.dumps({k.lower(): v for k, v in self.headers.items()}))
        else:
            self.answer(200, name)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request, client):  # in the thread of the connection: a handshake stops nobody else
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        with context.wrap_socket(request, server_side=True) as secure:
            self.RequestHandlerClass(secure, client, self)

    def handle_error(self, *_):
        pass


Server((address, int(port)), Api).serve_forever()
