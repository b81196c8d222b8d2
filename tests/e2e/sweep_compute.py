"""Every command of the `openstack` client for compute and of its common part: what was set is shown, what was removed is gone."""
import json
import tempfile
from lib import STATE, wait
from osc import ADMIN, LATEST, admin, ajs, column, js, refused, run, shows, undone, whole


def status(name, wanted, seconds=90):
    wait(f"{name} {wanted}", lambda: js(f"server show {name}", compute=LATEST)["status"] == wanted, seconds)


def host():
    return ajs("hypervisor list")[0]["Hypervisor Hostname"]


def server(name, more=""):
    run(f"server create --image tiny --flavor m1.nano --network private --wait {more} {name}")


def test_flavors():
    with undone("flavor delete sweep", "flavor delete sweep-private", "project delete sweep-flavors"):
        admin("flavor create --id sweep-id --ram 128 --disk 1 --ephemeral 1 --swap 16 --vcpus 2 --rxtx-factor 1.5 --property a=b sweep")
        got = shows("flavor show sweep", ADMIN, ram=128, disk=1, vcpus=2, swap=16, properties={"a": "b"}, id="sweep-id")
        assert got["OS-FLV-EXT-DATA:ephemeral"] == 1
        admin("flavor set --property c=d --description words sweep", compute=LATEST)
        shows("flavor show sweep", ADMIN, compute=LATEST, properties={"a": "b", "c": "d"}, description="words")
        admin("flavor unset --property a sweep")
        shows("flavor show sweep", ADMIN, properties={"c": "d"})
        admin("flavor set --no-property sweep")
        shows("flavor show sweep", ADMIN, properties={})
        assert "sweep" in column("flavor list --min-ram 100 --min-disk 1 --long") and "sweep" not in column("flavor list --min-ram 129")
        project = ajs("project create sweep-flavors")["id"]
        admin(f"flavor create --ram 64 --disk 0 --vcpus 1 --private --project {project} sweep-private")
        assert shows("flavor show sweep-private", ADMIN)["access_project_ids"] == [project]
        me = js("token issue")["project_id"]
        admin(f"flavor set --project {me} sweep-private")
        assert "sweep-private" in column("flavor list --all") and "sweep-private" in column("flavor list --private", cloud=ADMIN)
        admin(f"flavor unset --project {me} sweep-private")
        assert "sweep-private" not in column("flavor list --all")
        admin("flavor delete sweep sweep-private")
        refused("flavor show sweep", "No Flavor")


def test_keypairs():
    with undone("keypair delete sweep", "keypair delete sweep-made", cloud="drover"):
        run(f"keypair create --public-key {STATE}/demo_key.pub --type ssh sweep", compute=LATEST)
        shows("keypair show sweep", name="sweep")
        with open(f"{STATE}/demo_key.pub") as f:
            assert f.read().split()[1] in run("keypair show --public-key sweep")
        assert "BEGIN" in run("keypair create sweep-made")
        assert {"sweep", "sweep-made"} <= set(column("keypair list"))
        user = js("token issue")["user_id"]
        assert "sweep" in column(f"keypair list --user {user}", cloud=ADMIN, compute=LATEST)
        admin(f"keypair create --user {user} --public-key {STATE}/demo_key.pub sweep-other", compute=LATEST)
        assert "sweep-other" in column("keypair list")
        admin(f"keypair delete --user {user} sweep-other", compute=LATEST)
        run("keypair delete sweep sweep-made")
        refused("keypair show sweep", "No Keypair")


def test_server_groups():
    with undone("server group delete sweep", "server group delete sweep-new", cloud="drover"):
        made = js("server group create --policy affinity sweep")
        shows("server group show sweep", policy="affinity", id=made["id"])
        run("server group create --policy anti-affinity --rule max_server_per_host=2 sweep-new", compute=LATEST)
        shows("server group show sweep-new", compute=LATEST, policy="anti-affinity", rules={"max_server_per_host": 2})
        assert {"sweep", "sweep-new"} <= set(column("server group list --long"))
        assert "sweep" in column("server group list --all-projects", cloud=ADMIN)
        run("server group delete sweep sweep-new")
        assert "sweep" not in column("server group list")


def test_aggregates_zones_hypervisors_and_services():
    name = host()
    with undone(f"aggregate remove host sweep2 {name}", "aggregate delete sweep2", "aggregate delete sweep"):
        admin("aggregate create --zone sweep-zone --property a=b sweep")
        admin("aggregate set --name sweep2 --zone sweep-zone2 --property c=d sweep")
        shows("aggregate show sweep2", ADMIN, availability_zone="sweep-zone2", properties={"a": "b", "c": "d"})
        admin("aggregate unset --property a sweep2")
        shows("aggregate show sweep2", ADMIN, properties={"c": "d"})
        assert "sweep2" in column("aggregate list --long", cloud=ADMIN)
        # A host with servers may not change its zone.
        refused(f"aggregate add host sweep2 {name}", "", ADMIN)
        admin("aggregate create sweep-plain")
        assert ajs(f"aggregate add host sweep-plain {name}")["hosts"] == [name]
        admin("aggregate cache image sweep-plain tiny", compute=LATEST)
        assert ajs(f"aggregate remove host sweep-plain {name}")["hosts"] == []
        admin("aggregate delete sweep-plain")
        admin("aggregate set --no-property sweep2")
        admin("aggregate delete sweep2")
        refused("aggregate show sweep2", "No Aggregate", ADMIN)
    assert "nova" in column("availability zone list --long", "Zone Name", ADMIN)
    shown = ajs(f"hypervisor show {name}")
    assert shown["hypervisor_hostname"] == name and shown["state"] == "up"
    shows(f"hypervisor show {name}", ADMIN, compute=LATEST, state="up", status="enabled")
    assert ajs(f"hypervisor list --matching {name} --long") and ajs("hypervisor list --limit 1", compute=LATEST)
    assert ajs("hypervisor stats show")["count"] == 1
    assert name in column("host list --zone nova", "Host Name", ADMIN) and ajs(f"host show {name}")[0]["Host"] == name
    admin(f"host set --enable {name}")
    rows = ajs(f"compute service list --host {name} --service nova-compute --long")
    assert rows[0]["State"] == "up" and rows[0]["Status"] == "enabled", rows
    for compute in (None, LATEST):
        admin(f"compute service set --disable --disable-reason 'for the sweep' {name} nova-compute", compute=compute)
        row = ajs("compute service list --service nova-compute --long")[0]
        assert row["Status"] == "disabled" and row["Disabled Reason"] == "for the sweep", row
        admin(f"compute service set --enable {name} nova-compute", compute=compute)
        assert ajs("compute service list --service nova-compute")[0]["Status"] == "enabled"
    admin(f"compute service set --down {name} nova-compute", compute=LATEST)
    admin(f"compute service set --up {name} nova-compute", compute=LATEST)
    refused(f"compute service delete {rows[0]['ID']}", "", ADMIN, compute=LATEST)


def test_quotas_limits_usage_and_versions():
    with undone("project delete sweep-quota"):
        project = ajs("project create sweep-quota")["id"]
        admin("quota set --instances 3 --cores 4 --ram 512 --key-pairs 5 --server-groups 6 --server-group-members 7 --properties 8 "
              "--networks 9 --subnets 10 --ports 11 --routers 12 --floating-ips 13 --secgroups 14 --secgroup-rules 15 "
              "--subnetpools 16 --rbac-policies 17 sweep-quota")
        got = {row["Resource"]: row["Limit"] for row in ajs("quota show sweep-quota")}
        wanted = {"instances": 3, "cores": 4, "ram": 512, "key-pairs": 5, "server-groups": 6, "server-group-members": 7, "properties": 8,
                  "networks": 9, "subnets": 10, "ports": 11, "routers": 12, "floating_ips": 13, "security_groups": 14,
                  "security_group_rules": 15, "subnet_pools": 16, "rbac_policies": 17}
        assert {key: got.get(key) for key in wanted} == wanted
        assert project in str(ajs("quota list --compute")) and project in str(ajs("quota list --network"))
        refused("quota set --cores 0 --no-force demo", "", ADMIN)
        admin("quota delete sweep-quota")
        assert {row["Resource"]: row["Limit"] for row in ajs("quota show sweep-quota")}["instances"] == 10
        defaults = {row["Resource"]: row["Limit"] for row in ajs("quota show --default")}
        assert defaults["instances"] == 10
        admin("quota set --default --instances 11 default")
        assert {row["Resource"]: row["Limit"] for row in ajs("quota show sweep-quota")}["instances"] == 11
        admin("quota set --default --instances 10 default")
    assert js("quota show --usage --compute") and js("quota show --network")
    absolute = {row["Name"]: row["Value"] for row in js("limits show --absolute --reserved")}
    assert absolute.get("instances", absolute.get("maxTotalInstances")) == 10, absolute
    assert js("limits show --rate") == []
    assert ajs("limits show --absolute --project demo")
    assert ajs("project show demo")["id"] in column("usage list --start 2020-01-01", "Project", ADMIN)
    assert js("usage show") and ajs("usage show --project demo --start 2020-01-01 --end 2099-01-01")
    versions = js("versions show --service compute")
    assert [v["Max Microversion"] for v in versions if v["Status"] == "CURRENT"] == ["2.96"], versions
    assert {"compute", "identity", "image"} <= set(column("versions show --interface public --status CURRENT", "Service Type"))
    assert js("versions show --all-interfaces --region-name RegionOne")
    hidden, open_ = js("configuration show --mask"), js("configuration show --unmask")
    assert hidden["auth.password"] == "<redacted>" and open_["auth.password"] not in json.dumps(hidden)
    run("cloud cache delete")
    assert "os-keypairs" in column("extension list --compute", "Alias")
    assert js("extension list --identity") == []
    with undone("network delete sweep-cleanup"):
        run("network create sweep-cleanup")
        assert "sweep-cleanup" in run("project cleanup --dry-run --auth-project --created-before 2099-01-01T00:00:00")
        assert "sweep-cleanup" in column("network list")


def test_a_server_of_every_option():
    with undone("server delete --wait sweep2", "server delete --wait sweep", "security group delete sweep-server",
                "server group delete sweep-server", cloud="drover"):
        run("security group create sweep-server")
        group = js("server group create --policy soft-affinity sweep-server", compute=LATEST)["id"]
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("#!/bin/sh\necho swept\n")
            f.flush()
            server("sweep", f"--key-name demo --security-group sweep-server --property a=b --user-data {f.name} --use-config-drive "
                            f"--hint group={group} --availability-zone nova")
        got = shows("server show sweep", status="ACTIVE", key_name="demo", properties={"a": "b"}, config_drive="True")
        assert [g["name"] for g in got["security_groups"]] == ["sweep-server"] and js(f"server group show {group}")["members"]
        run("server set --name sweep2 --property c=d sweep")
        run("server set --description words --tag red --tag blue sweep2", compute=LATEST)
        got = shows("server show sweep2", compute=LATEST, description="words", properties={"a": "b", "c": "d"})
        assert sorted(got["tags"]) == ["blue", "red"], got
        run("server unset --property a sweep2")
        run("server unset --description --tag red sweep2", compute=LATEST)
        shows("server show sweep2", compute=LATEST, description=None, properties={"c": "d"}, tags=["blue"])
        run("server unset --all-properties sweep2", compute=LATEST)
        run("server unset --all-tags sweep2", compute=LATEST)
        shows("server show sweep2", compute=LATEST, properties={}, tags=[])
        run("server set --hostname other sweep2", compute="2.90")
        for chosen in ("--name sweep2", "--status ACTIVE", "--flavor m1.nano", "--image tiny", "--key-name demo",
                       "--availability-zone nova", "--name-lookup-one-by-one", "--limit 100 --max-items 100", "--power-state running",
                       "--vm-state active"):
            assert "sweep2" in column(f"server list {chosen}", compute=LATEST), chosen
        assert "sweep2" in column(f"server list --all-projects --host {host()} --long", cloud=ADMIN)
        refused("server set --password new --no-password sweep2", "")
        run("server add security group sweep2 default")
        assert len(js("server show sweep2")["security_groups"]) == 2
        run("server remove security group sweep2 sweep-server")
        assert [g["name"] for g in js("server show sweep2")["security_groups"]] == ["default"]
        admin(f"server set --auto-approve --state error {js('server show sweep2')['id']}")
        status("sweep2", "ERROR")
        admin(f"server set --auto-approve --state active {js('server show sweep2')['id']}")
        status("sweep2", "ACTIVE")
        assert ajs(f"server show --diagnostics {js('server show sweep2')['id']}", compute=LATEST)
        assert "nodes" in js("server show --topology sweep2", compute="2.90")["topology"]
        events = js("server event list --long sweep2", compute=LATEST)
        create = [event for event in events if event["Action"] == "create"][0]
        assert js(f"server event show sweep2 {create['Request ID']}", compute=LATEST)["action"] == "create"
        assert js("server volume list sweep2") == []
        run("server delete --wait sweep2")
        refused("server show sweep2", "No Server")


def test_interfaces_of_a_server():
    with undone("server delete --wait sweep-nic", "port delete sweep-nic", "network delete sweep-nic", cloud="drover"):
        run("network create sweep-nic")
        run("subnet create --network sweep-nic --subnet-range 10.8.4.0/24 sweep-nic")
        run("port create --network sweep-nic sweep-nic")
        server("sweep-nic")
        run("server add port sweep-nic sweep-nic")
        run("server add network --tag nic sweep-nic sweep-nic", compute=LATEST)
        addresses = js("server show sweep-nic")["addresses"]
        assert len(addresses["sweep-nic"]) == 2, addresses
        run("server remove port sweep-nic sweep-nic")
        wait("one port less", lambda: len(js("server show sweep-nic")["addresses"]["sweep-nic"]) == 1)
        run("server remove network sweep-nic sweep-nic")
        wait("no port there", lambda: "sweep-nic" not in js("server show sweep-nic")["addresses"])
        run("server add fixed ip --fixed-ip-address 10.8.4.44 sweep-nic sweep-nic", compute=LATEST)
        wait("the address", lambda: js("server show sweep-nic")["addresses"].get("sweep-nic") == ["10.8.4.44"])
        run("server remove fixed ip sweep-nic 10.8.4.44", compute="2.43")
        wait("no address", lambda: "10.8.4.44" not in str(js("server show sweep-nic")["addresses"]))
        # The client takes the first port, which must have an address.
        run("server remove network sweep-nic sweep-nic")
        wait("one port", lambda: len(js("port list --server sweep-nic")) == 1)
        address = js("floating ip create public")["floating_ip_address"]
        run(f"server add floating ip sweep-nic {address}")
        assert address in str(js("server show sweep-nic")["addresses"])
        run(f"server remove floating ip sweep-nic {address}")
        assert address not in str(js("server show sweep-nic")["addresses"])
        run(f"floating ip delete {address}")


def test_volumes_of_a_server():
    def now(name, wanted):
        wait(f"volume {name} {wanted}", lambda: js(f"volume show {name}")["status"] == wanted)
    names = ("sweep-disk", "sweep-kept", "sweep-lost")
    with undone(*(f"volume delete {name}" for name in names), cloud="drover"), undone("server delete --wait sweep-vol", cloud="drover"):
        ids = {}
        for name in names:
            ids[name] = js(f"volume create --size 1 {name}")["id"]
        for name in names:
            now(name, "available")
        # One is there from the beginning.
        server("sweep-vol", "--block-device uuid=" + ids["sweep-kept"] + ",source_type=volume,destination_type=volume,boot_index=-1")
        got = js("server volume list sweep-vol")
        assert [row["Volume ID"] for row in got] == [ids["sweep-kept"]] and got[0]["Device"] == "/dev/vdb", got
        now("sweep-kept", "in-use")
        got = js("server add volume --tag red --enable-delete-on-termination sweep-vol sweep-lost", compute=LATEST)
        assert (got["Volume ID"], got["Tag"], got["Delete On Termination"]) == (ids["sweep-lost"], "red", True), got
        now("sweep-lost", "in-use")
        assert js("server add volume --device /dev/vdd --disable-delete-on-termination sweep-vol sweep-disk", compute="2.79")["Device"]
        now("sweep-disk", "in-use")
        assert len(js("server volume list sweep-vol", compute=LATEST)) == len(js("server show sweep-vol")["volumes_attached"]) == 3
        attached = js("volume list --name sweep-disk")[0]["Attached to"]
        assert attached[0]["server_id"] == js("server show sweep-vol")["id"], attached
        refused("server add volume sweep-vol sweep-disk", "")
        refused("volume delete sweep-disk", "in-use")

        def ends():
            return {row["Volume ID"]: row["Delete On Termination?"] for row in js("server volume list sweep-vol", compute=LATEST)}
        run("server volume set --delete-on-termination sweep-vol sweep-disk", compute=LATEST)
        assert ends()[ids["sweep-disk"]] is True
        run("server volume update --preserve-on-termination sweep-vol sweep-disk", compute=LATEST)
        assert ends() == {ids["sweep-disk"]: False, ids["sweep-lost"]: True, ids["sweep-kept"]: False}
        run("server remove volume sweep-vol sweep-disk")
        now("sweep-disk", "available")
        assert ids["sweep-disk"] not in ends()
        refused("server remove volume sweep-vol sweep-disk", "")
        run("server delete --wait sweep-vol")
        wait("one lost", lambda: "sweep-lost" not in column("volume list"))
        now("sweep-kept", "available")
        run("volume delete sweep-disk sweep-kept")
        wait("none left", lambda: not set(names) & set(column("volume list")))


def test_servers_that_boot_from_volumes():
    names = ("sweep-boot", "sweep-boot2", "sweep-boot3")
    servers = (f"server delete --wait {name}" for name in names)
    with undone("volume delete --cascade sweep-root", cloud="drover"), undone(*servers, cloud="drover"):
        run("volume create --image tiny --size 1 --bootable sweep-root")
        run("volume snapshot create --volume sweep-root sweep-root")
        wait("a snapshot", lambda: js("volume snapshot show sweep-root")["status"] == "available")
        rooted = "--flavor m1.nano --network private --wait"
        run(f"server create --volume sweep-root {rooted} sweep-boot")
        run(f"server create --snapshot sweep-root {rooted} sweep-boot2")
        run(f"server create --image tiny --boot-from-volume 1 {rooted} sweep-boot3")
        roots = {}
        for name in names:
            got = shows(f"server show {name}", status="ACTIVE")
            assert "volume" in str(got["image"]) and len(got["volumes_attached"]) == 1, got
            roots[name] = got["volumes_attached"][0]["id"]
        root = js("volume show sweep-root")
        assert root["id"] == roots["sweep-boot"] and root["status"] == "in-use" and root["attachments"][0]["device"] == "/dev/vda", root
        refused("server remove volume sweep-boot sweep-root", "")
        for name in names:
            run(f"server delete --wait {name}")
        # What a server was made with stays unless it was asked to go.
        for one in roots.values():
            wait("free", lambda: js(f"volume show {one}")["status"] == "available")
        run("volume snapshot delete sweep-root")
        wait("no snapshot", lambda: not js("volume snapshot list --name sweep-root"))
        run("volume delete " + " ".join(roots.values()))
        wait("none left", lambda: not set(roots.values()) & set(column("volume list", "ID")))


def test_the_states_of_a_server():
    name = "sweep-life"
    mine = (f"server unlock {name}", f"server delete --wait {name}", "image delete sweep-life", "image delete sweep-backup")
    with undone("flavor delete sweep-life"), undone(*mine, cloud="drover"):
        server(name, "--key-name demo")
        one = js(f"server show {name}")["id"]
        steps = [("pause", "PAUSED"), ("unpause", "ACTIVE"), ("suspend", "SUSPENDED"), ("resume", "ACTIVE")]
        for step, wanted in steps:
            run(f"server {step} {name}")
            status(name, wanted)
        run(f"server reboot --hard --wait {name}")
        status(name, "ACTIVE")
        run(f"server lock --reason why {name}", compute=LATEST)
        shows(f"server show {name}", compute=LATEST, locked=True, locked_reason="why")
        assert name in column("server list --locked", compute=LATEST) and name not in column("server list --unlocked", compute=LATEST)
        refused(f"server stop {name}", "locked")
        run(f"server unlock {name}")
        run(f"server image create --name sweep-life --property a=b --wait {name}")
        shows("image show sweep-life", status="active")
        run(f"server backup create --name sweep-backup --type daily --rotate 1 --wait {name}")
        shows("image show sweep-backup", status="active")
        status(name, "ACTIVE")
        run(f"server rescue {name}")
        status(name, "RESCUE")
        run(f"server unrescue {name}")
        status(name, "ACTIVE")
        run(f"server rebuild --image tiny --description again --wait {name}", compute=LATEST)
        shows(f"server show {name}", compute=LATEST, status="ACTIVE", description="again")
        admin("flavor create --ram 224 --disk 1 --vcpus 1 sweep-life")
        run(f"server resize --flavor sweep-life --wait {name}")
        status(name, "VERIFY_RESIZE")
        assert [m for m in ajs("server migration list", compute=LATEST) if m["Server UUID"] == one]
        run(f"server resize revert {name}")
        status(name, "ACTIVE")
        run(f"server resize --flavor sweep-life --wait {name}")
        run(f"server resize confirm {name}")
        status(name, "ACTIVE")
        assert "sweep-life" in str(js(f"server show {name}")["flavor"])
        for confirm, wanted in (("confirm", "m1.nano"), ("revert", "m1.nano")):
            flavor = "m1.nano" if confirm == "confirm" else "sweep-life"
            run(f"server resize --flavor {flavor} --wait {name}")
            run(f"server {'migration' if confirm == 'confirm' else 'migrate'} {confirm} {name}")
            status(name, "ACTIVE")
            assert wanted in str(js(f"server show {name}")["flavor"])
        for command in ("migrate confirm", "migration revert"):
            refused(f"server {command} {name}", "409")
        refused(f"server dump create {name}", "not supported", compute=LATEST)
        run(f"server shelve --offload --wait {name}")
        status(name, "SHELVED_OFFLOADED")
        run(f"server unshelve --wait {name}")
        status(name, "ACTIVE")
        admin(f"server stop --all-projects {name}")
        status(name, "SHUTOFF")
        admin(f"server start --all-projects {name}")
        status(name, "ACTIVE")
        refused(f"server migrate --wait {one}", "", ADMIN, compute=LATEST)
        refused(f"server migrate --live-migration --host nowhere {one}", "", ADMIN, compute=LATEST)
        refused(f"server evacuate {one}", "", ADMIN, compute=LATEST)
        refused(f"server migration show {one} 999999", "", ADMIN, compute=LATEST)
        refused(f"server migration abort {one} 999999", "", ADMIN, compute=LATEST)
        refused(f"server migration force complete {one} 999999", "", ADMIN, compute=LATEST)
        refused(f"server restore {name}", "")
        admin(f"server delete --force {one}")
        wait("gone", lambda: name not in column("server list"))


def test_console_and_ssh():
    assert "ssh ready" in run("console log show --lines 500 demo")
    url = js("console url show --novnc demo")["url"]
    token = url.split("token=")[-1].split("/")[-1].split("?")[0]
    assert ajs(f"console connection show {token}", compute=LATEST)["instance_uuid"] == js("server show demo")["id"]
    line = [f"-i{STATE}/demo_key", "-l", "root", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes",
            "-oConnectTimeout=20", "hostname"]
    assert "demo" in whole("server", "ssh", "demo", "--", *line)
