"""Every command of the newest `openstack` client that this cloud has a service for.

By default what needs no long waits. `DROVER_SWEEP=all tests/run cli_sweep` tries all, and fails when a command was neither tried nor is
in the table of what is not served: a new release of the client cannot add one unnoticed."""
import os
from osc import every_command, refused, run, tried
from sweep_compute import *  # noqa: F403
from sweep_identity import *  # noqa: F403
from sweep_image import *  # noqa: F403
from sweep_network import *  # noqa: F403
from sweep_placement import *  # noqa: F403
from sweep_storage import *  # noqa: F403
from sweep_volume import *  # noqa: F403

WHOLE = os.environ.get("DROVER_SWEEP") == "all"
GROUPS = ("openstack.cli", "openstack.common", "openstack.compute.v2", "openstack.identity.v3", "openstack.image.v2",
          "openstack.network.v2", "openstack.placement.v1", "openstack.volume.v3")
# First words of commands, and why they are not served.
NOT_SERVED = {
    # Identity: federation and OAuth1 tokens.
    "access token": "no OAuth1 tokens", "request token": "no OAuth1 tokens",
    "federation protocol": "no federation", "identity provider": "no federation", "mapping": "no federation",
    "service provider": "no federation",
    # Image.
    "cached image": "images are cached by hosts, not by the API",
    # Compute.
    "compute agent": "removed from Nova: 410",
    "server add share": "no shared file systems", "server remove share": "no shared file systems", "server share": "no shared file systems",
    # Network: extensions that are not offered.
    "default security group rule": "no extension security-groups-default-rules",
    "floating ip port forwarding": "no extension floating-ip-port-forwarding",
    "local ip": "no extension local_ip",
    "network agent add": "OVN schedules routers and DHCP itself", "network agent remove": "OVN schedules routers and DHCP itself",
    "network agent router set": "OVN schedules routers and DHCP itself", "network agent set": "agents are shown, not steered",
    "network agent delete": "agents are shown, not steered",
    "network flavor": "no extension flavors",
    "network l3 conntrack helper": "no extension l3-conntrack-helper",
    "network meter": "no extension metering",
    "network onboard subnet": "no extension subnet_onboard", "subnet pool add network": "no extension subnet_onboard",
    "network qos": "no extension qos",
    "network segment": "no extension segment",
    "network subport": "no extension trunk", "network trunk": "no extension trunk",
    "router add gateway": "no extension external-gateway-multihoming",
    "router remove gateway": "no extension external-gateway-multihoming",
    "router ndp proxy": "no extension l3-ndp-proxy",
    "security group default statefulness": "no extension security-groups-default-statefulness",
    # Volume.
    "volume backup": "no backups",
    "consistency group": "groups are served, which came in their place with 3.13",
    "block storage cleanup": "what was begun goes on by itself after a restart: there are no workers to clean up after",
    "block storage cluster set": "each backend is of one host", "block storage cluster show": "each backend is of one host",
    "block storage volume manageable list": "data that is not the cloud's own is not taken over",
    "block storage snapshot manageable list": "data that is not the cloud's own is not taken over",
}


def test_other_services_are_told_to_be_absent():
    run("module list")
    refused("container list", "object-store service in RegionOne region not found")
    refused("object store account show", "object-store service in RegionOne region not found")


if WHOLE:
    def test_no_command_is_forgotten():
        commands, _ = every_command(*GROUPS)
        left = {c for c in commands - tried if not any(c == n or c.startswith(f"{n} ") for n in NOT_SERVED)}
        assert not left, f"neither tried nor in the table: {sorted(left)}"
        stale = {n for n in NOT_SERVED if not any(c == n or c.startswith(f"{n} ") for c in commands)}
        assert not stale, f"the client has no such commands any more: {sorted(stale)}"
else:
    del test_the_states_of_a_server, test_servers_that_boot_from_volumes  # noqa: F821
