"""Guests and what is beyond the cloud: they reach the world through the host, and not the host itself."""
import os
import subprocess
import sys
from contextlib import contextmanager
from lib import osj, run, ssh, wait

WORLD = f"drover-world-{os.getpid()}"
SERVER = """import socket, sys
s = socket.create_server(("", 8099))
while True:
    c, peer = s.accept()
    c.recv(1000)
    c.send(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello " + peer[0].encode())
    c.close()"""


def curl(address, seconds=5):
    return ["curl", "-s", "-m", str(seconds), f"http://{address}:8099/"]


def fetch(address):
    return subprocess.run(curl(address), capture_output=True, text=True, timeout=20).stdout


@contextmanager
def world():
    """A network namespace beyond this host that knows nothing of the cloud's addresses; something listens there, and on the host."""
    children = []
    try:
        run("ip", "netns", "add", WORLD)
        run("ip", "link", "add", "world0", "type", "veth", "peer", "name", "eth0", "netns", WORLD)
        for line in ("address add 203.0.113.1/24 dev world0", "link set world0 up"):
            run("ip", *line.split())
        for line in ("address add 203.0.113.2/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", WORLD, *line.split())
        children.append(subprocess.Popen([sys.executable, "-c", SERVER]))
        children.append(subprocess.Popen(["ip", "netns", "exec", WORLD, sys.executable, "-c", SERVER]))
        for address in ("203.0.113.1", "203.0.113.2"):
            wait(f"a server at {address}", lambda: fetch(address).startswith("hello"), 10)
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
        subprocess.run(["ip", "link", "del", "world0"], capture_output=True)
        subprocess.run(["ip", "netns", "del", WORLD], capture_output=True)


def gateway():
    return osj("subnet show public-subnet", "drover-admin")["gateway_ip"]


def test_guests_reach_the_world_and_not_this_host():
    guest = osj("floating ip list")[0]["Floating IP Address"]
    host = gateway()
    with world():
        assert ssh(guest, " ".join(curl("203.0.113.2"))) == "hello 203.0.113.1", "the world sees the host's address"
        assert fetch(host).startswith("hello"), "the host's own listener is there"
        for own in (host, "203.0.113.1"):
            assert ssh(guest, " ".join(curl(own, 2)) + " || echo refused") == "refused", f"a guest reaches {own}"
        assert ssh(guest, f"curl -s -m 2 http://{host}:8774/ || echo refused") == "refused", "a guest reaches the API of the host"
        assert "1 packets received" in ssh(guest, f"ping -c 1 -W 2 {host}"), "the gateway answers ping"
        assert ssh(guest, "curl -s http://169.254.169.254/latest/meta-data/hostname").startswith("demo"), "its metadata is there"


def test_the_host_is_asked_for_no_more_than_is_needed():
    tables = [line for line in run("nft", "list", "tables").splitlines() if "drover_" in line]
    assert len(tables) == 1, tables
    with open("/proc/sys/net/ipv4/ip_forward") as f:
        assert f.read().strip() == "1"
