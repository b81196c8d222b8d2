"""The lab as the chaos run sees it: who is what now, and the commands that break it. None of them mends anything."""
import asyncio
import json
import os


# The host with a disk of its own.
HAS_DISK = "c2"


class Failed(Exception):
    pass


class Lab:
    """`outside` are the words that run a command where the lab was made, seen from the client's network."""

    def __init__(self, drover, state, outside=()):
        self.drover, self.state, self.outside = drover, state, list(outside)
        self.ca = f"{state}/lab/ca.pem"
        self.vip = "10.77.0.100/24"
        # For faults that need load of their own.
        self.cloud = None

    def disk_of_its_own(self):
        """One host's state is on a file system of its own, which can be full."""
        return f"{self.state}/lab/{HAS_DISK}"

    async def on(self, host, *words, **options):
        """A command of the product on a host."""
        return await self.run("exec", host, self.drover, "--state", f"{self.state}/lab/{host}", *words, **options)

    async def begin(self, *words):
        """One that goes on."""
        argv = [*self.outside, self.drover, "--state", self.state, "lab", *words]
        return await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)

    async def run(self, *words, timeout=240):
        argv = [*self.outside, self.drover, "--state", self.state, "lab", *words]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                                                       stdin=asyncio.subprocess.DEVNULL)
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise Failed(f"drover lab {' '.join(words)} is not done after {timeout} s") from None
        if process.returncode != 0:
            raise Failed(f"drover lab {' '.join(words)} ended with {process.returncode}: {err.decode()[-2000:]}")
        return out.decode()

    async def status(self):
        return json.loads(await self.run("--json", "status"))

    async def controllers(self):
        return [host["host"] for host in await self.status() if host["api"] is not None]

    async def addresses(self):
        return {host["host"]: host["address"] for host in await self.status() if host["api"] is not None}

    async def holder(self):
        """Who has the public address."""
        for _ in range(100):
            holders = [host["host"] for host in await self.status() if host["vip"]]
            if len(holders) == 1:
                return holders[0]
            await asyncio.sleep(0.1)
        raise Failed(f"the public address is on {holders}")

    async def other(self):
        """A controller that has not the public address and does not lead etcd."""
        busy = {await self.holder(), await self.leader()}
        return next(name for name in await self.controllers() if name not in busy)

    async def leader(self):
        """Whose etcd leads."""
        for name, address in (await self.addresses()).items():
            pki = f"{self.state}/lab/{name}/pki"
            try:
                answer = await self.run("exec", name, "env", "ETCDCTL_API=3", "etcdctl", "--endpoints", f"https://{address}:2379",
                                        "--cacert", f"{pki}/ca.pem", "--cert", f"{pki}/cert.pem", "--key", f"{pki}/key.pem",
                                        "--write-out", "json", "endpoint", "status", timeout=20)
            except Failed:
                continue
            status = json.loads(answer)[0]["Status"]
            if status["leader"] == status["header"]["member_id"]:
                return name
        raise Failed("no etcd leads")

    def logs(self):
        """The logs of all hosts, by path below the lab's directory."""
        for at, _, names in os.walk(f"{self.state}/lab"):
            for name in names:
                if ".log" in name:
                    yield os.path.relpath(os.path.join(at, name), f"{self.state}/lab")
