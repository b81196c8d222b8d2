"""Three controllers that run their own etcd, each on a host of its own: joined, powered off, brought back, replaced. `tests/run server`."""
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import lib
from lib import DROVER, STATE, alive, wait

DIR = f"{STATE}-server"
# Names of namespaces and links are the machine's: each run has its own.
TAG = f"ds{os.getpid() % 100000}"
BRIDGE = f"{TAG}br"
ADDRESS = {"c1": "10.77.0.1", "c2": "10.77.0.2", "c3": "10.77.0.3", "c4": "10.77.0.4"}
FIRST = ["c1", "c2", "c3"]


def host(name):
    return f"{TAG}-{name}"


def run(*argv, timeout=300, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def drover(name, *args, check=True, timeout=300):
    return run("ip", "netns", "exec", host(name), DROVER, "--state", f"{DIR}/{name}", *args, check=check, timeout=timeout)


def plug(name):
    run("ip", "netns", "add", host(name))
    run("ip", "link", "add", f"{TAG}{name}", "type", "veth", "peer", "name", "eth0", "netns", host(name))
    run("ip", "link", "set", f"{TAG}{name}", "master", BRIDGE, "up")
    for line in (f"addr add {ADDRESS[name]}/24 dev eth0", "link set eth0 up", "link set lo up"):
        run("ip", "-n", host(name), *line.split())


def processes(name):
    """All processes of a host."""
    return [int(p) for p in run("ip", "netns", "pids", host(name)).stdout.split() if alive(int(p))]


def power_off(name):
    """The link and all processes at once."""
    run("ip", "link", "set", f"{TAG}{name}", "down")
    ends = time.time() + 20
    while numbers := processes(name):
        for number in numbers:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert time.time() < ends, f"processes of {name} come back"


def power_on(name):
    run("ip", "link", "set", f"{TAG}{name}", "up")
    drover(name, "up")


def trust():
    return ssl.create_default_context(cafile=f"{DIR}/c1/pki/ca.pem")


def base(name):
    """The bridge has an address, so all hosts are reached from here."""
    return f"https://{ADDRESS[name]}:8776"


def call(name, method, path, body=None, token=None):
    return lib.call(base(name), method, path, body, token, context=trust())


def login(name):
    return lib.admin_token(base(name), f"{DIR}/{name}", trust())


written = []


def write(name):
    """A row through one controller; it is looked for to the end."""
    token = login(name)
    flavor = f"through-{name}-{len(written)}"
    body = {"flavor": {"name": flavor, "ram": 64, "vcpus": 1, "disk": 1}}

    def once():
        status, _, answer = call(name, "POST", "/compute/v2.1/flavors", body, token)
        return status in (200, 409) and flavor
    written.append(wait(f"a write through {name}", once, 20))


def check(name):
    answer = call(name, "GET", "/compute/v2.1/flavors", token=login(name))[2]
    lost = set(written) - {f["name"] for f in answer["flavors"]}
    assert not lost, f"{lost} are lost at {name}"


def controllers(at):
    status, _, answer = call(at, "GET", "/operator/v1/controllers", token=login(at))
    assert status == 200, answer
    return {c["name"]: (c["state"], c["store"]) for c in answer["controllers"]}


def join(name, by="c1", check=True):
    token = drover(by, "join-token", "controller").stdout.strip()
    argv = ["server", "--name", name, "--address", ADDRESS[name], "--simulate", "2", "--join", token]
    return drover(name, *argv, check=check), token


def test_the_first_one_begins_a_cluster():
    os.makedirs(DIR, mode=0o711)
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", "10.77.0.254/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for name in ADDRESS:
        plug(name)
    drover("c1", "server", "--name", "c1", "--address", ADDRESS["c1"], "--simulate", "2")
    with open(f"{DIR}/c1/clouds.yaml") as f:
        text = f.read()
    assert f"https://{ADDRESS['c1']}:8774" in text and f"cacert: {DIR}/c1/pki/ca.pem" in text, text
    assert os.stat(f"{DIR}/c1/pki/ca.key").st_mode & 0o077 == 0 and os.stat(f"{DIR}/c1/pki/key.pem").st_mode & 0o077 == 0
    write("c1")
    plain = run("curl", "-s", "-m", "5", f"http://{ADDRESS['c1']}:8776/livez", check=False)
    assert "ok" not in plain.stdout, "there is no answer without TLS"
    stranger = run("curl", "-s", "-m", "5", f"https://{ADDRESS['c1']}:2379/version", "--cacert", f"{DIR}/c1/pki/ca.pem", check=False)
    assert stranger.returncode != 0, "etcd speaks with those alone who have a certificate"


used_up = []


def test_two_more_join():
    for name in FIRST[1:]:
        used_up.append(join(name)[1])
    all_in = {name: ("up", "voter") for name in FIRST}
    for name in FIRST:
        wait(f"{name} sees all", lambda: controllers(name) == all_in)
        write(name)
    for name in FIRST:
        check(name)
    members = [f"{ADDRESS[name]}:2379" for name in FIRST]

    def knows():
        with open(f"{DIR}/c1/config.json") as f:
            store = json.load(f)["store"]
        return all(m in store for m in members)
    wait("c1 knows the others' etcd for its next start", knows, 20)


def test_tokens_are_good_once_and_for_one_role():
    refused, token = join("c2", check=False)
    assert refused.returncode == 1 and "already" in refused.stderr, refused
    secret = token.split("@")[0].rsplit(".")[2]
    forged = token.replace(secret, ("1" if secret[0] == "0" else "0") + secret[1:])
    node = drover("c1", "join-token", "node").stdout.strip()
    short = drover("c1", "join-token", "controller", "--ttl", "1").stdout.strip()
    wait("the short one has expired", lambda: "expired" in drover("c3", "join-token", "list").stdout)
    for what, bad in (("used", used_up[0]), ("forged", forged), ("a node's", node), ("expired", short)):
        refused = drover("c4", "server", "--name", "c4", "--address", ADDRESS["c4"], "--join", bad, check=False)
        assert refused.returncode == 1 and "not valid" in refused.stderr, (what, refused)
    # One of another cluster is not even told the secret.
    other = token.replace(token[8:72], "0" * 64)
    refused = drover("c4", "server", "--name", "c4", "--address", ADDRESS["c4"], "--join", other, check=False)
    assert refused.returncode == 1 and "another one" in refused.stderr, refused
    listed = drover("c3", "join-token", "list").stdout
    assert "used" in listed and token.split("@")[0].split(".")[2] not in listed
    shutil.rmtree(f"{DIR}/c4")


def etcd(name):
    with open(f"{DIR}/{name}/run/etcd/etcd-{name}.json") as f:
        return json.load(f)["pid"]


def test_an_etcd_that_dies_comes_back_and_is_not_missed():
    for name in FIRST:
        before = etcd(name)
        os.kill(before, signal.SIGKILL)
        write(name)
        wait(f"the etcd of {name} runs again", lambda: etcd(name) != before and alive(etcd(name)), 20)
    for name in FIRST:
        check(name)


def test_one_is_powered_off_and_returns():
    power_off("c2")
    for name in ("c1", "c3"):
        write(name)
    wait("c2 is missed", lambda: controllers("c1").get("c2") == ("down", "voter"), 20)
    power_on("c2")
    wait("c2 is back", lambda: controllers("c3") == {name: ("up", "voter") for name in FIRST})
    check("c2")
    write("c2")


def test_one_that_does_not_return_is_replaced():
    alive_yet = drover("c1", "controller", "remove", "c3", check=False)
    assert alive_yet.returncode == 1 and "drover down" in alive_yet.stderr, alive_yet
    power_off("c3")
    wait("c3 is missed", lambda: controllers("c1").get("c3") == ("down", "voter"), 20)
    write("c1")
    drover("c1", "controller", "remove", "c3")
    assert "c3" not in controllers("c2")
    join("c4", by="c2")
    now = ["c1", "c2", "c4"]
    wait("c4 is one of them", lambda: controllers("c4") == {name: ("up", "voter") for name in now})
    for name in now:
        write(name)
        check(name)
    # The old one with its old data is no member, and a new machine may have its name and address.
    shutil.rmtree(f"{DIR}/c3")
    run("ip", "link", "set", f"{TAG}c3", "up")
    join("c3", by="c4")
    wait("c3 is new", lambda: controllers("c3").get("c3") == ("up", "voter"))
    check("c3")


def test_all_at_once_off_and_on_again():
    for name in ADDRESS:
        power_off(name)
    begun = time.time()
    for name in ADDRESS:
        run("ip", "link", "set", f"{TAG}{name}", "up")
    starts = [subprocess.Popen(["ip", "netns", "exec", host(name), DROVER, "--state", f"{DIR}/{name}", "up"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for name in ADDRESS]
    for start in starts:
        _, errors = start.communicate(timeout=120)
        assert start.returncode == 0, errors
    took = time.time() - begun
    for name in ADDRESS:
        check(name)
    write("c4")
    print(f"server: {len(written)} writes through 4 controllers, none lost; all off and on again serve after {took:.1f} s", flush=True)
    assert took < 30, took


def test_one_that_is_removed_gives_its_seat_back():
    gone = drover("c4", "down", "--destroy")
    assert "still count on" not in gone.stderr and not os.path.exists(f"{DIR}/c4"), gone
    assert "c4" not in controllers("c1")
    write("c1")


def test_the_hosts_are_removed():
    try:
        for name in ADDRESS:
            drover(name, "down")
            assert not processes(name), "nothing is left of it"
    finally:
        remove()


def remove():
    for name in ADDRESS:
        if os.path.exists(f"/run/netns/{host(name)}"):
            power_off(name)
            run("ip", "netns", "del", host(name))
    run("ip", "link", "del", BRIDGE, check=False)
    shutil.rmtree(DIR, ignore_errors=True)
