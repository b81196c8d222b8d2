"""Every command of osc-placement, with the newest microversion."""
import uuid
from osc import ADMIN, js, refused, run

PLACEMENT = "1.39"


def place(line):
    return run(line, ADMIN, placement=PLACEMENT)


def pjs(line):
    return js(line, ADMIN, placement=PLACEMENT)


def test_classes_and_traits():
    place("resource class create CUSTOM_SWEEP")
    place("resource class set CUSTOM_SWEEP2")
    assert pjs("resource class show CUSTOM_SWEEP")["name"] == "CUSTOM_SWEEP"
    assert {"CUSTOM_SWEEP", "CUSTOM_SWEEP2", "VCPU"} <= {row["name"] for row in pjs("resource class list")}
    place("resource class delete CUSTOM_SWEEP")
    place("resource class delete CUSTOM_SWEEP2")
    assert not {"CUSTOM_SWEEP", "CUSTOM_SWEEP2"} & {row["name"] for row in pjs("resource class list")}
    place("trait create CUSTOM_SWEEP")
    assert pjs("trait show CUSTOM_SWEEP")["name"] == "CUSTOM_SWEEP"
    assert [row["name"] for row in pjs("trait list --name startswith:CUSTOM_SWEEP")] == ["CUSTOM_SWEEP"]
    assert "CUSTOM_SWEEP" not in [row["name"] for row in pjs("trait list --associated")]
    place("trait delete CUSTOM_SWEEP")
    refused("trait show CUSTOM_SWEEP", "", ADMIN, placement=PLACEMENT)


def test_providers_inventories_and_allocations():
    one = pjs("resource provider create sweep")["uuid"]
    child = pjs(f"resource provider create --parent-provider {one} sweep-child")["uuid"]
    consumer, project, user, aggregate = (str(uuid.uuid4()) for _ in range(4))
    try:
        assert pjs(f"resource provider show {child}")["parent_provider_uuid"] == one
        place(f"resource provider set --name sweep-two --parent-provider {one} {child}")
        assert pjs(f"resource provider show {child}")["name"] == "sweep-two"
        assert {row["uuid"] for row in pjs(f"resource provider list --in-tree {one}")} == {one, child}
        assert [row["uuid"] for row in pjs("resource provider list --name sweep")] == [one]
        place(f"resource provider inventory set --resource VCPU=8 --resource VCPU:max_unit=4 --resource MEMORY_MB=1024 {one}")
        assert pjs(f"resource provider inventory show {one} VCPU")["max_unit"] == 4
        place(f"resource provider inventory class set --total 2048 --reserved 48 --allocation_ratio 1.5 --min_unit 1 --max_unit 512 "
              f"--step_size 1 {one} MEMORY_MB")
        assert pjs(f"resource provider inventory show {one} MEMORY_MB")["total"] == 2048
        place(f"resource provider inventory set --amend --resource VCPU:reserved=1 {one}")
        got = {row["resource_class"]: row for row in pjs(f"resource provider inventory list {one}")}
        assert got["VCPU"]["reserved"] == 1 and got["VCPU"]["max_unit"] == 4 and got["MEMORY_MB"]["reserved"] == 48, got
        place("trait create CUSTOM_SWEEP")
        place(f"resource provider trait set --trait CUSTOM_SWEEP --trait HW_CPU_X86_AVX2 {one}")
        assert {row["name"] for row in pjs(f"resource provider trait list {one}")} == {"CUSTOM_SWEEP", "HW_CPU_X86_AVX2"}
        assert [row["uuid"] for row in pjs("resource provider list --required CUSTOM_SWEEP")] == [one]
        assert one not in [row["uuid"] for row in pjs("resource provider list --forbidden CUSTOM_SWEEP")]
        generation = pjs(f"resource provider show {one}")["generation"]
        place(f"resource provider aggregate set --aggregate {aggregate} --generation {generation} {one}")
        assert [row["uuid"] for row in pjs(f"resource provider aggregate list {one}")] == [aggregate]
        assert [row["uuid"] for row in pjs(f"resource provider list --member-of {aggregate} --resource VCPU=1")] == [one]
        candidates = pjs("allocation candidate list --resource VCPU=1 --resource MEMORY_MB=64 --required CUSTOM_SWEEP --limit 5")
        assert {row["resource provider"] for row in candidates} == {one}, candidates
        place(f"resource provider allocation set --allocation rp={one},VCPU=2 --allocation rp={one},MEMORY_MB=128 "
              f"--project-id {project} --user-id {user} --consumer-type SWEEP {consumer}")
        shown = pjs(f"resource provider allocation show {consumer}")
        assert shown[0]["resources"] == {"VCPU": 2, "MEMORY_MB": 128} and shown[0]["project_id"] == project, shown
        assert consumer in str(pjs(f"resource provider show --allocations {one}"))
        assert {row["resource_class"]: row["usage"] for row in pjs(f"resource provider usage show {one}")}["VCPU"] == 2
        assert "VCPU" in str(pjs(f"resource usage show --user-id {user} {project}"))
        place(f"resource provider allocation unset --provider {one} --resource-class MEMORY_MB {consumer}")
        assert pjs(f"resource provider allocation show {consumer}")[0]["resources"] == {"VCPU": 2}
        refused(f"resource provider inventory delete --resource-class VCPU {one}", "", ADMIN, placement=PLACEMENT)
        place(f"resource provider allocation delete {consumer}")
        assert pjs(f"resource provider allocation show {consumer}") == []
        place(f"resource provider trait delete {one}")
        assert pjs(f"resource provider trait list {one}") == []
        place(f"resource provider inventory delete {one}")
        assert pjs(f"resource provider inventory list {one}") == []
    finally:
        place(f"resource provider delete {child}")
        place(f"resource provider delete {one}")
        place("trait delete CUSTOM_SWEEP")
    refused(f"resource provider show {one}", "", ADMIN, placement=PLACEMENT)
