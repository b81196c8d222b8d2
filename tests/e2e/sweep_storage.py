"""Every command of the `openstack` client for what operators say of volumes: types, quality of service, hosts and quotas."""
from lib import wait
from osc import ADMIN, NEWEST, admin, ajs, column, js, refused, run, shell, shows, undone, whole
from sweep_volume import cleared, gone, storage_host, volume


def test_volume_types():
    with undone("volume type delete sweep", "volume type delete sweep2", "volume type delete sweep-private",
                "project delete sweep-types"):
        made = ajs("volume type create --description words --public --property a=b --multiattach sweep")["id"]
        both = {"a": "b", "multiattach": "<is> True"}
        shows("volume type show sweep", ADMIN, description="words", is_public=True, properties=both, id=made)
        admin("volume type set --name sweep2 --description other --property c=d --availability-zone nova sweep")
        more = {**both, "c": "d", "RESKEY:availability_zones": "nova"}
        shows("volume type show sweep2", ADMIN, description="other", properties=more)
        admin("volume type unset --property a --property RESKEY:availability_zones sweep2")
        shows("volume type show sweep2", ADMIN, properties={"multiattach": "<is> True", "c": "d"})
        for chosen in ("--public", "--long"):
            assert "sweep2" in column(f"volume type list {chosen}"), chosen
        # The client does not send its filters of properties.
        assert "sweep2" in column("volume type list --multiattach --property c=d", cloud=ADMIN, volume=NEWEST)
        types = shell(ADMIN, None, ("--os-volume-api-version", NEWEST)).client_manager.volume
        for wanted, names in (({"multiattach": "<is> True", "c": "d"}, ["sweep2"]), ({"c": "e"}, [])):
            answer = types.get("/types", params={"extra_specs": str(wanted)}, microversion=NEWEST)
            assert [kind["name"] for kind in answer.json()["volume_types"]] == names, answer.text
        assert column("volume type list --default") == ["__DEFAULT__"]
        # Who may use a private type.
        project = ajs("project create sweep-types")["id"]
        me = js("token issue")["project_id"]
        admin(f"volume type create --private --project {project} sweep-private")
        assert shows("volume type show sweep-private", ADMIN, is_public=False)["access_project_ids"] == [project]
        assert "sweep-private" in column("volume type list --private", cloud=ADMIN)
        refused("volume type show sweep-private", "No Type")
        admin(f"volume type set --project {me} sweep-private")
        assert "sweep-private" in column("volume type list") and js("volume type show sweep-private")
        admin(f"volume type unset --project {me} sweep-private")
        assert "sweep-private" not in column("volume type list")
        # How it shall be encrypted.
        admin("volume type set --encryption-provider luks --encryption-cipher aes-xts-plain64 --encryption-key-size 256 "
              "--encryption-control-location front-end sweep-private")
        wanted = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256, "control_location": "front-end"}
        got = ajs("volume type show --encryption-type sweep-private")["encryption"]
        assert got.items() >= wanted.items(), got
        admin("volume type set --encryption-key-size 512 sweep-private")
        listed = {row["Name"]: row["Encryption"] for row in ajs("volume type list --private --encryption-type")}
        assert listed["sweep-private"]["key_size"] == 512, listed
        refused("volume create --size 1 --type sweep-private sweep", "asks for encryption", ADMIN)
        admin("volume type unset --encryption-type sweep-private")
        assert not ajs("volume type list --private --encryption-type")[0]["Encryption"]
        # The client names it as in a create, which neither Cinder nor we know in an update.
        refused("volume type set --private sweep2", "os-volume-type-access:is_public", ADMIN)
        refused("volume type create mine", "403")
        admin("volume type delete sweep2 sweep-private")
        refused("volume type show sweep2", "No Type", ADMIN)
        refused("volume type delete __DEFAULT__", "default", ADMIN)


def test_qos_of_volume_types():
    with undone("volume qos delete --force sweep", "volume qos delete sweep-both", "volume type delete sweep-qos",
                "volume type delete sweep-qos2"):
        made = ajs("volume qos create --consumer front-end --property total_iops_sec=100 sweep")["id"]
        shows("volume qos show sweep", ADMIN, consumer="front-end", properties={"total_iops_sec": "100"}, id=made)
        admin("volume qos set --property read_iops_sec=50 sweep")
        shows("volume qos show sweep", ADMIN, properties={"total_iops_sec": "100", "read_iops_sec": "50"})
        admin("volume qos unset --property total_iops_sec sweep")
        shows("volume qos show sweep", ADMIN, properties={"read_iops_sec": "50"})
        admin("volume qos set --no-property --property total_bytes_sec=1000000 sweep")
        shows("volume qos show sweep", ADMIN, properties={"total_bytes_sec": "1000000"})
        for kind in ("sweep-qos", "sweep-qos2"):
            admin(f"volume type create {kind}")
            admin(f"volume qos associate sweep {kind}")
        assert sorted(ajs("volume qos show sweep")["associations"]) == ["sweep-qos", "sweep-qos2"]
        admin("volume qos disassociate --volume-type sweep-qos sweep")
        assert ajs("volume qos show sweep")["associations"] == ["sweep-qos2"]
        admin("volume qos create sweep-both")
        shows("volume qos show sweep-both", ADMIN, consumer="both", properties={})
        refused("volume qos associate sweep-both sweep-qos2", "already", ADMIN)
        assert {row["Name"]: row["Associations"] for row in ajs("volume qos list")} == {"sweep": ["sweep-qos2"], "sweep-both": []}
        admin("volume qos disassociate --all sweep")
        assert "associations" not in ajs("volume qos show sweep")
        admin("volume qos associate sweep sweep-qos2")
        refused("volume qos delete sweep", "still associated", ADMIN)
        admin("volume qos delete --force sweep")
        admin("volume qos delete sweep-both")
        refused("volume qos show sweep", "No QoSSpec", ADMIN)
        admin("volume type delete sweep-qos sweep-qos2")


def test_storage_hosts():
    name = storage_host()
    assert name in column("volume service list --long", "Host", ADMIN) and "controller" in column("volume service list", "Host", ADMIN)
    assert column(f"volume service list --host {name}", "Binary", ADMIN) == ["cinder-volume"]

    def listed():
        return ajs("volume service list --service cinder-volume --long")[0]
    with cleared("sweep-nowhere", cloud=ADMIN), undone(f"volume service set --enable {name} cinder-volume",
                                                       f"volume host set --enable {name}"):
        admin(f"volume service set --disable --disable-reason 'for the sweep' {name} cinder-volume")
        assert (listed()["Status"], listed()["Disabled Reason"], listed()["State"]) == ("disabled", "for the sweep", "up")
        admin(f"volume service set --enable {name} cinder-volume")
        assert (listed()["Status"], listed()["Disabled Reason"]) == ("enabled", None)
        # A frozen host gets no volumes, and who asks for one is told why.
        admin(f"volume host set --disable {name}")
        admin("volume create --size 1 sweep-nowhere")
        wait("error", lambda: ajs("volume show sweep-nowhere")["status"] == "error")
        failed = ajs("volume show sweep-nowhere")["id"]
        admin(f"volume host set --enable {name}")
        note = [row for row in ajs("volume message list", volume=NEWEST) if row["Resource UUID"] == failed][0]
        assert (note["Resource Type"], note["Message Level"]) == ("VOLUME", "ERROR") and note["User Message"], note
        # The client looks for the fields of the one message under the name of many, and finds none.
        shows(f"volume message show {note['ID']}", ADMIN, volume=NEWEST, id=note["ID"])
        assert note["ID"] in column("volume message list --project admin --limit 100", "ID", ADMIN, volume=NEWEST)
        admin(f"volume message delete {note['ID']}", volume=NEWEST)
        refused(f"volume message show {note['ID']}", "No Message", ADMIN, volume=NEWEST)
        admin("volume delete sweep-nowhere")
    refused(f"volume host failover --volume-backend other {name}", "not replicated", ADMIN)
    assert "thin_provisioning" in column(f"volume backend capability show {name}", "Key", ADMIN)
    pools = ajs("volume backend pool list --long")
    assert pools[0]["Name"].startswith(f"{name}#") and pools[0]["Capabilities"]["total_capacity_gb"] > 0, pools
    assert column("volume backend pool list", cloud=ADMIN) == [pools[0]["Name"]]
    refused("volume backend pool list", "403")
    assert ajs("block storage cluster list", volume=NEWEST) == ajs("block storage cluster list --long", volume=NEWEST) == []
    for command in ("list", "set DEBUG"):
        refused(f"block storage log level {command}", "DROVER_LOG", ADMIN, volume=NEWEST)
    filters = {row["Resource"]: row["Filters"] for row in js("block storage resource filter list", volume=NEWEST)}
    shows("block storage resource filter show volume", volume=NEWEST, resource="volume", filters=filters["volume"])
    assert {"name", "status", "metadata"} <= set(filters["volume"]), filters
    assert column("availability zone list --volume", "Zone Name") == ["nova"]
    assert "os-quota-sets" in column("extension list --volume", "Alias")
    newest = [v["Max Microversion"] for v in js("versions show --service block-storage") if v["Status"] == "CURRENT"]
    assert newest == [NEWEST], newest


def test_quotas_of_volumes():
    def limits(of):
        return {row["Resource"]: row["Limit"] for row in ajs(f"quota show --volume {of}")}
    with undone("project delete sweep-volumes", "volume type delete sweep-quota"), cleared("sweep-counted"):
        project = ajs("project create sweep-volumes")["id"]
        admin("volume type create sweep-quota")
        admin("quota set --volumes 3 --gigabytes 4 --snapshots 5 --per-volume-gigabytes 6 --groups 7 --backups 8 --backup-gigabytes 9 "
              "sweep-volumes")
        wanted = {"volumes": 3, "gigabytes": 4, "snapshots": 5, "per-volume-gigabytes": 6, "groups": 7, "backups": 8, "backup-gigabytes": 9}
        assert limits("sweep-volumes").items() >= wanted.items(), limits("sweep-volumes")
        admin("quota set --volumes 1 --volume-type sweep-quota sweep-volumes")
        assert limits("sweep-volumes")["volumes_sweep-quota"] == 1
        assert project in str(ajs("quota list --volume"))
        admin("quota delete --volume sweep-volumes")
        assert limits("sweep-volumes").items() >= {"volumes": 10, "gigabytes": 1000, "volumes_sweep-quota": -1}.items()
        admin("quota set --default --volumes 11 default")
        assert limits("sweep-volumes")["volumes"] == limits("--default")["volumes"] == 11
        admin("quota set --default --volumes 10 default")
        volume("sweep-counted")
        used = {row["Resource"]: row["In Use"] for row in js("quota show --volume --usage")}
        assert used["volumes"] == used["volumes___DEFAULT__"] == 1, used
        absolute = {row["Name"]: row["Value"] for row in js("limits show --absolute")}
        assert absolute["total_volumes_used"] == 1 and absolute["max_total_volumes"] == 10, absolute
        # In a process of its own: the client ends its threads with the first cleanup.
        assert "sweep-counted" in whole("project", "cleanup", "--dry-run", "--auth-project")
        me = js("token issue")["project_id"]
        with undone(f"quota delete --volume {me}"):
            admin(f"quota set --volumes 1 {me}")
            refused("volume create --size 1 sweep-above", "413")
        run("volume delete sweep-counted")
        gone("volume", "sweep-counted")
