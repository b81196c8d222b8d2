"""A lab with real hosts: guests on two of them, all controllers away for a while, one of OVN's databases lost. `tests/run hosts`."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from lib import DROVER, STATE, alive, commands, wait

# The hosts' sockets are in it: a short name.
DIR = f"{STATE}-h"
PREFIX = f"dh{os.getpid() % 100000}"
KEY = f"{DIR}/key"
SSH = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
       "-o", "ConnectTimeout=5"]
CONTROLLERS = ["c1", "c2", "c3"]
HOSTS = ["n1", "n2"]
made, made_once = {}, {}


def run(*argv, timeout=300, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def lab(*words, **options):
    return run(DROVER, "--state", DIR, "lab", *words, **options)


def client(*argv, **options):
    return run("ip", "netns", "exec", f"{PREFIX}-client", *argv, **options)


def call(method, path, *more):
    """Status and answer of the API at the public address, seen from the client; status 0 when there was none."""
    argv = ["curl", "-s", "-m", "30", "--cacert", f"{DIR}/lab/ca.pem", "-X", method, "-w", "\n%{http_code}", *more, f"https://10.77.0.100:8774{path}"]
    text, _, status = client(*argv, check=False).stdout.rpartition("\n")
    return int(status or 0), json.loads(text) if text.strip().startswith("{") else text


def api(method, path, body=None, *more):
    """As a client that repeats what had no answer: the public address moves while controllers go."""
    data = [] if body is None else ["-H", "content-type: application/json", "-d", json.dumps(body)]
    if method == "POST":
        data += ["-H", f"idempotency-key: {uuid.uuid4()}"]

    def once():
        status, answer = call(method, path, "-H", f"x-auth-token: {token()}", *data, *more)
        return (status, answer) if status not in (0, 502, 503, 504) else None
    status, answer = wait(f"an answer to {method} {path}", once, 30)
    assert 200 <= status < 300, (method, path, status, answer)
    return answer


def token():
    if "token" not in made_once:
        with open(f"{DIR}/lab/c1/secrets/admin") as f:
            user = {"name": "admin", "domain": {"id": "default"}, "password": f.read().strip()}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                         "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}}
        argv = ["-i", "-H", "content-type: application/json", "-d", json.dumps(body)]
        made_once["token"] = re.search(r"(?i)^x-subject-token: (\S+)", call("POST", "/identity/v3/auth/tokens", *argv)[1], re.M).group(1)
    return made_once["token"]


def make(path, what, **fields):
    """One of the network service's; gives what the cloud says of it."""
    return api("POST", f"/network/v2.0/{path}", {what: fields})[what]


def hypervisors():
    return [h["state"] for h in api("GET", "/compute/v2.1/os-hypervisors")["hypervisors"]]


def serves():
    return call("GET", "/readyz")[0] == 200


def guest(name, command, seconds=300):
    """What a command prints on a guest."""
    def once():
        done = client(*SSH, f"root@{made[name]['fixed']}", command, check=False, timeout=60)
        return (done.stdout.strip() or "ok") if done.returncode == 0 else None
    return wait(f"{command} on {name}", once, seconds)


def guests():
    """QEMU processes of servers, by server id."""
    found = {}
    for number, argv in commands():
        # Those of the lab, and not of a cloud beside it.
        match = re.search(rf"{DIR}/lab/.*servers/([0-9a-f-]{{36}})", " ".join(argv))
        if "qemu-system" in argv[0] and match:
            found[match.group(1)] = number
    return found


def members(database, at):
    """How a controller sees the raft of a database: is it a member, who leads, how many there are."""
    name = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}[database]
    text = run("ovs-appctl", "-t", f"{DIR}/lab/{at}/ovn/central/{database}.ctl", "cluster/status", name, check=False).stdout
    servers = re.findall(r"^    \w+ \(\w+ at ssl:", text, re.M)
    return "Status: cluster member" in text, "Role: leader" in text, len(servers)


def whole(controllers=tuple(CONTROLLERS)):
    """Each of these is a member, and no other server is."""
    return all(members(database, at)[::2] == (True, len(controllers)) for database in ("nb", "sb") for at in controllers)


def server(name):
    return api("GET", f"/compute/v2.1/servers/{made[name]['id']}")["server"]


def boot(name, host):
    """A server on that host."""
    body = {"name": name, "imageRef": made_once["image"], "flavorRef": "nano", "key_name": "key", "availability_zone": f"nova:{host}",
            "networks": [{"uuid": made_once["private"]}]}
    made[name] = {"id": api("POST", "/compute/v2.1/servers", {"server": body})["server"]["id"]}
    wait(f"{name} is built", lambda: server(name)["status"] != "BUILD", 300)
    assert server(name)["status"] == "ACTIVE" and server(name)["OS-EXT-SRV-ATTR:host"] == host, server(name)
    port = api("GET", f"/network/v2.0/ports?device_id={made[name]['id']}")["ports"][0]
    made[name]["fixed"] = port["fixed_ips"][0]["ip_address"]


def test_a_lab_of_real_hosts():
    os.makedirs(DIR, mode=0o711, exist_ok=True)
    begun = time.time()
    lab("up", "--real", "--nodes", "2", "--prefix", PREFIX, timeout=500)
    print(f"hosts: a lab of 3 controllers and 2 real hosts is up after {time.time() - begun:.1f} s", flush=True)
    wait("OVN's databases have three members each", whole)
    wait("both hosts are up", lambda: hypervisors() == ["up", "up"])


def test_servers_on_two_hosts_reach_each_other():
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY)
    image = {"name": "tiny", "disk_format": "qcow2", "container_format": "bare"}
    made_once["image"] = api("POST", "/image/v2/images", image)["id"]
    file = ["-H", "content-type: application/octet-stream", "--data-binary", f"@{os.environ['DROVER_GUEST']}"]
    api("PUT", f"/image/v2/images/{made_once['image']}/file", None, *file)
    api("POST", "/compute/v2.1/flavors", {"flavor": {"name": "nano", "id": "nano", "ram": 192, "vcpus": 1, "disk": 1}})
    with open(f"{KEY}.pub") as f:
        api("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "key", "public_key": f.read().strip()}})
    flat = {"provider:network_type": "flat", "provider:physical_network": "public", "router:external": True}
    made_once["public"] = make("networks", "network", name="public", **flat)["id"]
    pool = {"start": "10.77.0.150", "end": "10.77.0.190"}
    make("subnets", "subnet", network_id=made_once["public"], ip_version=4, cidr="10.77.0.0/24", gateway_ip="10.77.0.200", enable_dhcp=False,
         allocation_pools=[pool])
    made_once["private"] = make("networks", "network", name="private")["id"]
    subnet = make("subnets", "subnet", network_id=made_once["private"], ip_version=4, cidr="10.9.0.0/24")["id"]
    # Without NAT, as that of Debian 12's Open vSwitch 3.1.0 in the userspace datapath ends the switch now and then (an assertion of its connection
    # tracking), and no lost packet would tell anything. The client has a route instead.
    outside = {"network_id": made_once["public"], "enable_snat": False}
    router = make("routers", "router", name="router", external_gateway_info=outside)
    api("PUT", f"/network/v2.0/routers/{router['id']}/add_router_interface", {"subnet_id": subnet})
    gateway = router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]
    client("ip", "route", "add", "10.9.0.0/24", "via", gateway)
    project = api("GET", "/identity/v3/projects?name=admin")["projects"][0]["id"]
    group = api("GET", f"/network/v2.0/security-groups?name=default&project_id={project}")["security_groups"][0]["id"]
    for protocol in ("icmp", "tcp"):
        make("security-group-rules", "security_group_rule", security_group_id=group, direction="ingress", protocol=protocol)
    boot("a", "n1")
    boot("b", "n2")
    for name in made:
        assert guest(name, "hostname") == name
    out = guest("a", f"ping -c 5 {made['b']['fixed']}")
    assert " 0% packet loss" in out, out
    ports = api("GET", f"/network/v2.0/ports?network_id={made_once['private']}")["ports"]
    ports = [p["status"] for p in ports if p["device_owner"].startswith("compute:")]
    assert ports == ["ACTIVE", "ACTIVE"], ports


def power_on(names):
    """All at once: each waits for most of the others."""
    starts = [subprocess.Popen([DROVER, "--state", DIR, "lab", "power-on", name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
              for name in names]
    for start in starts:
        _, errors = start.communicate(timeout=180)
        assert start.returncode == 0, errors


def test_guests_go_on_while_all_controllers_are_away():
    before = guests()
    assert sorted(before) == sorted(m["id"] for m in made.values())
    # From outside through the gateway, and between the hosts.
    log = f"{DIR}/ping.log"
    with open(log, "w") as f:
        pinging = subprocess.Popen(["ip", "netns", "exec", f"{PREFIX}-client", "ping", "-n", "-i", "0.2", made["a"]["fixed"]], stdout=f)
    guest("a", f"(ping {made['b']['fixed']} > /tmp/ping.log 2>&1 &)")
    for name in CONTROLLERS:
        lab("power-off", name)
    begun = time.time()
    assert call("GET", "/readyz", "-m", "2")[0] == 0, "nobody serves"
    for name in made:
        # Both are answered on the guest's own host.
        assert made[name]["id"] in guest(name, "curl -s http://169.254.169.254/openstack/latest/meta_data.json")
        assert guest(name, "udhcpc -n -q -i eth0 -s /bin/true > /dev/null 2>&1 && echo leased") == "leased"
    # An agent that starts anew knows its guests.
    lab("kill", "n2", "serve")
    wait("the agent of n2 runs again", lambda: "serve" in status()["n2"]["processes"])
    assert guests() == before
    while time.time() - begun < 20:
        assert " 0% packet loss" in guest("b", f"ping -c 3 {made['a']['fixed']}")
    power_on(CONTROLLERS)
    wait("the cloud serves", serves)
    away = time.time() - begun
    wait("OVN's databases have three members each", whole)
    wait("both hosts are up", lambda: hypervisors() == ["up", "up"])
    assert guests() == before, "no guest was started anew"
    pinging.send_signal(signal.SIGINT)
    pinging.wait(timeout=10)
    with open(log) as f:
        sent, got = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", f.read()).groups())
    inside = guest("a", "killall -INT ping; sleep 1; grep transmitted /tmp/ping.log")
    print(f"hosts: all controllers away for {away:.0f} s: {sent - got} of {sent} pings from outside lost; inside: {inside}", flush=True)
    assert sent - got == 0 and " 0% packet loss" in inside, (sent, got, inside)


def drover_on(at, *words, **options):
    return lab("exec", at, DROVER, "--state", f"{DIR}/lab/{at}", *words, **options)


def status():
    return {host["host"]: host for host in json.loads(run(DROVER, "--state", DIR, "--json", "lab", "status").stdout)}


def test_new_servers_boot_and_ports_follow_their_rows():
    boot("c", "n1")
    assert guest("c", "hostname") == "c"
    assert " 0% packet loss" in guest("c", f"ping -c 3 {made['b']['fixed']}")


def test_a_controller_that_loses_ovn_gets_it_again():
    leader = next(at for at in CONTROLLERS if members("nb", at)[1])
    lab("power-off", leader)
    shutil.rmtree(f"{DIR}/lab/{leader}/ovn")
    # The others go on without it.
    wait("the cloud serves", serves)
    api("DELETE", f"/compute/v2.1/servers/{made['c']['id']}")
    boot("d", "n2")
    assert guest("d", "hostname") == "d"
    lab("power-on", leader)
    wait("it is a member again, and the old one is none", whole)


def test_a_controller_that_is_replaced_takes_its_place_in_ovn():
    lab("power-off", "c3")
    wait("the cloud serves", serves)
    wait("c3 is missed", lambda: drover_on("c1", "controller", "remove", "c3", check=False).returncode == 0)
    wait("c3 is none of OVN's members", lambda: whole(("c1", "c2")))
    # Another machine with the old one's name and address.
    shutil.rmtree(f"{DIR}/lab/c3")
    lab("power-on", "c3")
    # Its link carries a moment later.
    wait("c3 reaches c1", lambda: lab("exec", "c3", "ping", "-c", "1", "-W", "1", "10.77.0.1", check=False).returncode == 0)
    token = drover_on("c1", "join-token", "controller").stdout.strip()
    drover_on("c3", *"server --name c3 --address 10.77.0.3 --interface eth0 --join".split(), token)
    wait("the new one is a member", whole)


def test_a_host_comes_back_after_a_power_cut():
    lab("power-off", "n2")
    lab("power-on", "n2")
    wait("both hosts are up", lambda: hypervisors() == ["up", "up"])
    # What a power cut makes of a server is for its user to say.
    wait("b is known to be off, or runs", lambda: server("b")["status"] == "SHUTOFF" or made["b"]["id"] in guests())
    if server("b")["status"] == "SHUTOFF":
        api("POST", f"/compute/v2.1/servers/{made['b']['id']}/action", {"os-start": None})
    assert guest("b", "hostname") == "b"
    assert " 0% packet loss" in guest("a", f"ping -c 3 {made['b']['fixed']}")


def test_hosts_are_left_as_they_were():
    for at in HOSTS:
        # As an operator would: guests, switch and bridges leave the host.
        drover_on(at, "down")
        assert not status()[at]["processes"], status()[at]
        links = [link["ifname"] for link in json.loads(lab("exec", at, "ip", "-j", "link").stdout)]
        assert sorted(links) == ["eth0", "eth1", "lo"], links
        assert "10.77.0.1" in lab("exec", at, "ip", "-4", "address", "show", "dev", "eth0").stdout
    # And one goes on as if nothing had been.
    drover_on("n1", "node")
    wait("n1 is up again", lambda: sorted(hypervisors()) == ["down", "up"])


def test_the_lab_is_removed():
    lab("down")
    shutil.rmtree(DIR, ignore_errors=True)
