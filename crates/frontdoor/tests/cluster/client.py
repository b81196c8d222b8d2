"""Asks URL again and again on new connections, and writes one line per request: seconds, ok or why not: client.py HOST PORT CA"""
import http.client, ssl, sys, time

host, port, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
while True:
    began = time.monotonic()
    try:
        connection = http.client.HTTPSConnection(host, int(port), timeout=0.25, context=context)
        connection.request("GET", "/who")
        answer = connection.getresponse()
        body = answer.read().decode()
        word = "ok" if answer.status == 200 else str(answer.status)
        connection.close()
    except Exception as e:
        word = type(e).__name__
    print(f"{time.monotonic():.4f} {word}", flush=True)
    time.sleep(max(0, 0.01 - (time.monotonic() - began)))
