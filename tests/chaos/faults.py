"""What goes wrong: each fault breaks something, waits, and undoes what a person or a power company would undo. Nobody repairs anything."""
import asyncio
from dataclasses import dataclass


@dataclass
class Fault:
    name: str
    # Breaks it and gives back what undoes it, or None where the product has to.
    strike: object
    # Seconds between the two.
    hold: float
    in_short: bool = False


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
        await lab.run("exec", name, lab.drover, "--state", f"{lab.state}/lab/{name}", "down")
    # As their init systems would, when the machines are started again.
    return lambda: each(lab, "power-on")


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
        Fault("pause etcd (leader)", undone("pause", "resume", leader, "etcd"), pause),
        Fault("all off", all_off, hold / 2),
        Fault("all stopped", all_stopped, hold / 2),
    ]
