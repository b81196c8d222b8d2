"""A cloud from nothing, and the same command again."""
import os
from lib import DROVER, STATE, osj, run, ssh, wait


def test_up_ends_with_a_guest_that_answers_ssh():
    out = run(DROVER, "up", "--guest-image", os.environ["DROVER_GUEST"], "--state", STATE, timeout=420)
    assert out == "", "stdout is for data"
    assert os.stat(f"{STATE}/clouds.yaml").st_mode & 0o077 == 0, "credentials are for root only"


def test_up_is_idempotent():
    before = {s["ID"] for s in osj("server list")}
    run(DROVER, "up", "--state", STATE, timeout=120)
    assert {s["ID"] for s in osj("server list")} == before and len(before) == 1


def test_the_guest_knows_who_it_is():
    server = osj("server show demo")
    address = osj("floating ip list")[0]["Floating IP Address"]
    assert ssh(address, "hostname") == "demo"
    assert server["id"] in ssh(address, "curl -s http://169.254.169.254/openstack/latest/meta_data.json")
    assert wait("the console", lambda: "ssh ready" in osj_console())


def osj_console():
    from lib import osc
    return osc("console log show demo")
