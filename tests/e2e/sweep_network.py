"""Every command of the `openstack` client for networks: what was set is shown, what was removed is gone."""
from osc import ADMIN, admin, ajs, column, js, refused, run, shows, undone


def gone(kind, name, cloud="drover"):
    refused(f"{kind} show {name}", "", cloud)


def free():
    """An address of the network `public` that nobody has; it gives them out at random."""
    taken = {ip["ip_address"] for port in ajs("port list --network public") for ip in port["Fixed IP Addresses"]}
    return next(address for address in (f"172.24.4.{n}" for n in range(100, 250)) if address not in taken)


def tagged(kind, name, listing=None):
    """Tags of a resource: set, listed by, unset."""
    run(f"{kind} set --tag red --tag blue {name}")
    assert sorted(js(f"{kind} show {name}")["tags"]) == ["blue", "red"]
    listing, me = listing or f"{kind} list", js(f"{kind} show {name}")["id"]
    for chosen, there in (("--tags red,blue", 1), ("--any-tags red,nine", 1), ("--not-tags red,blue", 0), ("--not-any-tags red", 0)):
        assert (me in column(f"{listing} {chosen}", "ID")) == bool(there), f"{listing} {chosen}"
    run(f"{kind} unset --tag red {name}")
    shows(f"{kind} show {name}", tags=["blue"])
    run(f"{kind} set --no-tag --tag green {name}")
    shows(f"{kind} show {name}", tags=["green"])
    run(f"{kind} unset --all-tag {name}")
    shows(f"{kind} show {name}", tags=[])


def test_networks():
    with undone("network delete sweep2", "network delete sweep", "network delete sweep-provider"):
        run("network create --description x --mtu 1400 --disable --disable-port-security --tag one --dns-domain example.org. sweep")
        made = shows("network show sweep", description="x", mtu=1400, admin_state_up=False, port_security_enabled=False, tags=["one"],
                     dns_domain="example.org.")
        assert "sweep" in column("network list --disable --long") and "sweep" not in column("network list --enable")
        assert column("network list --name sweep --internal --no-share --status ACTIVE", "ID") in ([made["id"]], [])
        run("network set --name sweep2 --description y --mtu 1300 --enable --enable-port-security --no-tag sweep")
        shows("network show sweep2", description="y", mtu=1300, admin_state_up=True, port_security_enabled=True, tags=[])
        tagged("network", "sweep2")
        admin(f"network set --share {made['id']}")
        shows("network show sweep2", shared=True)
        assert "sweep2" in column("network list --share")
        admin(f"network set --no-share --external {made['id']}")
        shows("network show sweep2", shared=False, router__external=True)
        assert "sweep2" in column("network list --external")
        admin(f"network set --internal {made['id']}")
        refused("network create --provider-network-type vlan no", "", "drover")
        admin("network create --provider-network-type vlan --provider-physical-network public --provider-segment 123 sweep-provider")
        shows("network show sweep-provider", ADMIN, provider__network_type="vlan", provider__segmentation_id=123)
        assert column("network list --provider-network-type vlan --provider-physical-network public --provider-segment 123",
                      cloud=ADMIN) == ["sweep-provider"]
        assert "public" in column("network list --external --project admin", cloud=ADMIN)
        run("network delete sweep2")
        gone("network", "sweep2")


def test_subnets():
    with undone("network delete sweep-subnets"):
        run("network create sweep-subnets")
        run("subnet create --network sweep-subnets --subnet-range 10.8.0.0/24 --gateway 10.8.0.254 --no-dhcp --description x "
            "--allocation-pool start=10.8.0.10,end=10.8.0.20 --dns-nameserver 9.9.9.9 "
            "--host-route destination=10.9.0.0/24,gateway=10.8.0.2 --tag one sweep")
        shows("subnet show sweep", gateway_ip="10.8.0.254", enable_dhcp=False, description="x", dns_nameservers=["9.9.9.9"],
              allocation_pools=[{"start": "10.8.0.10", "end": "10.8.0.20"}], tags=["one"],
              host_routes=[{"destination": "10.9.0.0/24", "nexthop": "10.8.0.2"}])
        run("subnet set --name sweep2 --dhcp --description y --dns-nameserver 8.8.8.8 --no-tag --gateway 10.8.0.253 "
            "--allocation-pool start=10.8.0.30,end=10.8.0.40 --host-route destination=10.9.1.0/24,gateway=10.8.0.3 sweep")
        shows("subnet show sweep2", enable_dhcp=True, description="y", dns_nameservers=["8.8.8.8", "9.9.9.9"], gateway_ip="10.8.0.253")
        assert len(js("subnet show sweep2")["host_routes"]) == 2 and len(js("subnet show sweep2")["allocation_pools"]) == 2
        run("subnet unset --dns-nameserver 9.9.9.9 --allocation-pool start=10.8.0.10,end=10.8.0.20 "
            "--host-route destination=10.9.0.0/24,gateway=10.8.0.2 sweep2")
        shows("subnet show sweep2", dns_nameservers=["8.8.8.8"], allocation_pools=[{"start": "10.8.0.30", "end": "10.8.0.40"}],
              host_routes=[{"destination": "10.9.1.0/24", "nexthop": "10.8.0.3"}])
        run("subnet set --no-dns-nameservers --no-host-route --no-allocation-pool --allocation-pool start=10.8.0.5,end=10.8.0.6 sweep2")
        shows("subnet show sweep2", dns_nameservers=[], host_routes=[])
        run("subnet unset --gateway sweep2")
        shows("subnet show sweep2", gateway_ip=None)
        tagged("subnet", "sweep2")
        for chosen in ("--ip-version 4 --dhcp", "--network sweep-subnets", "--name sweep2", "--subnet-range 10.8.0.0/24"):
            assert "sweep2" in column(f"subnet list --long {chosen}"), chosen
        run("subnet create --network sweep-subnets --subnet-range fd00:7::/64 --ip-version 6 --ipv6-ra-mode slaac "
            "--ipv6-address-mode slaac sweep-six")
        shows("subnet show sweep-six", ipv6_ra_mode="slaac", ipv6_address_mode="slaac", ip_version=6)
        assert column("subnet list --ip-version 6 --network sweep-subnets") == ["sweep-six"]
        run("subnet delete sweep2 sweep-six")
        gone("subnet", "sweep2")


def test_address_scopes_and_subnet_pools():
    with undone("network delete sweep-pools", "subnet pool delete sweep2", "subnet pool delete sweep", "address scope delete sweep2",
                "address scope delete sweep", "network delete sweep-onboard"):
        run("address scope create --ip-version 4 sweep")
        run("address scope set --name sweep2 sweep")
        admin(f"address scope set --share {js('address scope show sweep2')['id']}")
        shows("address scope show sweep2", shared=True, ip_version=4)
        assert column("address scope list --ip-version 4 --share --name sweep2") == ["sweep2"]
        run("subnet pool create --pool-prefix 10.60.0.0/16 --default-prefix-length 24 --min-prefix-length 20 --max-prefix-length 28 "
            "--description x --default-quota 4096 --address-scope sweep2 --tag one sweep")
        shows("subnet pool show sweep", prefixes=["10.60.0.0/16"], default_prefixlen=24, min_prefixlen=20, max_prefixlen=28,
              description="x", default_quota=4096, tags=["one"])
        run("subnet pool set --name sweep2 --description y --pool-prefix 10.61.0.0/16 --default-prefix-length 25 --min-prefix-length 21 "
            "--max-prefix-length 27 --default-quota 8192 --no-tag sweep")
        shows("subnet pool show sweep2", description="y", default_prefixlen=25, min_prefixlen=21, max_prefixlen=27, default_quota=8192)
        assert set(js("subnet pool show sweep2")["prefixes"]) in ({"10.60.0.0/16", "10.61.0.0/16"}, {"10.60.0.0/15"})
        tagged("subnet pool", "sweep2")
        for chosen in ("--name sweep2", "--no-share", "--no-default", "--address-scope sweep2"):
            assert "sweep2" in column(f"subnet pool list --long {chosen}"), chosen
        run("network create sweep-pools")
        made = js("subnet create --network sweep-pools --subnet-pool sweep2 --prefix-length 26 sweep-cut")
        assert made["cidr"].startswith("10.6") and made["cidr"].endswith("/26"), made
        assert "sweep-cut" in column("subnet list --subnet-pool sweep2")
        refused("subnet pool delete sweep2", "")
        run("subnet delete sweep-cut")
        run("subnet pool set --no-address-scope sweep2")
        shows("subnet pool show sweep2", address_scope_id=None)
        run("address scope delete sweep2")
        gone("address scope", "sweep2")
        run("network create sweep-onboard")
        run("subnet create --network sweep-onboard --subnet-range 10.62.0.0/24 sweep-onboarded")
        run("subnet pool delete sweep2")
        gone("subnet pool", "sweep2")
        with undone("subnet pool delete sweep-default"):
            admin("subnet pool create --pool-prefix 10.63.0.0/16 --default-prefix-length 24 --default --share sweep-default")
            assert js("subnet create --network sweep-pools --use-default-subnet-pool sweep-cut")["cidr"].startswith("10.63.")
            assert "sweep-default" in column("subnet pool list --default --share")
            run("subnet delete sweep-cut")
            admin("subnet pool set --no-default sweep-default")
            shows("subnet pool show sweep-default", is_default=False)


def test_ports():
    with undone("port delete sweep2", "port delete sweep", "port delete sweep-admin", "network delete sweep-ports",
                "security group delete sweep-ports"):
        run("network create sweep-ports")
        run("subnet create --network sweep-ports --subnet-range 10.8.1.0/24 sweep-ports")
        run("security group create sweep-ports")
        made = js("port create --network sweep-ports --fixed-ip subnet=sweep-ports,ip-address=10.8.1.9 --mac-address fa:16:3e:01:02:03 "
                  "--device-owner custom:thing --device one --description x --security-group sweep-ports --tag one --dns-name host "
                  "--allowed-address ip-address=10.8.1.77 --extra-dhcp-option name=mtu,value=1300 --disable sweep")
        assert made["mac_address"] == "fa:16:3e:01:02:03" and made["fixed_ips"][0]["ip_address"] == "10.8.1.9"
        shows("port show sweep", device_owner="custom:thing", device_id="one", description="x", tags=["one"], dns_name="host",
              admin_state_up=False, extra_dhcp_opts=[{"opt_name": "mtu", "opt_value": "1300", "ip_version": 4}],
              allowed_address_pairs=[{"ip_address": "10.8.1.77", "mac_address": "fa:16:3e:01:02:03"}])
        run("port set --name sweep2 --description y --enable --device two --device-owner custom:other --no-tag --dns-name other "
            "--fixed-ip subnet=sweep-ports,ip-address=10.8.1.10 --allowed-address ip-address=10.8.1.78 "
            "--extra-dhcp-option name=mtu,value=1200 sweep")
        shows("port show sweep2", description="y", admin_state_up=True, device_id="two", device_owner="custom:other", dns_name="other",
              extra_dhcp_opts=[{"opt_name": "mtu", "opt_value": "1200", "ip_version": 4}])
        assert {f["ip_address"] for f in js("port show sweep2")["fixed_ips"]} == {"10.8.1.9", "10.8.1.10"}
        run("port unset --fixed-ip subnet=sweep-ports,ip-address=10.8.1.9 "
            "--allowed-address ip-address=10.8.1.78,mac-address=fa:16:3e:01:02:03 --security-group sweep-ports sweep2")
        got = js("port show sweep2")
        assert [f["ip_address"] for f in got["fixed_ips"]] == ["10.8.1.10"] and got["security_group_ids"] == []
        assert [p["ip_address"] for p in got["allowed_address_pairs"]] == ["10.8.1.77"]
        run("port unset --device --device-owner sweep2")
        shows("port show sweep2", device_id="", device_owner="")
        run("port set --security-group sweep-ports --no-allowed-address sweep2")
        assert len(js("port show sweep2")["security_group_ids"]) == 1 and not js("port show sweep2")["allowed_address_pairs"]
        run("port set --no-security-group --disable-port-security sweep2")
        shows("port show sweep2", port_security_enabled=False, security_group_ids=[])
        admin(f"port set --enable-port-security --no-fixed-ip --mac-address fa:16:3e:01:02:04 {js('port show sweep2')['id']}")
        shows("port show sweep2", fixed_ips=[], mac_address="fa:16:3e:01:02:04")
        tagged("port", "sweep2")
        for chosen in ("--network sweep-ports", "--mac-address fa:16:3e:01:02:04", "--name sweep2", "--status DOWN"):
            assert "sweep2" in column(f"port list --long {chosen}"), chosen
        assert "sweep2" not in column("port list --fixed-ip ip-address=10.8.1.10")
        assert column("port list --server demo", "ID") and column("port list --router router", "ID")
        admin("port create --network sweep-ports --vnic-type normal --host nowhere --binding-profile a=b --no-fixed-ip sweep-admin")
        shows("port show sweep-admin", ADMIN, binding_profile={"a": "b"}, binding_host_id="nowhere", binding_vnic_type="normal")
        admin("port set --binding-profile c=d --host elsewhere sweep-admin")
        shows("port show sweep-admin", ADMIN, binding_profile={"a": "b", "c": "d"}, binding_host_id="elsewhere")
        admin("port unset --binding-profile a --host sweep-admin")
        shows("port show sweep-admin", ADMIN, binding_profile={"c": "d"}, binding_host_id="")
        admin("port set --no-binding-profile sweep-admin")
        shows("port show sweep-admin", ADMIN, binding_profile={})
        run("port delete sweep2")
        gone("port", "sweep2")


def test_routers():
    with undone("router delete sweep2", "router delete sweep", "network delete sweep-routers"):
        run("network create sweep-routers")
        for n in (1, 2):
            run(f"subnet create --network sweep-routers --subnet-range 10.8.{n}0.0/24 sweep-routers-{n}")
        run("router create --description x --disable --tag one sweep")
        shows("router show sweep", description="x", admin_state_up=False, tags=["one"])
        assert "sweep" in column("router list --disable --long") and "sweep" not in column("router list --enable")
        run("router set --name sweep2 --description y --enable --no-tag sweep")
        shows("router show sweep2", description="y", admin_state_up=True)
        tagged("router", "sweep2")
        run("router add subnet sweep2 sweep-routers-1")
        run("port create --network sweep-routers --fixed-ip subnet=sweep-routers-2 sweep-routers")
        run("router add port sweep2 sweep-routers")
        assert len(column("port list --router sweep2", "ID")) == 2
        run("router add route --route destination=10.200.0.0/24,gateway=10.8.10.7 "
            "--route destination=10.201.0.0/24,gateway=10.8.10.8 sweep2")
        assert len(js("router show sweep2")["routes"]) == 2
        run("router remove route --route destination=10.200.0.0/24,gateway=10.8.10.7 sweep2")
        assert [r["destination"] for r in js("router show sweep2")["routes"]] == ["10.201.0.0/24"]
        run("router set --route destination=10.202.0.0/24,gateway=10.8.10.9 sweep2")
        run("router unset --route destination=10.201.0.0/24,gateway=10.8.10.8 sweep2")
        assert [r["destination"] for r in js("router show sweep2")["routes"]] == ["10.202.0.0/24"]
        run("router set --no-route sweep2")
        shows("router show sweep2", routes=[])
        run("router set --external-gateway public sweep2")
        shows("router show sweep2")["external_gateway_info"]["enable_snat"] is True
        refused("router delete sweep2", "")
        run("router unset --external-gateway sweep2")
        shows("router show sweep2", external_gateway_info=None)
        address, router = free(), js("router show sweep2")["id"]
        admin(f"router set --external-gateway public --disable-snat --fixed-ip ip-address={address} {router}")
        gateway = js("router show sweep2")["external_gateway_info"]
        assert gateway["enable_snat"] is False and gateway["external_fixed_ips"][0]["ip_address"] == address, gateway
        run("router unset --external-gateway sweep2")
        run("router remove subnet sweep2 sweep-routers-1")
        run("router remove port sweep2 sweep-routers")
        assert column("port list --router sweep2", "ID") == []
        admin(f"router set --centralized --no-ha --disable {js('router show sweep2')['id']}")
        admin(f"router set --enable {js('router show sweep2')['id']}")
        run("router delete sweep2")
        gone("router", "sweep2")


def test_security_groups():
    with undone("security group delete sweep2", "security group delete sweep", "address group delete sweep-remote"):
        made = js("security group create --description x --stateless --tag one sweep")
        assert made["stateful"] is False and made["tags"] == ["one"]
        run("security group set --name sweep2 --description y --stateful --no-tag sweep")
        shows("security group show sweep2", description="y", stateful=True, tags=[])
        tagged("security group", "sweep2")
        run("address group create --address 10.1.0.0/16 sweep-remote")
        rules = {
            "--protocol tcp --dst-port 80:90 --remote-ip 10.0.0.0/8 --description web": {
                "port_range_min": 80, "port_range_max": 90, "remote_ip_prefix": "10.0.0.0/8", "description": "web", "direction": "ingress"},
            "--protocol icmp --icmp-type 8 --icmp-code 0": {"port_range_min": 8, "port_range_max": 0},
            "--protocol udp --dst-port 53 --egress --remote-ip 0.0.0.0/0": {"direction": "egress", "port_range_min": 53},
            "--protocol tcp --dst-port 22 --remote-group default": {"protocol": "tcp"},
            "--protocol tcp --dst-port 25 --remote-address-group sweep-remote": {"port_range_max": 25},
            "--protocol tcp --dst-port 443 --ethertype IPv6": {"ether_type": "IPv6"},
            "--protocol vrrp": {"protocol": "112"},
        }
        for options, wanted in rules.items():
            rule = js(f"security group rule create {options} sweep2")["id"]
            got = js(f"security group rule show {rule}")
            for key, value in wanted.items():
                assert got[key] == value or (key == "protocol" and got[key] in ("vrrp", "112")), f"{options}: {got}"
        assert len(js("security group rule list --protocol tcp --ingress --long sweep2")) == 4
        assert len(js("security group rule list --ethertype IPv6 sweep2")) >= 1 and js("security group rule list --egress sweep2")
        run(f"security group rule delete {rule}")
        refused(f"security group rule show {rule}", "")
        refused("address group delete sweep-remote", "")
        run("security group delete sweep2")
        gone("security group", "sweep2")
        run("address group delete sweep-remote")


def test_address_groups():
    with undone("address group delete sweep2", "address group delete sweep"):
        run("address group create --description x --address 10.1.0.0/16 --address 10.2.0.1 sweep")
        run("address group set --name sweep2 --description y --address 10.3.0.0/24 sweep")
        assert set(shows("address group show sweep2", description="y")["addresses"]) == {"10.1.0.0/16", "10.2.0.1/32", "10.3.0.0/24"}
        run("address group unset --address 10.1.0.0/16 sweep2")
        assert set(js("address group show sweep2")["addresses"]) == {"10.2.0.1/32", "10.3.0.0/24"}
        assert column("address group list --name sweep2") == ["sweep2"]
        run("address group delete sweep2")
        gone("address group", "sweep2")


def test_floating_ips():
    with undone("router remove subnet sweep-fip sweep-fip", "router delete sweep-fip", "port delete sweep-fip", "network delete sweep-fip"):
        run("network create sweep-fip")
        run("subnet create --network sweep-fip --subnet-range 10.8.3.0/24 sweep-fip")
        run("router create --external-gateway public sweep-fip")
        run("router add subnet sweep-fip sweep-fip")
        port = js("port create --network sweep-fip sweep-fip")["id"]
        # Only administrators see the subnets of an external network.
        made = ajs("floating ip create --description x --tag one --subnet public-subnet --project demo public")
        address = made["floating_ip_address"]
        assert made["description"] == "x" and made["tags"] == ["one"] and made["port_id"] is None
        run(f"floating ip set --port {port} --description y --no-tag {address}")
        shows(f"floating ip show {address}", port_id=port, description="y", tags=[])
        for chosen in (f"--port {port}", "--network public", f"--floating-ip-address {address}", "--router sweep-fip"):
            assert address in column(f"floating ip list --long {chosen}", "Floating IP Address"), chosen
        tagged("floating ip", address)
        run(f"floating ip unset --port {address}")
        shows(f"floating ip show {address}", port_id=None)
        run(f"floating ip delete {address}")
        gone("floating ip", address)
        address = free()
        admin(f"floating ip create --floating-ip-address {address} --project demo public")
        assert address in column("floating ip list", "Floating IP Address")
        run(f"floating ip delete {address}")
        whole = js(f"floating ip create --port {port} public")
        assert whole["port_id"] == port and whole["fixed_ip_address"].startswith("10.8.3.")
        run(f"floating ip delete {whole['floating_ip_address']}")
        run("router remove subnet sweep-fip sweep-fip")
        run(f"port delete {port}")


def test_rbac():
    with undone("network rbac delete sweep", "network delete sweep-rbac", "project delete sweep-rbac", "project delete sweep-rbac2"):
        one, two = (ajs(f"project create {name}")["id"] for name in ("sweep-rbac", "sweep-rbac2"))
        run("network create sweep-rbac")
        made = js(f"network rbac create --type network --action access_as_shared --target-project {one} sweep-rbac")["id"]
        assert made in column("network rbac list --type network --action access_as_shared --long", "ID")
        run(f"network rbac set --target-project {two} {made}")
        shows(f"network rbac show {made}", target_project_id=two, action="access_as_shared")
        run(f"network rbac delete {made}")
        refused(f"network rbac show {made}", "")
        admin(f"network rbac create --type network --action access_as_shared --target-all-projects {js('network show sweep-rbac')['id']}")
        shows("network show sweep-rbac", shared=True)


def test_availability_topology_agents_and_extensions():
    assert {"private", "public"} <= set(column("ip availability list", "Network Name", ADMIN))
    got = ajs("ip availability show public")
    assert got["total_ips"] > got["used_ips"] > 0, got
    project = ajs("project show demo")["id"]
    assert "public" not in column(f"ip availability list --ip-version 4 --project {project}", "Network Name", ADMIN)
    agents = ajs("network agent list --long")
    assert agents, "OVN's agents are listed"
    agent = agents[0]
    assert ajs(f"network agent show {agent['ID']}")["host"] == agent["Host"]
    assert ajs(f"network agent list --host {agent['Host']}")
    made = js("network auto allocated topology create --or-show")["id"]
    assert js("network auto allocated topology create --or-show")["id"] == made
    run("network auto allocated topology delete")
    gone("network", made)
    assert js("network service provider list") == []
    assert "router" in column("extension list --network --long", "Alias")
    assert js("extension show security-group")["alias"] == "security-group"
    assert "nova" in column("availability zone list --network --compute --long", "Zone Name")
