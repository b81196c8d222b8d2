#!/usr/bin/env python3
"""Breaks a lab in every way it knows, under load, and prints a table of what clients noticed. `make chaos`; `--short` for one minute.

The answer is 0 if nothing was wrong: no acknowledged write lost, nothing done twice, histories linearizable, and everything serving
again after each fault without a command. Figures are printed and never judged. As root; `DROVER_BIN` is the program.

  DROVER_CHAOS_RATE    requests a second (200; less if the machine cannot do it without faults)
  DROVER_CHAOS_HOLD    seconds that a fault lasts (20), of some faults half of it
  DROVER_CHAOS_PAUSE   seconds that a host stands still (60)
  DROVER_CHAOS_CALM    seconds without a fault, to compare with (20; 120 with --random, until there are as many things as there will be)
  DROVER_CHAOS_USES    requests for each connection (10; 1 asks much of this machine)
  DROVER_CHAOS_SEED    of the order of requests
  DROVER_CHAOS_MINUTES how long faults come at random, one every 20 seconds (30), with --random
  DROVER_CHAOS_FAULTS  only faults whose names contain one of these, between commas
  DROVER_CHAOS_KEEP    a directory for the logs of the hosts, if something was wrong
  DROVER_UPGRADE_TO    another program: instead of faults, hosts go over to it one by one (upgrade.py)
"""
import argparse
import asyncio
import bisect
import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
import cluster
from audit import audit
from client import Failed
from cloud import Cloud
from cluster import Lab
from faults import matrix, upgrades
from load import Load
from registers import Registers

# Of the host with a disk of its own; etcd alone keeps 128 MiB of log.
DISK = "1G"
# Until everything serves after the last of a fault; far more than it should take.
SERVES_WITHIN = 120
# How long nothing may fail for it to serve.
QUIET = 3.0
# Faults at random: one begins every so many seconds, and lasts so many.
EVERY, LASTS = 20.0, 10.0


def number(name, default):
    return float(os.environ.get(f"DROVER_CHAOS_{name}") or default)


def tell(text):
    print(f"chaos: {text}", flush=True)


@dataclass
class Row:
    name: str
    requests: int
    failed: int
    failed_twice: int
    read_outage: float
    write_outage: float
    p50: float
    p99: float
    serves: float
    lost: int = 0
    twice: int = 0
    ghosts: str = "0/0"
    linearizable: bool = True
    human: bool = False

    COLUMNS = ["fault", "requests", "failed", "after repeat", "read outage", "write outage", "p50", "p99", "serves after", "lost", "twice",
               "ghosts", "linearizable", "human"]

    def cells(self):
        seconds = [f"{value:.2f} s" for value in (self.read_outage, self.write_outage)]
        return [self.name, str(self.requests), str(self.failed), str(self.failed_twice), *seconds, f"{self.p50 * 1000:.0f} ms",
                f"{self.p99 * 1000:.0f} ms", f"{self.serves:.1f} s", str(self.lost), str(self.twice), self.ghosts,
                "yes" if self.linearizable else "NO", "YES" if self.human else "no"]


def table(cells):
    """The first line is that of the names."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def figures(name, samples, begin, end, serves):
    mine = [sample for sample in samples if begin <= sample.begin < end]

    def outage(read):
        good = sorted(s.end for s in samples if s.ok and s.read == read and begin <= s.end <= end)
        return max(b - a for a, b in zip([begin, *good], [*good, end]))
    took = sorted(sample.seconds for sample in mine if sample.first) or [0.0]
    return Row(name, len(mine), sum(not s.first for s in mine), sum(not s.ok for s in mine), outage(True), outage(False),
               took[len(took) // 2], took[int(len(took) * 0.99)], serves)


def slow(struck, end, samples, limit):
    """How many requests took longer than `limit` (s) at their first try, by the fault before them."""
    begins = [begin for begin, _ in struck]
    share = {name: [times, 0, 0, 0] for name, times in Counter(name for _, name in struck).items()}
    for sample in samples:
        if begins[0] <= sample.begin < end:
            of = share[struck[bisect.bisect(begins, sample.begin) - 1][1]]
            of[1] += 1
            of[2 if sample.read else 3] += sample.seconds > limit
    rows = [[name, str(times), f"{reads / times:.0f}", f"{writes / times:.0f}", f"{100 * (reads + writes) / of:.2f} %"]
            for name, (times, of, reads, writes) in sorted(share.items(), key=lambda item: -(item[1][2] + item[1][3]) / item[1][1])]
    return [["fault", "times", f"reads over {limit * 1000:.0f} ms each", "writes", "of all"], *rows]


class Run:
    def __init__(self, lab, cloud, load, registers):
        self.lab, self.cloud, self.load, self.registers = lab, cloud, load, registers
        self.rows, self.wrong, self.earlier = [], [], set()
        self.reported = 0

    def problem(self, fault, what, these):
        """Each is reported with the fault after which it was seen first. How many are new."""
        new = [one for one in dict.fromkeys(map(str, these)) if one not in self.earlier]
        self.earlier.update(new)
        for one in new[:5]:
            tell(f"WRONG after {fault}: {what}: {one}")
        self.wrong += [f"{fault}: {what}: {one}" for one in new]
        return len(new)

    async def calm(self, seconds):
        """Without a fault; slower if the machine cannot do it."""
        while True:
            # The first connections are no calm.
            await asyncio.sleep(QUIET)
            begin = self.now()
            await asyncio.sleep(seconds)
            row = figures("calm", self.load.samples, begin, self.now(), 0.0)
            # More are open than come in a second, or the generator itself cannot keep up.
            busy = len(self.load.tasks) > self.load.rate or row.p50 > 0.25 or row.requests < 0.9 * self.load.rate * seconds
            if not busy or self.load.rate <= 20:
                break
            await self.load.stop()
            self.load.rate = round(self.load.rate / 2)
            self.load.start()
            tell(f"too much for this machine (p50 {row.p50 * 1000:.0f} ms); {self.load.rate:.0f} requests/s from now on")
        tell(f"{self.load.rate:.0f} requests/s")
        await self.pause()
        await self.check(row)

    async def fault(self, fault):
        tell(f"{fault.name} …")
        begin = self.now()
        human = False
        try:
            undo = await fault.strike(self.lab)
            struck = self.now()
            await asyncio.sleep(fault.hold)
            healed = self.now()
            if undo:
                await undo()
            tell(f"  struck within {struck - begin:.1f} s, for {fault.hold:.0f} s, undone within {self.now() - healed:.1f} s")
            serves = await self.serves(healed)
        except (Failed, cluster.Failed) as e:
            self.problem(fault.name, "it does not serve again by itself", [e])
            human, serves = True, SERVES_WITHIN
        end = self.now()
        await self.pause()
        # Now those are known, too, that waited for their answers.
        row = figures(fault.name, self.load.samples, begin, end, serves)
        row.human = human
        self.causes(begin)
        await self.check(row)

    async def random(self, faults, seconds, dice):
        """One after the other at random, while the load goes on."""
        begin, struck = self.now(), []
        calm = self.rows[0]
        while (left := begin + seconds - self.now()) > 0:
            fault, due = dice.choice(faults), self.now() + EVERY
            tell(f"{left:.0f} s left; {fault.name}; {sum(not s.ok for s in self.load.samples)} of {len(self.load.samples)} failed after one repeat")
            struck.append((self.now(), fault.name))
            undo = await fault.strike(self.lab)
            await asyncio.sleep(LASTS)
            if undo:
                await undo()
            await asyncio.sleep(max(0.0, due - self.now()))
        serves = await self.serves(self.now())
        end = self.now()
        await self.pause()
        row = figures("at random", self.load.samples, begin, end, serves)
        self.causes(begin)
        await self.check(row)
        tell(f"{100 * (1 - row.failed_twice / row.requests):.4f} % of {row.requests} requests had their answer with at most one repeat; "
             f"p99 {row.p99 * 1000:.0f} ms, {row.p99 / calm.p99:.2f} times that without faults")
        print(table(slow(struck, end, self.load.samples, 2 * calm.p99)), flush=True)

    async def serves(self, since):
        """Waits until each controller is ready and nothing fails; gives the time from `since` to when that began."""
        until = self.now() + SERVES_WITHIN
        while True:
            if self.now() > until:
                raise Failed(f"not everything serves {SERVES_WITHIN} s after", False)
            await asyncio.sleep(0.2)
            recent = [s for s in self.load.samples[-5000:] if s.end > self.now() - QUIET]
            kinds = {(s.read, s.what.split()[0]) for s in recent if s.ok}
            if all(s.first for s in recent) and {"create", "update", "delete"} <= {what for _, what in kinds}:
                began = self.now()
                if await self.cloud.serves():
                    return max(0.0, began - QUIET - since)

    def causes(self, since):
        # What failed twice is what a user notices.
        for (what, attempt, cause), times in sorted(self.load.causes.items(), key=lambda item: (-item[0][1], -len(item[1])))[:8]:
            if fresh := [t for t in times if t >= since]:
                tell(f"  {len(fresh):5} × {what}, try {attempt + 1}: {cause}; {min(fresh) - since:.1f} to {max(fresh) - since:.1f} s")
        self.load.causes.clear()

    async def pause(self):
        self.registers.goes.clear()
        await self.load.stop()

    async def check(self, row):
        """While there is no load, all that was acknowledged is read back."""
        begin = self.now()
        try:
            found = await audit(self.cloud, self.load)
            row.lost = self.problem(row.name, "lost", found.lost)
            row.twice = self.problem(row.name, "twice", found.twice)
            for what, by in {**found.lost, **found.twice}.items():
                tell(f"  {what}: as seen at {', '.join(by)}")
            row.ghosts = f"{found.ghosts}/{found.failed}"
            self.problem(row.name, "books", found.books)
            checked = found.checked
        except Failed as e:
            self.problem(row.name, "nothing can be read", [e])
            row.human, checked = True, 0
        row.linearizable = not self.problem(row.name, "not linearizable", self.registers.violations())
        wrong = self.load.wrong[self.reported:] + self.registers.wrong
        self.reported = len(self.load.wrong)
        self.registers.wrong = []
        self.problem(row.name, "answer", wrong)
        self.rows.append(row)
        tell(f"  failed {row.failed} of {row.requests}, after one repeat {row.failed_twice}; no read for {row.read_outage:.2f} s, no write for "
             f"{row.write_outage:.2f} s; serves after {row.serves:.1f} s; {checked} reads of what was acknowledged, "
             f"{self.registers.size()} operations on registers; audit {self.now() - begin:.1f} s")
        self.load.start()
        self.registers.goes.set()

    @staticmethod
    def now():
        return asyncio.get_running_loop().time()


async def inside(options):
    """In the network of the client."""
    lab = Lab(options.drover, options.state, ["nsenter", f"--net=/proc/{options.outside}/ns/net"])
    cloud = Cloud(options.state, await lab.addresses(), int(number("USES", 10)))
    await cloud.prepare()
    lab.cloud = cloud
    short = options.short
    seed = int(number("SEED", time.time_ns() % 1000000))
    load = Load(cloud, number("RATE", 50 if short else 200), seed)
    registers = Registers(cloud, 2 if short else 3, seed)
    await registers.start()
    hold = number("HOLD", 6 if short else 20)
    if new := os.environ.get("DROVER_UPGRADE_TO"):
        faults = upgrades(options.drover, new, await lab.status(), hold / 4, short)
    else:
        faults = [fault for fault in matrix(number("PAUSE", 6 if short else 60), hold) if fault.in_short or not short]
    if only := os.environ.get("DROVER_CHAOS_FAULTS"):
        faults = [fault for fault in faults if any(word in fault.name for word in only.split(","))]
    run = Run(lab, cloud, load, registers)
    tell(f"{len(faults)} faults, DROVER_CHAOS_SEED={seed}")
    load.start()
    registers.goes.set()
    try:
        await run.calm(number("CALM", 5 if short else 120 if options.random else 20))
        if options.random:
            at_random = [fault for fault in faults if fault.at_random]
            await run.random(at_random, 60 * number("MINUTES", 30), random.Random(seed))
            faults = []
        for fault in faults:
            await run.fault(fault)
            if run.rows[-1].human:
                tell("a human is needed; the faults after this one would say nothing")
                break
    finally:
        await load.stop()
        await registers.stop()
        cloud.close()
    print(table([Row.COLUMNS, *(row.cells() for row in run.rows)]), flush=True)
    tell(f"{len(load.samples)} requests, {load.replayed} answers replayed for their keys, {registers.size()} operations on registers; "
         f"{len(run.wrong)} wrong")
    return 1 if run.wrong else 0


def own_disk(image, at):
    """A small file system in a file."""
    os.makedirs(at)
    os.chmod(at, 0o711)
    subprocess.run(["truncate", "--size", DISK, image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    os.rmdir(f"{at}/lost+found")
    os.chmod(at, 0o711)


def outside(options):
    """Makes the lab and removes it, whatever happens between."""
    directory = tempfile.mkdtemp(prefix="drover-chaos.")
    # The services of hosts run as users of their own.
    os.chmod(directory, 0o711)
    state, prefix = f"{directory}/state", f"chaos{os.getpid()}"
    os.mkdir(state, 0o711)
    # Hosts see the directory as it is here, and processes are known by their program's name.
    lab = [options.drover, "--state", state, "lab"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = 1
    child = None
    disk = f"{state}/lab/{cluster.HAS_DISK}"
    try:
        own_disk(f"{directory}/disk", disk)
        subprocess.run([*lab, "up", "--prefix", prefix], check=True)
        argv = [sys.executable, *sys.argv, "--state", state, "--drover", options.drover, "--outside", str(os.getpid())]
        child = subprocess.Popen(["nsenter", f"--net=/run/netns/{prefix}-client", *argv])
        code = child.wait()
    finally:
        if child and child.poll() is None:
            child.terminate()
            child.wait()
        keep = os.environ.get("DROVER_CHAOS_KEEP")
        if code and keep:
            for name in Lab(options.drover, state).logs():
                os.makedirs(os.path.dirname(f"{keep}/{name}"), exist_ok=True)
                shutil.copy(f"{state}/lab/{name}", f"{keep}/{name}")
        # What still runs has it until it ends.
        subprocess.run(["umount", "--lazy", disk], check=True)
        subprocess.run([*lab, "down"], check=True)
        shutil.rmtree(directory)
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="three faults, a minute")
    parser.add_argument("--random", action="store_true", help="half an hour of faults at random instead of one after the other")
    for name in ("--state", "--outside"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--drover", default=os.environ.get("DROVER_BIN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.drover:
        parser.error("set DROVER_BIN to the program, or use: make chaos")
    if not options.outside:
        options.drover = os.path.abspath(options.drover)
        return outside(options)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    return asyncio.run(inside(options))


if __name__ == "__main__":
    sys.exit(main())
