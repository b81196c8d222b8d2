"""Every command of the `openstack` client for volumes: what was set is shown, what was removed is gone."""
import contextlib
import re
from lib import wait
from osc import ADMIN, NEWEST, Refused, admin, ajs, column, js, refused, run, shows, undone

NOBODY = "00000000-0000-0000-0000-000000000000"


def status(kind, name):
    got = js(f"{kind} show {name}", volume=NEWEST)
    return got.get("status", got.get("Status"))


def becomes(kind, name, wanted="available"):
    wait(f"{kind} {name} {wanted}", lambda: status(kind, name) == wanted)


def gone(kind, name):
    def probe():
        try:
            status(kind, name)
        except Refused as e:
            return re.search(r"No (Volume|Snapshot|Group|GroupSnapshot) found", str(e))
    wait(f"no {kind} {name}", probe)


def volume(name, more="--size 1", **options):
    made = js(f"volume create {more} {name}", **options)
    becomes("volume", name)
    return made["id"]


@contextlib.contextmanager
def cleared(*names, cloud="drover"):
    """Deletes these volumes after the block, whatever happened, and waits, so that what they use can be deleted after them."""
    try:
        yield
    finally:
        with undone(*(f"volume delete --cascade {name}" for name in names), cloud=cloud):
            pass
        wait("none of the volumes", lambda: not set(names) & set(column("volume list", cloud=cloud)))


def storage_host():
    """The name of the one storage host, `host@backend`."""
    return ajs("volume service list --service cinder-volume")[0]["Host"]


def test_volumes():
    with undone("volume type delete sweep-retype"), cleared("sweep", "sweep2", "sweep-image", "sweep-copy"):
        made = volume("sweep", "--size 1 --description words --property a=b --availability-zone nova --type __DEFAULT__ "
                               "--bootable --read-only --hint different_host=" + NOBODY)
        got = shows("volume show sweep", size=1, description="words", properties={"a": "b", "readonly": "True"}, availability_zone="nova",
                    type="__DEFAULT__", bootable=True, encrypted=False, multiattach=False, attachments=None, id=made)
        assert got["user_id"] == js("token issue")["user_id"]
        # What an administrator sees besides.
        got = shows(f"volume show {made}", ADMIN)
        assert got["os-vol-host-attr:host"].startswith(storage_host() + "#"), got
        assert got["os-vol-tenant-attr:tenant_id"] == js("token issue")["project_id"]

        run("volume set --name sweep2 --description other --property c=d --image-property os_distro=debian --non-bootable --read-write "
            "sweep")
        shows("volume show sweep2", description="other", properties={"a": "b", "c": "d", "readonly": "False"}, bootable=False,
              volume_image_metadata={"os_distro": "debian"})
        run("volume unset --property a --image-property os_distro sweep2")
        assert not shows("volume show sweep2", properties={"c": "d", "readonly": "False"}).get("volume_image_metadata")
        run("volume set --no-property --property e=f sweep2")
        shows("volume show sweep2", properties={"e": "f", "readonly": "False"})
        run("volume set --size 2 sweep2")
        wait("2 GiB", lambda: js("volume show sweep2")["size"] == 2 and js("volume show sweep2")["status"] == "available")
        refused("volume set --size 1 sweep2", "must be greater than")
        admin("volume type create --property storage_protocol=nbd sweep-retype")
        run("volume set --type sweep-retype --migration-policy never sweep2")
        shows("volume show sweep2", type="sweep-retype")
        for state in ("error", "maintenance", "available"):
            admin(f"volume set --state {state} {made}")
            shows("volume show sweep2", status=state)
        admin(f"volume set --detached {made}")
        refused(f"volume set --state error {made}", "403")
        refused(f"volume migrate --host {storage_host()}#nbd {made}", "stay on their host", ADMIN)

        me = js("token issue")
        for chosen in ("--name sweep2", "--status available", "--property e=f", "--long", "--limit 1"):
            assert "sweep2" in column(f"volume list {chosen}"), chosen
        for chosen in ("--name sweep", "--status error", "--property e=g", f"--marker {made}"):
            assert "sweep2" not in column(f"volume list {chosen}"), chosen
        assert "sweep2" not in column("volume list", cloud=ADMIN)
        for chosen in ("--all-projects", f"--project {me['project_id']}", f"--all-projects --user {me['user_id']}"):
            assert "sweep2" in column(f"volume list {chosen}", cloud=ADMIN), chosen
        assert "sweep2" not in column("volume list --project admin", cloud=ADMIN)

        volume("sweep-copy", "--source sweep2")
        shows("volume show sweep-copy", source_volid=made, size=2, type="sweep-retype")
        volume("sweep-image", "--image tiny --size 1")
        got = shows("volume show sweep-image", bootable=True)
        assert got["volume_image_metadata"]["image_name"] == "tiny", got
        # And the other way.
        with undone("image delete sweep-made", cloud="drover"):
            run("image create --volume sweep-image --disk-format qcow2 --container-format bare sweep-made")
            becomes("image", "sweep-made", "active")
            becomes("volume", "sweep-image")
            shows("image show sweep-made", disk_format="qcow2", min_disk=1, visibility="private")
        summary = js("volume summary", volume=NEWEST)
        assert (summary["Total Count"], summary["Total Size"]) == (3, 5) and summary["Metadata"] == {"e": ["f"]}, summary
        assert ajs("volume summary --all-projects", volume="3.12")["Total Count"] >= 3

        refused("volume create nothing", "--size is a required option")
        refused("volume create --size 1 --type nothing nothing", "404")
        refused("volume create --size 1 --availability-zone nowhere nothing", "is invalid")
        refused("volume create --snapshot nothing nothing", "No Snapshot")
        refused("volume delete --remote sweep-image", "403")
        refused(f"volume delete --remote {made}", "cannot be given up", ADMIN)
        run("volume delete sweep2 sweep-copy")
        admin(f"volume delete --force {js('volume show sweep-image')['id']}")
        for name in ("sweep2", "sweep-copy", "sweep-image"):
            gone("volume", name)
        admin("volume type delete sweep-retype")


def test_snapshots():
    with cleared("sweep-old", "sweep-snap"):
        one = volume("sweep-snap")
        made = js("volume snapshot create --volume sweep-snap --description words --property a=b sweep")["id"]
        becomes("volume snapshot", "sweep")
        shows("volume snapshot show sweep", description="words", properties={"a": "b"}, size=1, volume_id=one, id=made)
        run("volume snapshot set --name sweep2 --description other --property c=d sweep")
        shows("volume snapshot show sweep2", description="other", properties={"a": "b", "c": "d"})
        run("volume snapshot unset --property a sweep2")
        shows("volume snapshot show sweep2", properties={"c": "d"})
        run("volume snapshot set --no-property --property e=f sweep2")
        shows("volume snapshot show sweep2", properties={"e": "f"})
        refused("volume snapshot set --state error sweep2", "403")
        for state in ("error", "available"):
            admin(f"volume snapshot set --state {state} {made}")
            shows("volume snapshot show sweep2", status=state)
        for chosen in ("--name sweep2", "--status available", "--volume sweep-snap", "--long", "--limit 1 --max-items 1"):
            assert "sweep2" in column(f"volume snapshot list {chosen}"), chosen
        for chosen in ("--name sweep", "--status error", f"--marker {made}"):
            assert "sweep2" not in column(f"volume snapshot list {chosen}"), chosen
        me = js("token issue")["project_id"]
        for chosen in ("--all-projects", f"--project {me}"):
            assert "sweep2" in column(f"volume snapshot list {chosen}", cloud=ADMIN), chosen
        refused(f"volume snapshot delete --remote {made}", "cannot be given up", ADMIN)

        # Back to it, and a volume of it; a volume with snapshots stays unless they may go as well.
        run("volume revert sweep2", volume=NEWEST)
        becomes("volume", "sweep-snap")
        volume("sweep-old", "--snapshot sweep2 --size 2")
        shows("volume show sweep-old", snapshot_id=made, size=2)
        refused("volume delete sweep-snap", "snapshots")
        run("volume snapshot create --volume sweep-snap sweep-more", volume=NEWEST)
        becomes("volume snapshot", "sweep-more")
        refused("volume revert sweep2", "latest snapshot", volume=NEWEST)
        run("volume snapshot delete sweep-more")
        gone("volume snapshot", "sweep-more")
        run("volume snapshot create --volume sweep-snap --force sweep-more")
        becomes("volume snapshot", "sweep-more")
        admin(f"volume snapshot delete --force {js('volume snapshot show sweep-more')['id']}")
        gone("volume snapshot", "sweep-more")
        run("volume delete --cascade sweep-snap")
        gone("volume", "sweep-snap")
        refused("volume snapshot show sweep2", "No Snapshot")
        run("volume delete sweep-old")
        gone("volume", "sweep-old")


def test_groups_of_volumes():
    left = [f"volume group delete --force {name}" for name in ("sweep", "sweep2", "sweep-from-set", "sweep-from-group")]
    with undone("volume group type delete sweep2", volume=NEWEST), cleared("sweep-member"), undone(
            "volume group snapshot delete sweep-set", *left, cloud="drover", volume=NEWEST):
        def first(line, **wanted):
            return shows(line, volume=NEWEST, **wanted)

        def go(line):
            return run(line, volume=NEWEST)

        # Kinds of groups.
        made = ajs("volume group type create --description words sweep", volume=NEWEST)["ID"]
        admin(f"volume group type set --name sweep2 --description other --property a=b --property c=d {made}", volume=NEWEST)
        shows("volume group type show sweep2", ADMIN, volume=NEWEST, description="other", is_public=True, properties={"a": "b", "c": "d"})
        admin("volume group type set --no-property --private sweep2", volume=NEWEST)
        shows("volume group type show sweep2", ADMIN, volume=NEWEST, is_public=False, properties={})
        refused("volume group type show sweep2", "No GroupType", volume=NEWEST)
        admin("volume group type set --public sweep2", volume=NEWEST)
        assert "sweep2" in column("volume group type list", volume=NEWEST)
        refused("volume group type list --default", "this cloud has none", volume=NEWEST)

        # A group, its volumes, and what is made of it.
        one = js("volume group create --volume-group-type sweep2 --volume-type __DEFAULT__ --name sweep --description words "
                 "--availability-zone nova", volume=NEWEST)["ID"]
        becomes("volume group", "sweep")
        first("volume group show sweep", id=one, description="words", group_type=made, availability_zone="nova")
        go("volume group set --name sweep2 --description other sweep")
        first("volume group show sweep2", description="other")
        assert "sweep2" in column("volume group list", volume=NEWEST)
        assert "sweep2" in column("volume group list --all-projects", cloud=ADMIN, volume=NEWEST)
        member = volume("sweep-member")
        go("volume group add volume sweep2 sweep-member")
        wait("a member", lambda: js("volume group show --volumes sweep2", volume=NEWEST)["Volumes"] == [member])
        assert js("volume show sweep-member", volume=NEWEST)["group_id"] == one
        assert not js("volume group show --no-volumes sweep2", volume=NEWEST)["Volumes"]
        refused("volume delete sweep-member", "group", volume=NEWEST)
        for option in ("--enable-replication", "--disable-replication"):
            refused(f"volume group set {option} sweep2", "not replicated", volume=NEWEST)
        # The client sends the name of a function of its own as the name of the action.
        refused("volume group failover sweep2", "no such action", volume=NEWEST)

        kept = js("volume group snapshot create --name sweep-set --description words sweep2", volume=NEWEST)["ID"]
        becomes("volume group snapshot", "sweep-set")
        first("volume group snapshot show sweep-set", id=kept, description="words", group=one, group_type=made)
        assert "sweep-set" in column("volume group snapshot list", volume=NEWEST)
        assert "sweep-set" in column("volume group snapshot list --all-projects", cloud=ADMIN, volume=NEWEST)
        for source, name in (("--group-snapshot sweep-set", "sweep-from-set"), ("--source-group sweep2", "sweep-from-group")):
            go(f"volume group create {source} --name {name} --description words")
            becomes("volume group", name)
            assert len(first(f"volume group show --volumes {name}", description="words", group_type=made)["Volumes"]) == 1
        first("volume group show sweep-from-set", group_snapshot_id=kept)
        first("volume group show sweep-from-group", source_group_id=one)
        for name in ("sweep-from-set", "sweep-from-group"):
            go(f"volume group delete --force {name}")
            gone("volume group", name)
        go("volume group snapshot delete sweep-set")
        gone("volume group snapshot", "sweep-set")
        refused("volume group delete sweep2", "", volume=NEWEST)
        go("volume group remove volume sweep2 sweep-member")
        wait("no member", lambda: not js("volume group show --volumes sweep2", volume=NEWEST)["Volumes"])
        refused("volume group type delete sweep2", "", ADMIN, volume=NEWEST)
        go("volume group delete sweep2")
        gone("volume group", "sweep2")
        run("volume delete sweep-member")
        gone("volume", "sweep-member")
        admin("volume group type delete sweep2", volume=NEWEST)
        assert "sweep2" not in column("volume group type list", cloud=ADMIN, volume=NEWEST)


def test_transfers():
    with cleared("sweep-gift"), cleared("sweep-gift", cloud=ADMIN):
        mine = volume("sweep-gift")
        run("volume snapshot create --volume sweep-gift sweep-gift")
        becomes("volume snapshot", "sweep-gift")
        made = js("volume transfer request create --name sweep --no-snapshots sweep-gift", volume=NEWEST)
        shows("volume transfer request show sweep", volume=NEWEST, id=made["id"], volume_id=mine)
        shows("volume show sweep-gift", status="awaiting-transfer")
        with undone(f"volume transfer request delete {made['id']}", cloud="drover"):
            assert "sweep" in column("volume transfer request list")
            # The client does not send --all-projects.
            assert "sweep" not in column("volume transfer request list --all-projects", cloud=ADMIN)
            run(f"volume transfer request delete {made['id']}")
        shows("volume show sweep-gift", status="available")
        refused("volume transfer request create sweep-gift", "snapshots", volume="3.54")
        made = js("volume transfer request create --snapshots sweep-gift", volume=NEWEST)
        accept = f"volume transfer request accept {made['id']} --auth-key"
        refused(f"{accept} wrong", "auth key", ADMIN)
        assert ajs(f"{accept} {made['auth_key']}")["volume_id"] == mine
        refused(f"volume show {mine}", "No Volume")
        assert ajs("volume show sweep-gift")["id"] == mine and "sweep-gift" in column("volume snapshot list", cloud=ADMIN)
        refused(f"volume transfer request show {made['id']}", "No Transfer")
        admin("volume delete --cascade sweep-gift")
        wait("gone", lambda: "sweep-gift" not in column("volume list", cloud=ADMIN))


def test_attachments_of_volumes():
    with cleared("sweep-attached"):
        one, server = volume("sweep-attached"), js("server show demo")["id"]
        made = js("volume attachment create --server demo --mode ro sweep-attached", volume=NEWEST)
        assert (made["Volume ID"], made["Instance ID"], made["Status"], made["Attach Mode"]) == (one, server, "reserved", "ro"), made
        shows("volume show sweep-attached", status="reserved")
        attachment = made["ID"]
        shows(f"volume attachment set --host elsewhere --ip 192.0.2.1 --initiator iqn.sweep --mountpoint /dev/vdz {attachment}",
              volume=NEWEST, status="attaching")
        run(f"volume attachment complete {attachment}", volume=NEWEST)
        shows(f"volume attachment show {attachment}", volume=NEWEST, status="attached", attach_mode="ro", volume_id=one)
        shows("volume show sweep-attached", status="in-use")
        for chosen in ("", f"--volume-id {one}", f"--server-id {server}", "--status attached", "--limit 1"):
            assert attachment in column(f"volume attachment list {chosen}", "ID", volume=NEWEST), chosen
        me = js("token issue")["project_id"]
        for chosen in ("--all-projects", f"--project {me}"):
            assert attachment in column(f"volume attachment list {chosen}", "ID", ADMIN, volume=NEWEST), chosen
        for chosen in ("--status reserved", f"--server-id {one}", f"--marker {attachment}"):
            assert attachment not in column(f"volume attachment list {chosen}", "ID", volume=NEWEST), chosen
        refused("volume delete sweep-attached", "in-use")
        run(f"volume attachment delete {attachment}", volume=NEWEST)
        becomes("volume", "sweep-attached")
        refused(f"volume attachment show {attachment}", "No Attachment", volume=NEWEST)
        # In one step.
        connected = js("volume attachment create --server demo --connect --host elsewhere sweep-attached", volume=NEWEST)
        assert connected["Properties"]["driver_volume_type"], connected
        run(f"volume attachment delete {connected['ID']}", volume=NEWEST)
        becomes("volume", "sweep-attached")
        run("volume delete sweep-attached")
        gone("volume", "sweep-attached")
