"""kill -9 of our processes while guests run and servers come and go."""
from lib import alive, kill, osj, pid, ready, running, ssh, wait


def test_serve_comes_back_and_guests_do_not_notice():
    before = running()
    old = kill("serve")
    wait("another serve", lambda: pid("serve") != old and alive(pid("serve")) and ready(), 30)
    assert running() == before and before
    assert osj("server show demo")["status"] == "ACTIVE"
    address = osj("floating ip list")[0]["Floating IP Address"]
    assert ssh(address, "hostname") == "demo"


def test_supervise_comes_back():
    old = kill("supervise")
    wait("another supervise", lambda: pid("supervise") != old and alive(pid("supervise")), 30)
    assert ready()
