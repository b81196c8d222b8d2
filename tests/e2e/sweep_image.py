"""Every command of the `openstack` client for images and metadata definitions."""
import json
import os
import tempfile
from osc import ADMIN, admin, ajs, column, js, refused, run, shell, shows, undone, whole

GUEST = os.environ["DROVER_GUEST"]


def test_images():
    with undone("image set --unprotected sweep2", "image delete sweep2", "image delete sweep"):
        made = js(f"image create --disk-format qcow2 --container-format bare --file {GUEST} --min-disk 1 --min-ram 64 --protected "
                  "--property color=blue --tag one sweep")
        assert js("image show sweep")["status"] == "active"
        shows("image show --human-readable sweep", min_disk=1, min_ram=64, protected=True, visibility="shared")
        refused("image delete sweep", "")
        run("image set --name sweep2 --unprotected --private --property size_of=big --tag two --min-ram 128 --min-disk 0 "
            "--architecture x86_64 --os-distro debian --os-version 12 sweep")
        got = shows("image show sweep2", min_ram=128, min_disk=0, protected=False, visibility="private")
        assert sorted(got["tags"]) == ["one", "two"], got
        assert got["properties"].items() >= {"color": "blue", "size_of": "big", "os_distro": "debian", "os_version": "12",
                                             "architecture": "x86_64"}.items(), got
        run("image unset --tag one --property color sweep2")
        got = js("image show sweep2")
        assert got["tags"] == ["two"] and "color" not in got["properties"], got
        for chosen in ("--private", "--name sweep2", "--tag two", "--property os_distro=debian", "--status active", "--sort name:desc",
                       "--limit 100"):
            assert "sweep2" in column(f"image list --long {chosen}"), chosen
        run("image set --hidden sweep2")
        assert "sweep2" not in column("image list") and "sweep2" in column("image list --hidden")
        run("image set --unhidden --community sweep2")
        assert "sweep2" in column("image list --community")
        admin(f"image set --public {made['id']}")
        assert "sweep2" in column("image list --public")
        admin(f"image set --deactivate {made['id']}")
        shows("image show sweep2", status="deactivated")
        with tempfile.NamedTemporaryFile() as f:
            refused(f"image save --file {f.name} sweep2", "")
            admin(f"image set --activate {made['id']}")
            run(f"image save --file {f.name} sweep2")
            assert open(f.name, "rb").read() == open(GUEST, "rb").read()
        assert column("image list --all", cloud=ADMIN)
        run("image delete sweep2")
        refused("image show sweep2", "No Image")


def test_members():
    with undone("image delete sweep-shared"):
        project = ajs("project show admin")["id"]
        made = js("image create --shared --disk-format raw --container-format bare sweep-shared")["id"]
        shows(f"image add project {made} {project}", status="pending")
        assert js(f"image member list {made}")[0]["Status"] == "pending"
        shows(f"image member get {made} {project}", status="pending")
        admin(f"image set --accept {made}")
        assert js(f"image member list {made}")[0]["Status"] == "accepted"
        assert made in column("image list --shared --member-status accepted", "ID", ADMIN)
        admin(f"image set --reject {made}")
        shows(f"image member get {made} {project}", status="rejected")
        admin(f"image set --pending {made}")
        shows(f"image member get {made} {project}", status="pending")
        run(f"image remove project {made} {project}")
        assert js(f"image member list {made}") == []


def test_import_staging_stores_and_tasks():
    methods = js("image import info")["import-methods"]
    assert "glance-direct" in str(methods)
    assert len(column("image stores list", "ID")) == 1 and ajs("image stores list --detail")
    with undone("image delete sweep-import", "image delete sweep-import2"):
        made = js("image create --disk-format qcow2 --container-format bare sweep-import")["id"]
        run(f"image stage --file {GUEST} {made}")
        shows(f"image show {made}", status="uploading")
        run(f"image import --method glance-direct --wait {made}")
        shows(f"image show {made}", status="active")
        assert js(f"image create --import --disk-format qcow2 --container-format bare --file {GUEST} sweep-import2")["id"]
        task = ajs("image task list --status success --sort-key created_at --sort-dir desc")[0]
        shows(f"image task show {task['ID']}", ADMIN, status="success", type="api_image_import")
        run("image delete sweep-import sweep-import2")


def test_metadata_definitions():
    with undone("image metadef namespace set --unprotected Sweep::Two", "image metadef namespace delete Sweep::Two"):
        admin("image metadef namespace create --display-name sweep --description x --private --protected Sweep::Two")
        admin("image metadef namespace set --display-name other --description y --public --unprotected --tag one --tag two Sweep::Two")
        got = shows("image metadef namespace show Sweep::Two", ADMIN, display_name="other", description="y", visibility="public",
                    protected=False)
        assert "one" in str(got["tags"]) and "two" in str(got["tags"]), got
        assert "Sweep::Two" in str(ajs("image metadef namespace list --visibility public"))
        admin("image metadef namespace unset --tag one Sweep::Two")
        got = ajs("image metadef namespace show Sweep::Two")
        assert "one" not in str(got["tags"]) and "two" in str(got["tags"]), got
        admin("image metadef namespace unset --all-tags Sweep::Two")
        # In a process of its own: the SDK remembers tags in a default that all namespaces share.
        assert '"tags": []' in whole("image", "metadef", "namespace", "show", "Sweep::Two", "-f", "json", cloud=ADMIN)
        schema = json.dumps({"minLength": 1})
        admin(f"image metadef property create --name p --title t --type string --schema '{schema}' Sweep::Two")
        admin("image metadef property set --title u Sweep::Two p")
        shows("image metadef property show Sweep::Two p", ADMIN, title="u", type="string")
        assert "p" in str(ajs("image metadef property list Sweep::Two"))
        admin("image metadef object create --namespace Sweep::Two o")
        # The client cannot make objects with properties, only show them.
        properties = {"cores": {"title": "c", "type": "integer"}}
        body = {"name": "q", "properties": properties}
        made = shell(ADMIN).client_manager.image.post("/metadefs/namespaces/Sweep::Two/objects", json=body)
        assert made.status_code == 201, made.text
        assert ajs("image metadef object property show Sweep::Two q cores")["type"] == "integer"
        admin("image metadef object delete Sweep::Two q")
        shows("image metadef object show Sweep::Two o", ADMIN, name="o")
        admin("image metadef object update --name o2 Sweep::Two o")
        assert "o2" in str(ajs("image metadef object list Sweep::Two"))
        admin("image metadef object delete Sweep::Two o2")
        assert "o2" not in str(ajs("image metadef object list Sweep::Two"))
        admin("image metadef property delete Sweep::Two p")
        refused("image metadef property show Sweep::Two p", "", ADMIN)
        admin("image metadef resource type association create --properties-target image Sweep::Two OS::Glance::Image")
        assert "OS::Glance::Image" in str(ajs("image metadef resource type list"))
        assert "OS::Glance::Image" in str(ajs("image metadef resource type association list Sweep::Two"))
        admin("image metadef resource type association delete Sweep::Two OS::Glance::Image")
        assert "OS::Glance::Image" not in str(ajs("image metadef resource type association list Sweep::Two"))
        admin("image metadef namespace delete Sweep::Two")
        refused("image metadef namespace show Sweep::Two", "", ADMIN)
