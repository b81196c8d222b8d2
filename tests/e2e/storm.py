"""Servers come and go all at once while processes are killed at random times.

`DROVER_STORM=SERVERSxROUNDS` sets the size, `DROVER_STORM_SEED` repeats the choices of a run. After the last kill of a wave every
server is ACTIVE, or in ERROR with a cause, within a minute; after that of the deletes all are gone; nothing is left in the end.
"""
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from lib import STATE, alive, difference, everything, pid, ready, running, wait
from rest import call, get, tiny, token

SETTLE = 60
SERVERS, ROUNDS = (int(n) for n in os.environ.get("DROVER_STORM", "6x2").split("x"))
SEED = int(os.environ.get("DROVER_STORM_SEED") or random.randrange(1 << 32))
COMPUTE = "/compute/v2.1/servers"
# How often each is chosen, of 20.
VICTIMS = ["serve"] * 9 + ["supervise"] * 6 + ["controller"] * 2 + ["guest"] * 3


class Killer:
    """Kills one process after the other, at random times, until a wave ends."""

    def __init__(self, dice):
        self.dice = dice
        self.kills = {name: 0 for name in sorted(set(VICTIMS))}
        self.killed_guests = set()
        self.last = 0.0

    def wave(self, work):
        """Does `work` while a random number of kills falls into its first seconds; gives back what `work` gave."""
        # Requests are answered in the first instants; what they caused takes seconds.
        self.last = time.time()
        times = sorted(self.dice.choice((0.4, 5)) * self.dice.random() for _ in range(self.dice.randint(1, 4)))
        thread = threading.Thread(target=self.strike, args=(times,))
        thread.start()
        try:
            return work()
        finally:
            thread.join()

    def strike(self, times):
        begin = time.time()
        for at in times:
            time.sleep(max(0.0, begin + at - time.time()))
            getattr(self, "end_guest" if (who := self.dice.choice(VICTIMS)) == "guest" else "end_daemon")(who)

    def end_daemon(self, who):
        if who in ("serve", "supervise"):
            # The two start each other again; both at once is what an init system is for.
            partner = {"serve": "supervise", "supervise": "serve"}[who]
            wait(f"{partner} for the next kill", lambda: alive(pid(partner)), 30)
            number = wait(f"{who} for the next kill", lambda: alive(pid(who)) and pid(who), 30)
        else:
            with open(f"{STATE}/ovn/chassis/{who}.json") as f:
                number = json.load(f)["pid"]
        self.end(who, number)

    def end_guest(self, who):
        mine = sorted(running().items())
        mine = [(server, number) for server, number in mine if server != DEMO]
        if mine:
            server, number = self.dice.choice(mine)
            self.killed_guests.add(server)
            self.end(who, number)

    def end(self, who, number):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills[who] += 1
        # A process takes some time to die, and the next choice must see that it has.
        wait(f"the end of {who}", lambda: not alive(number), 10)
        self.last = time.time()


DEMO = None


def persist(request, t, until):
    """Asks again while the cloud does not answer. Gives the status and content; no answer may be a 5xx but 503."""
    while True:
        try:
            status, _, body = request()
        except OSError:
            status, body = 0, "no answer"
        assert status < 500 or status == 503, f"{status}: {body}"
        if status not in (0, 503):
            return status, body
        assert time.time() < until, f"no answer in time; last was {status} {body}"
        time.sleep(0.1)


def servers(t, prefix):
    listed = get(f"{COMPUTE}/detail", t)["servers"]
    return {s["id"]: s for s in listed if s["name"].startswith(prefix)}


def create(t, names, body):
    """All at once; gives the id that each name has, and how many answers were lost. A create whose answer was lost died with its
    process or was done by it, so a look tells whether to ask again."""
    lost = []

    def one(name):
        until = time.time() + 45
        while True:
            try:
                status, _, made = call("POST", COMPUTE, t, {"server": {"name": name, **body}})
                assert status in (202, 503), f"{status}: {made}"
                if status == 202:
                    return made["server"]["id"]
            except OSError as e:
                made = str(e)
                if not isinstance(getattr(e, "reason", e), ConnectionRefusedError):
                    lost.append(name)
                    wait("the servers", lambda: servers(t, name) is not None, 45)
                    if found := [i for i, s in servers(t, name).items() if s["name"] == name]:
                        return found[0]
            assert time.time() < until, made
            time.sleep(0.1)
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(one, names))), len(lost)


def delete(t, ids):
    def one(server):
        status, body = persist(lambda: call("DELETE", f"{COMPUTE}/{server}", t), t, time.time() + 30)
        assert status in (204, 404), f"{status}: {body}"
    with ThreadPoolExecutor(max(1, len(ids))) as pool:
        list(pool.map(one, ids))


def settled(found, killer):
    open_ = {}
    for server, s in found.items():
        status, cause = s["status"], s.get("fault", {}).get("message")
        fine = status == "ACTIVE" or (status == "ERROR" and cause) or (status == "SHUTOFF" and server in killer.killed_guests)
        if not fine or s["OS-EXT-STS:task_state"]:
            open_[server] = (status, s["OS-EXT-STS:task_state"], cause)
    return open_


def until_settled(what, killer, probe):
    """Waits until nothing is open, and tells how long it took since the last kill."""
    open_ = None

    def done():
        nonlocal open_
        open_ = probe()
        return not open_
    try:
        wait(what, done, killer.last + SETTLE - time.time())
    except AssertionError as e:
        raise AssertionError(f"{e}; open: {open_}") from None
    return time.time() - killer.last


def lift_quotas():
    admin = token("admin")
    project = next(p["id"] for p in get("/identity/v3/projects", admin)["projects"] if p["name"] == "demo")
    quota = {"instances": SERVERS + 10, "cores": SERVERS + 10, "ram": 256 * (SERVERS + 10)}
    assert call("PUT", f"/compute/v2.1/os-quota-sets/{project}", admin, {"quota_set": quota})[0] == 200
    assert call("PUT", f"/network/v2.0/quotas/{project}", admin, {"quota": {"port": 2 * SERVERS + 50}})[0] == 200


def allocations(admin):
    """Who holds what of every provider, besides the server `demo`."""
    held = {}
    for provider in get("/placement/resource_providers", admin)["resource_providers"]:
        held.update(get(f"/placement/resource_providers/{provider['uuid']}/allocations", admin)["allocations"])
    held.pop(DEMO, None)
    return held


def usage(t):
    limits = get("/compute/v2.1/limits", t)["limits"]["absolute"]
    return {name: limits[name] for name in ("totalInstancesUsed", "totalCoresUsed", "totalRAMUsed")}


def test_servers_created_and_deleted_under_kills_end_well_and_leave_nothing():
    global DEMO
    print(f"storm: {SERVERS} servers, {ROUNDS} rounds, DROVER_STORM_SEED={SEED}", flush=True)
    lift_quotas()
    t = token()
    body, killer = tiny(t), Killer(random.Random(SEED))
    DEMO = next(s["id"] for s in get(COMPUTE, t)["servers"] if s["name"] == "demo")
    before, used = everything(), usage(t)
    slowest, states, lost = 0.0, {}, 0
    for round_ in range(ROUNDS):
        prefix = f"storm-{round_}-"
        killer.killed_guests.clear()
        made, unanswered = killer.wave(lambda: create(t, [f"{prefix}{i}" for i in range(SERVERS)], body))
        took = until_settled("servers ACTIVE or ERROR", killer, lambda: settled(servers(t, prefix), killer))
        found = servers(t, prefix)
        assert sorted(made.values()) == sorted(found), f"acknowledged {made}, there are {list(found)}"
        lost += unanswered
        for s in found.values():
            state = s["status"] if s["status"] != "ERROR" else f"ERROR ({s['fault']['message']})"
            states[state] = states.get(state, 0) + 1
        killer.wave(lambda: delete(t, list(found)))
        gone = until_settled("deletes", killer, lambda: {i: s["status"] for i, s in servers(t, prefix).items()})
        slowest = max(slowest, took, gone)
        print(f"storm: round {round_ + 1}: {len(found)} servers settled {took:.1f} s, were gone {gone:.1f} s after the last kill; "
              f"kills {sum(killer.kills.values())}", flush=True)
    wait("the cloud", ready, 30)

    def clean():
        left = difference(before, everything())
        assert not left, left
        return True
    wait("a host as before", clean, 90)
    held, now = allocations(token("admin")), usage(t)
    assert not held, f"allocations are left: {held}"
    assert now == used, f"quota usage was {used}, is {now}"
    print(f"storm: {ROUNDS} rounds of {SERVERS}, {sum(killer.kills.values())} kills {killer.kills}, longest time to settle "
          f"{slowest:.1f} s, answers lost {lost}, states {states}, leaks 0", flush=True)
