"""A normal day with the `openstack` command."""
import os
import tempfile
from lib import STATE, osc, osj, ssh, wait

GUEST = os.environ["DROVER_GUEST"]


def test_images():
    image = osj(f"image create --disk-format qcow2 --container-format bare --file {GUEST} --property color=blue mine")
    assert image["status"] in ("active", "queued", "saving")
    assert osj("image show mine")["status"] == "active"
    with tempfile.NamedTemporaryFile() as f:
        osc(f"image save --file {f.name} mine")
        assert open(f.name, "rb").read() == open(GUEST, "rb").read()
    osc("image set --name yours --tag a --min-ram 64 mine")
    osc("image unset --tag a yours")
    assert osj("image show yours")["min_ram"] == 64
    assert "yours" in [i["Name"] for i in osj("image list --shared")]
    osc("image delete yours")


def test_flavors_as_admin():
    osc("flavor create --ram 128 --vcpus 1 --disk 1 --property a=b day", "drover-admin")
    osc("flavor set --property c=d day", "drover-admin")
    osc("flavor unset --property a day", "drover-admin")
    assert osj("flavor show day", "drover-admin")["properties"] == {"c": "d"}
    assert "day" in [f["Name"] for f in osj("flavor list")]
    osc("flavor delete day", "drover-admin")


def test_keypairs():
    with tempfile.NamedTemporaryFile(suffix=".pub") as f:
        f.write(open(f"{STATE}/demo_key.pub", "rb").read())
        f.flush()
        osc(f"keypair create --public-key {f.name} day")
    assert osj("keypair show day")["fingerprint"]
    assert "day" in [k["Name"] for k in osj("keypair list")]
    osc("keypair delete day")


def test_networks():
    osc("network create day")
    osc("network set --description hello day")
    osc("subnet create --network day --subnet-range 10.7.0.0/24 --dns-nameserver 9.9.9.9 day")
    osc("subnet set --dns-nameserver 8.8.8.8 day")
    osc("subnet unset --dns-nameserver 9.9.9.9 day")
    assert osj("subnet show day")["dns_nameservers"] == ["8.8.8.8"]
    osc("router create day")
    osc("router set --external-gateway public day")
    osc("router add subnet day day")
    port = osj("port create --network day --fixed-ip subnet=day,ip-address=10.7.0.77 day")
    assert port["fixed_ips"][0]["ip_address"] == "10.7.0.77"
    osc("port set --description x --allowed-address ip-address=10.7.0.99 day")
    osc("port set --no-allowed-address day")
    osc("port delete day")
    osc("router remove subnet day day")
    osc("router unset --external-gateway day")
    osc("router delete day")
    osc("network delete day")


def test_security_groups():
    osc("security group create day")
    rule = osj("security group rule create --protocol tcp --dst-port 80:90 --remote-ip 10.0.0.0/8 day")
    assert (rule["port_range_min"], rule["port_range_max"]) == (80, 90)
    osc(f"security group rule delete {rule['id']}")
    osc("security group set --description x day")
    osc("security group delete day")


def test_a_server_through_its_life():
    osc("server create --image tiny --flavor m1.nano --key-name demo --network private --property a=b --wait day")
    assert osj("server show day")["status"] == "ACTIVE"
    address = osj("floating ip create public")["floating_ip_address"]
    osc(f"server add floating ip day {address}")
    assert ssh(address, "hostname") == "day"
    osc("server reboot --wait day")
    assert ssh(address, "hostname") == "day"
    osc("server reboot --hard --wait day")
    assert ssh(address, "hostname") == "day"
    osc("server pause day")
    wait("PAUSED", lambda: osj("server show day")["status"] == "PAUSED")
    osc("server unpause day")
    wait("ACTIVE", lambda: osj("server show day")["status"] == "ACTIVE")
    osc("server stop day")
    wait("SHUTOFF", lambda: osj("server show day")["status"] == "SHUTOFF", 90)
    osc("server start day")
    wait("ACTIVE", lambda: osj("server show day")["status"] == "ACTIVE")
    assert ssh(address, "hostname") == "day"
    osc("server set --name night --property c=d day")
    osc("server unset --property a night")
    assert osj("server show night")["properties"] == {"c": "d"}
    assert "day" in osc("console log show night") or "ssh ready" in osc("console log show night")
    assert "/vnc" in osj("console url show night")["url"]
    osc("server event list night")
    osc(f"server remove floating ip night {address}")
    osc(f"floating ip delete {address}")
    osc("server delete --wait night")
    assert "night" not in [s["Name"] for s in osj("server list")]


def test_lists_and_shows_of_everything_else():
    for line in ("server group list", "limits show --absolute", "quota show", "availability zone list", "floating ip list",
                 "security group list", "router list", "port list", "subnet list", "network list", "extension list --network",
                 "catalog list", "token issue"):
        osc(line)
    for line in ("hypervisor list", "hypervisor stats show", "compute service list", "aggregate list", "project list", "user list",
                 "role list", "role assignment list --names", "domain list", "service list", "endpoint list", "region list",
                 "server list --all-projects", "quota show --default", "network agent list", "group list",
                 "resource provider list", "resource class list", "trait list"):
        osc(line, "drover-admin")


def test_projects_and_users():
    osc("project create day", "drover-admin")
    osc("user create --project day --password secret day", "drover-admin")
    osc("role add --project day --user day member", "drover-admin")
    osc("project set --description x --tag t day", "drover-admin")
    osc("quota set --instances 3 day", "drover-admin")
    assert any(q.get("Resource") == "instances" and q.get("Limit") == 3 for q in osj("quota show day", "drover-admin"))
    osc("user delete day", "drover-admin")
    osc("project delete day", "drover-admin")
