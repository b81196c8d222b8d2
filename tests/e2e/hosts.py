"""A lab with real hosts: guests on two of them, all controllers away for a while, one of OVN's databases lost. `tests/run hosts`."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
from lib import DROVER, STATE, alive, commands, wait

# The hosts' sockets are in it: a short name.
DIR = f"{STATE}-h"
PREFIX = f"dh{os.getpid() % 100000}"
KEY = f"{DIR}/key"
SSH = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
       "-o", "ConnectTimeout=5"]
CONTROLLERS = ["c1", "c2", "c3"]
HOSTS = ["n1", "n2"]
made = {}


def run(*argv, timeout=300, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def lab(*words, **options):
    return run(DROVER, "--state", DIR, "lab", *words, **options)


def client(*argv, **options):
    return run("ip", "netns", "exec", f"{PREFIX}-client", *argv, **options)


def osc(line, **options):
    cloud = ["env", f"OS_CLIENT_CONFIG_FILE={DIR}/lab/clouds.yaml", "OS_CLOUD=lab-admin"]
    return client(*cloud, "openstack", *line.split(), **options).stdout


def osj(line, **options):
    return json.loads(osc(f"{line} -f json", **options))


def guest(name, command, seconds=120):
    """What a command prints on a guest, by its floating address."""
    def once():
        done = client(*SSH, f"root@{made[name]['floating']}", command, check=False, timeout=60)
        return (done.stdout.strip() or "ok") if done.returncode == 0 else None
    return wait(f"{command} on {name}", once, seconds)


def guests():
    """QEMU processes of servers, by server id."""
    found = {}
    for number, argv in commands():
        match = re.search(r"servers/([0-9a-f-]{36})", " ".join(argv))
        if "qemu-system" in argv[0] and match:
            found[match.group(1)] = number
    return found


def members(database, at):
    """How a controller sees the raft of a database: is it a member, who leads, how many there are."""
    name = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}[database]
    text = run("ovs-appctl", "-t", f"{DIR}/lab/{at}/ovn/central/{database}.ctl", "cluster/status", name, check=False).stdout
    servers = re.findall(r"^    \w+ \(\w+ at ssl:", text, re.M)
    return "Status: cluster member" in text, "Role: leader" in text, len(servers)


def whole():
    return all(members(database, at)[::2] == (True, 3) for database in ("nb", "sb") for at in CONTROLLERS)


def boot(name, host, **options):
    osc(f"server create --image tiny --flavor nano --key-name key --network private --availability-zone nova:{host} --wait {name}", **options)
    server = osj(f"server show {name}")
    assert server["status"] == "ACTIVE" and server["OS-EXT-SRV-ATTR:host"] == host, server
    floating = osj("floating ip create public")["floating_ip_address"]
    osc(f"server add floating ip {name} {floating}")
    made[name] = {"id": server["id"], "fixed": server["addresses"]["private"][0], "floating": floating}


def test_a_lab_of_real_hosts():
    os.makedirs(DIR, mode=0o711, exist_ok=True)
    begun = time.time()
    lab("up", "--real", "--nodes", "2", "--prefix", PREFIX, timeout=500)
    print(f"hosts: a lab of 3 controllers and 2 real hosts is up after {time.time() - begun:.1f} s", flush=True)
    wait("OVN's databases have three members each", whole)
    wait("both hosts are up", lambda: [h["State"] for h in osj("hypervisor list")] == ["up", "up"])


def test_servers_on_two_hosts_reach_each_other():
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY)
    osc(f"image create --disk-format qcow2 --container-format bare --file {os.environ['DROVER_GUEST']} tiny")
    osc("flavor create --ram 192 --vcpus 1 --disk 1 nano")
    osc(f"keypair create --public-key {KEY}.pub key")
    osc("network create --external --provider-network-type flat --provider-physical-network public public")
    osc("subnet create --network public --subnet-range 10.77.0.0/24 --gateway 10.77.0.200 --no-dhcp "
        "--allocation-pool start=10.77.0.150,end=10.77.0.190 public")
    osc("network create private")
    osc("subnet create --network private --subnet-range 10.9.0.0/24 private")
    osc("router create --external-gateway public router")
    osc("router add subnet router private")
    group = next(g["ID"] for g in osj("security group list --project admin") if g["Name"] == "default")
    osc(f"security group rule create --protocol icmp --ingress {group}")
    osc(f"security group rule create --protocol tcp --dst-port 22 --ingress {group}")
    boot("a", "n1")
    boot("b", "n2")
    for name in made:
        assert guest(name, "hostname") == name
    out = guest("a", f"ping -c 5 {made['b']['fixed']}")
    assert " 0% packet loss" in out, out
    ports = osj("port list --device-owner compute:nova")
    assert len(ports) == 2 and {p["Status"] for p in ports} == {"ACTIVE"}, ports


def test_guests_go_on_while_all_controllers_are_away():
    before = guests()
    assert sorted(before) == sorted(m["id"] for m in made.values())
    # From outside through the gateway, and between the hosts.
    log = f"{DIR}/ping.log"
    with open(log, "w") as f:
        pinging = subprocess.Popen(["ip", "netns", "exec", f"{PREFIX}-client", "ping", "-n", "-i", "0.2", made["a"]["floating"]], stdout=f)
    guest("a", f"(ping {made['b']['fixed']} > /tmp/ping.log 2>&1 &)")
    for name in CONTROLLERS:
        lab("power-off", name)
    begun = time.time()
    assert client("curl", "-sk", "-m", "2", "https://10.77.0.100:8774/readyz", check=False).returncode != 0, "nobody serves"
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
    for name in CONTROLLERS:
        lab("power-on", name)
    wait("the cloud serves", lambda: client("curl", "-sk", "-m", "2", "https://10.77.0.100:8774/readyz", check=False).stdout)
    away = time.time() - begun
    wait("OVN's databases have three members each", whole)
    wait("both hosts are up", lambda: [h["State"] for h in osj("hypervisor list")] == ["up", "up"])
    assert guests() == before, "no guest was started anew"
    pinging.send_signal(signal.SIGINT)
    pinging.wait(timeout=10)
    with open(log) as f:
        sent, got = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", f.read()).groups())
    inside = guest("a", "killall -INT ping; sleep 1; grep transmitted /tmp/ping.log")
    print(f"hosts: all controllers away for {away:.0f} s: {sent - got} of {sent} pings from outside lost; inside: {inside}", flush=True)
    assert sent - got == 0 and " 0% packet loss" in inside, (sent, got, inside)


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
    osc("server delete --wait c")
    boot("d", "n2")
    assert guest("d", "hostname") == "d"
    lab("power-on", leader)
    wait("it is a member again, and the old one is none", whole)


def test_a_host_comes_back_after_a_power_cut():
    lab("power-off", "n2")
    lab("power-on", "n2")
    wait("b runs again", lambda: osj("server show b")["status"] in ("ACTIVE", "SHUTOFF"))
    if osj("server show b")["status"] == "SHUTOFF":
        osc("server start b")
    assert guest("b", "hostname", 180) == "b"
    assert " 0% packet loss" in guest("a", f"ping -c 3 {made['b']['fixed']}")


def test_the_lab_is_removed():
    for at in HOSTS:
        # As an operator would: guests, switch and bridges leave the host.
        lab("exec", at, DROVER, "--state", f"{DIR}/lab/{at}", "down")
        assert not status()[at]["processes"], status()[at]
        links = [link["ifname"] for link in json.loads(lab("exec", at, "ip", "-j", "link").stdout)]
        assert sorted(links) == ["eth0", "eth1", "lo"], links
        assert "10.77.0.1" in lab("exec", at, "ip", "-4", "address", "show", "dev", "eth0").stdout
    lab("down")
    shutil.rmtree(DIR, ignore_errors=True)
