"""A second client that shares no code with openstackclient: apache-libcloud. From a network to ssh into a guest, and back to nothing."""
from libcloud.compute.base import NodeState
from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider
from lib import STATE, endpoint, ssh, wait


def driver():
    """Logs in with what is in clouds.yaml."""
    with open(f"{STATE}/secrets/demo") as f:
        password = f.read().strip()
    return get_driver(Provider.OPENSTACK)(
        "demo", password, ex_force_auth_url=endpoint() + "/identity", ex_force_auth_version="3.x_password", ex_tenant_name="demo",
        ex_domain_name="Default", ex_tenant_domain_id="default", ex_force_service_region="RegionOne", api_version="2.2")


def named(rows, name):
    found = [row for row in rows if row.name == name]
    assert len(found) == 1, f"{name}: {[row.name for row in rows]}"
    return found[0]


def state_of(cloud, node):
    return cloud.ex_get_node_details(node.id).state


def test_lists():
    cloud = driver()
    assert {"m1.nano", "m1.small"} <= {size.name for size in cloud.list_sizes()}
    size = named(cloud.list_sizes(), "m1.nano")
    assert (size.ram, size.vcpus) == (192, 1) and cloud.ex_get_size(size.id).name == "m1.nano"
    assert cloud.ex_get_size_extra_specs(size.id) == {}
    image = named(cloud.list_images(), "tiny")
    assert cloud.get_image(image.id).extra["status"] == "active"
    assert {"public", "private"} <= {network.name for network in cloud.ex_list_networks()}
    assert cloud.ex_list_subnets() and cloud.ex_list_routers() and cloud.ex_list_ports() and cloud.ex_list_security_groups()
    assert "public" in [pool.name for pool in cloud.ex_list_floating_ip_pools()]
    assert "demo" in [key.name for key in cloud.list_key_pairs()] and "demo" in [node.name for node in cloud.list_nodes()]


def test_a_network_of_its_own():
    cloud = driver()
    network = cloud.ex_create_network("lc")
    subnet = cloud.ex_create_subnet("lc", network, "10.44.0.0/24", dns_nameservers=["9.9.9.9"])
    assert named(cloud.ex_list_subnets(), "lc").cidr == "10.44.0.0/24"
    cloud.ex_update_subnet(subnet, name="lc2", dns_nameservers=["8.8.8.8"])
    assert named(cloud.ex_list_subnets(), "lc2").id == subnet.id
    port = cloud.ex_create_port(network, description="x", name="lc")
    cloud.ex_update_port(port, description="y")
    assert cloud.ex_get_port(port.id).extra["description"] == "y"
    cloud.ex_delete_port(port)
    router = cloud.ex_create_router("lc", external_gateway_info={"network_id": named(cloud.ex_list_networks(), "public").id})
    cloud.ex_add_router_subnet(router, subnet)
    cloud.ex_del_router_subnet(router, subnet)
    cloud.ex_delete_router(router)
    cloud.ex_delete_subnet(subnet)
    cloud.ex_delete_network(network)
    assert "lc" not in [n.name for n in cloud.ex_list_networks()]


def test_a_node_through_its_life():
    cloud = driver()
    with open(f"{STATE}/demo_key.pub") as f:
        key = cloud.import_key_pair_from_string("lc", f.read())
    assert cloud.get_key_pair("lc").fingerprint == key.fingerprint
    group = cloud.ex_create_security_group("lc", "ssh only")
    rule = cloud.ex_create_security_group_rule(group, "tcp", 22, 22, "0.0.0.0/0")
    assert (rule.from_port, rule.to_port) == (22, 22)
    network = named(cloud.ex_list_networks(), "private")
    node = cloud.create_node(name="lc", size=named(cloud.list_sizes(), "m1.nano"), image=named(cloud.list_images(), "tiny"),
                             networks=[network], ex_keyname="lc", ex_security_groups=[group], ex_metadata={"a": "b"},
                             ex_userdata="#!/bin/sh\necho from libcloud\n", ex_config_drive=True)
    address = None
    try:
        (node, ips), = cloud.wait_until_running([node], wait_period=0.3, timeout=90, ssh_interface="private_ips")
        assert node.state == NodeState.RUNNING and ips and node.extra["config_drive"]
        assert cloud.ex_get_metadata(node) == {"a": "b"}
        assert cloud.ex_set_metadata(node, {"a": "c"})["a"] == "c"
        assert [g.name for g in cloud.ex_get_node_security_groups(node)] == ["lc"]
        assert cloud.ex_get_node_ports(node)
        address = cloud.ex_create_floating_ip("public")
        assert cloud.ex_attach_floating_ip_to_node(node, address)
        assert ssh(address.ip_address, "hostname") == "lc"
        assert address.ip_address in node_addresses(cloud, node)
        assert "ssh ready" in cloud.ex_get_console_output(node)["output"]
        assert cloud.reboot_node(node)
        wait("RUNNING after a reboot", lambda: state_of(cloud, node) == NodeState.RUNNING)
        assert ssh(address.ip_address, "hostname") == "lc"
        assert cloud.stop_node(node)
        wait("STOPPED", lambda: state_of(cloud, node) == NodeState.STOPPED, 90)
        assert cloud.start_node(node)
        wait("RUNNING again", lambda: state_of(cloud, node) == NodeState.RUNNING)
        assert cloud.ex_pause_node(node)
        wait("paused", lambda: cloud.ex_get_node_details(node.id).extra["vm_state"] == "paused")
        assert cloud.ex_unpause_node(node)
        wait("RUNNING after a pause", lambda: state_of(cloud, node) == NodeState.RUNNING)
        cloud.ex_set_server_name(node, "lc2")
        assert named(cloud.list_nodes(), "lc2").id == node.id
        image = cloud.create_image(node, "lc-snapshot")
        wait("the image", lambda: cloud.get_image(image.id).extra["status"] == "active", 90)
        assert cloud.delete_image(image)
        assert cloud.ex_detach_floating_ip_from_node(node, address)
    finally:
        cloud.destroy_node(node)
        wait("no node", lambda: node.id not in [n.id for n in cloud.list_nodes()], 90)
        if address:
            cloud.ex_delete_floating_ip(address)
        cloud.ex_delete_security_group(group)
        cloud.delete_key_pair(key)
    assert "lc" not in [k.name for k in cloud.list_key_pairs()]


def node_addresses(cloud, node):
    found = cloud.ex_get_node_details(node.id)
    return found.public_ips + found.private_ips
