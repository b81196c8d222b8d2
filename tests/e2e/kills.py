"""kill -9 of our processes while guests run and servers come and go."""
from lib import alive, guests, kill, osc, osj, pid, ready, ssh, wait


def test_serve_comes_back_and_guests_do_not_notice():
    before = guests()
    old = kill("serve")
    wait("another serve", lambda: pid("serve") != old and alive(pid("serve")) and ready(), 30)
    assert guests() == before and before
    assert osj("server show demo")["status"] == "ACTIVE"
    address = osj("floating ip list")[0]["Floating IP Address"]
    assert ssh(address, "hostname") == "demo"


def test_supervise_comes_back():
    old = kill("supervise")
    wait("another supervise", lambda: pid("supervise") != old and alive(pid("supervise")), 30)
    assert ready()


def test_servers_created_and_deleted_under_kills_end_well():
    for round_ in range(2):
        names = [f"storm-{round_}-{i}" for i in range(6)]
        osc(f"server create --image tiny --flavor m1.nano --network private --min 6 --max 6 storm-{round_}")
        kill("serve")
        wait("serve", ready, 30)

        def settled():
            mine = [s for s in osj("server list") if s["Name"].startswith(f"storm-{round_}")]
            return len(mine) == len(names) and all(s["Status"] in ("ACTIVE", "ERROR") for s in mine)
        wait("six servers ACTIVE or ERROR", settled, 90)
        ids = [s["ID"] for s in osj("server list") if s["Name"].startswith(f"storm-{round_}")]
        osc(f"server delete {' '.join(ids)}")
        kill("serve")
        wait("serve", ready, 30)
        wait("all deleted", lambda: not [s for s in osj("server list") if s["Name"].startswith(f"storm-{round_}")], 90)
