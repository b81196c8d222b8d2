"""What goes wrong: each fault breaks something, waits, and undoes what a person or a power company would undo. Nobody repairs anything."""
import asyncio
import glob
import os
import random
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
import client
from cloud import COMPUTE, until
from cluster import Failed


@dataclass
class Fault:
    name: str
    # Breaks it and gives back what undoes it, or None where the product has to.
    strike: object
    # Seconds between the two.
    hold: float
    in_short: bool = False
    # Of one host: one of those that happen at random.
    at_random: bool = True


def kill(what, whose):
    async def strike(lab):
        await lab.run("kill", await whose(lab), what)
    return strike


def undone(command, undo, whose, *words):
    """A command of the lab on one host, undone by another."""
    async def strike(lab):
        host = await whose(lab)
        await lab.run(command, host, *words)
        return lambda: lab.run(undo, host)
    return strike


async def each(lab, *words):
    """On all controllers at once."""
    names = await lab.controllers()
    await asyncio.gather(*(lab.run(*words[:1], name, *words[1:]) for name in names))


async def all_off(lab):
    await each(lab, "power-off")
    return lambda: each(lab, "power-on")


async def all_stopped(lab):
    for name in await lab.controllers():
        await lab.on(name, "down")
    # As their init systems would, when the machines are started again.
    return lambda: each(lab, "power-on")


async def slow_disk(lab):
    """Each write of etcd that has to be on disk takes a quarter of a second more."""
    name = await lab.leader()
    script = 'exec strace -qq -f -p "$(pidof etcd)" -o /dev/null -e trace=fdatasync,fsync -e inject=fdatasync,fsync:delay_enter=250000'
    tracer = await lab.begin("exec", name, "bash", "-c", script)

    async def undo():
        await lab.run("exec", name, "bash", "-c", 'kill "$(pidof strace)"')
        await tracer.wait()
    return undo


async def full_disk(lab):
    """Not a byte is left where the host has its state."""
    filler = f"{lab.disk_of_its_own()}/filler"
    # In parts, as what is small fits where what is large does not.
    for size in ("16M", "1M", "64K", "4K"):
        for n in range(100000):
            process = await asyncio.create_subprocess_exec("fallocate", "-l", size, f"{filler}-{size}-{n}", stderr=asyncio.subprocess.DEVNULL)
            if await process.wait() != 0:
                break

    async def undo():
        for path in glob.glob(f"{filler}-*"):
            os.unlink(path)
    return undo


def clock(seconds, whose):
    """The time of day of a host's Drover jumps, and jumps back."""
    async def strike(lab):
        name = await whose(lab)
        directory = f"{lab.state}/clock-{name}"
        etc, library, ahead = f"{directory}/etc", f"{directory}/clock.so", f"{directory}/ahead"

        def jump(by):
            with open(ahead, "r+b") as f:
                f.write(by.to_bytes(8, sys.byteorder, signed=True))

        def has_clock(process):
            """Whether it runs, with the clock that can be set."""
            kept = f"{lab.state}/lab/{name}/run/drover/{process}.json"

            async def probe():
                try:
                    await lab.run("exec", name, "sh", "-c", f"grep -q {library} /proc/$(jq .pid {kept})/maps")
                except Failed:
                    return False
                return True
            return probe
        if not os.path.exists(directory):
            os.mkdir(directory, 0o711)
            with open(ahead, "wb") as f:
                f.write(bytes(8))
            source = f"{os.path.dirname(os.path.abspath(__file__))}/clock.c"
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", f'-DSET="{ahead}"', "-o", library, source], check=True)
            subprocess.run(["cp", "-a", "/etc", etc], check=True)
            with open(f"{etc}/ld.so.preload", "w") as f:
                f.write(f"{library}\n")
        await lab.run("exec", name, "mount", "--bind", etc, "/etc")
        for process in ("supervise", "serve"):
            await lab.run("kill", name, process)
            await until(f"{process} of {name} runs with the clock", has_clock(process), 30)
        await until("all serve", lab.cloud.serves, 30)
        jump(seconds)

        async def undo():
            jump(0)
            await lab.run("exec", name, "umount", "--lazy", "/etc")
        return undo
    return strike


async def replaced(lab):
    """A machine is lost with its disk, and an operator puts another in its place."""
    name = await lab.other()
    by = next(other for other in await lab.controllers() if other != name)
    await lab.run("power-off", name)

    async def undo():
        disk = f"{lab.state}/lab/{name}"
        for path in os.listdir(disk):
            whole = f"{disk}/{path}"
            shutil.rmtree(whole) if os.path.isdir(whole) else os.unlink(whole)
        address = (await lab.addresses())[name]
        await again(lambda: lab.on(by, "controller", "remove", name))
        token = (await again(lambda: lab.on(by, "join-token", "controller"))).strip()
        await lab.run("power-on", name)
        words = ["server", "--name", name, "--address", address, "--vip", lab.vip, "--interface", "eth0", "--join", token]
        await again(lambda: lab.on(name, *words))
    return undo


# Servers that are created while controllers are killed, for how long they are, and until when all must be known after that.
BOOTS, KILLS_FOR, BOOTED_WITHIN = 200, 20, 60


async def boots(lab):
    """Many servers at once, while processes of controllers are killed, one a second."""
    cloud, tag = lab.cloud, f"boot-{uuid.uuid4().hex[:8]}"
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(20)

    async def create(n):
        body = {"server": {"name": f"{tag}-{n}", "flavorRef": "chaos", "imageRef": cloud.image, "networks": [{"uuid": cloud.network}]}}
        async with slots:
            await cloud.must("POST", f"{COMPUTE}/servers", body, key=uuid.uuid4().hex)

    async def found():
        answer = await cloud.must("GET", f"{COMPUTE}/servers/detail?limit=1000&name={tag}")
        return answer["servers"]

    async def known():
        return all(server["status"] in ("ACTIVE", "ERROR") for server in await found())

    async def gone():
        return not await found()
    creating = asyncio.gather(*(create(n) for n in range(BOOTS)))
    kills, end = 0, loop.time() + KILLS_FOR
    while loop.time() < end:
        try:
            await lab.run("kill", random.choice(await lab.controllers()), random.choice(["serve", "serve", "supervise"]))
            kills += 1
        except Failed:
            pass  # It is just being started again.
        await asyncio.sleep(1)
    await creating
    took = await until(f"each of {BOOTS} servers is ACTIVE or ERROR", known, BOOTED_WITHIN)
    servers = await found()
    if sorted(server["name"] for server in servers) != sorted(f"{tag}-{n}" for n in range(BOOTS)):
        raise Failed(f"{len(servers)} servers for {BOOTS} requests")
    causeless = [server["id"] for server in servers if server["status"] == "ERROR" and not server.get("fault", {}).get("message")]
    if causeless:
        raise Failed(f"servers in ERROR without a cause: {causeless}")
    active = sum(server["status"] == "ACTIVE" for server in servers)
    print(f"chaos:   {BOOTS} boots, {kills} kills: {active} ACTIVE, {BOOTS - active} ERROR with a cause, {took:.1f} s after the last kill", flush=True)
    for server in servers:
        try:
            await cloud.must("DELETE", f"{COMPUTE}/servers/{server['id']}")
        except client.Failed as e:
            # The answer to the one before was lost.
            if ": 404 " not in str(e):
                raise
    await until("they are gone", gone, BOOTED_WITHIN)


async def again(ask):
    """As an operator would."""
    for _ in range(5):
        try:
            return await ask()
        except Failed as e:
            last = e
            await asyncio.sleep(2)
    raise last


def matrix(pause, hold):
    """All faults in their order: `pause` is how long a host stands still, `hold` how long other faults last."""
    async def holder(lab):
        return await lab.holder()

    async def leader(lab):
        return await lab.leader()

    async def other(lab):
        return await lab.other()
    return [
        Fault("kill serve (VIP)", kill("serve", holder), hold / 2, True),
        Fault("kill supervise (VIP)", kill("supervise", holder), hold / 2),
        Fault("kill etcd (leader)", kill("etcd", leader), hold / 2),
        Fault("kill haproxy (VIP)", kill("haproxy", holder), hold / 2),
        Fault("kill keepalived (VIP)", kill("keepalived", holder), hold / 2),
        Fault("power-off (VIP)", undone("power-off", "power-on", holder), hold, True),
        Fault("power-off (other)", undone("power-off", "power-on", other), hold),
        Fault("cut both ways (VIP)", undone("cut", "heal", holder), hold),
        Fault("cut in (VIP)", undone("cut", "heal", holder, "--in"), hold),
        Fault("cut out (VIP)", undone("cut", "heal", holder, "--out"), hold),
        Fault("cut both ways (leader)", undone("cut", "heal", leader), hold),
        Fault("pause (VIP)", undone("pause", "resume", holder), pause, True),
        Fault("pause serve (VIP)", undone("pause", "resume", holder, "serve"), pause),
        Fault("pause supervise (VIP)", undone("pause", "resume", holder, "supervise"), pause / 3),
        Fault("pause etcd (leader)", undone("pause", "resume", leader, "etcd"), pause),
        Fault("clock +5 min (VIP)", clock(300, holder), hold, at_random=False),
        Fault("clock -5 min (other)", clock(-300, other), hold, at_random=False),
        Fault("boots and kills", boots, 0, at_random=False),
        Fault("slow disk (leader)", slow_disk, hold, at_random=False),
        Fault("full disk", full_disk, hold, at_random=False),
        Fault("machine replaced", replaced, hold / 2, at_random=False),
        Fault("all off", all_off, hold / 2, at_random=False),
        Fault("all stopped", all_stopped, hold / 2, at_random=False),
    ]


def restarted(host, program):
    """The host goes over to another program."""
    async def strike(lab):
        drover = ["exec", host, program, "--state", f"{lab.state}/lab/{host}"]
        try:
            # A program from before this command does it in two steps, and etcd and the front door with it.
            await lab.run(*drover, "restart", "--help", timeout=20)
        except Failed:
            await lab.run(*drover, "down")
            await lab.run(*drover, "up")
        else:
            await lab.run(*drover, "restart")
        running = await lab.run("exec", host, "sh", "-c", f"readlink /proc/$(jq .pid {lab.state}/lab/{host}/run/drover/serve.json)/exe")
        assert running.strip() == program, f"{host} runs {running}"
    return strike


def upgrades(old, new, hosts, hold, short):
    """From one program to another: every controller and node, and one controller back and forth in between."""
    controllers = [host["host"] for host in hosts if host["api"] is not None]
    nodes = [host["host"] for host in hosts if host["host"].startswith("n")]
    first, second, *rest = controllers
    steps = [("upgrade", first, new), ("upgrade", second, new), ("take back", second, old), ("upgrade", second, new)]
    if short:
        steps, rest, nodes = steps[:3], [], nodes[:1]
    steps += [("upgrade", host, new) for host in [*rest, *nodes]]
    return [Fault(f"{what} {host}", restarted(host, program), hold) for what, host, program in steps]
