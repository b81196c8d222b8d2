"""After everything is deleted, nothing of it is left on the host."""
from lib import osc, osj, wait, world


def test_nothing_is_left():
    for server in osj("server list --all-projects", "drover-admin"):
        osc(f"server delete {server['ID']}", "drover-admin")
    wait("no servers", lambda: not osj("server list --all-projects", "drover-admin"), 90)
    for address in osj("floating ip list"):
        osc(f"floating ip delete {address['ID']}")

    def clean():
        left = {what: names for what, names in world().items() if names}
        if left:
            raise AssertionError(left)
        return True
    wait("a clean host", clean, 90)
    usage = osj("resource provider list", "drover-admin")
    for provider in usage:
        used = osj(f"resource provider usage show {provider['uuid']}", "drover-admin")
        assert all(u["usage"] == 0 for u in used), used
    quota = {q["Resource"]: q for q in osj("quota show --usage")}
    assert quota["instances"]["In Use"] == 0 and quota["cores"]["In Use"] == 0, quota
