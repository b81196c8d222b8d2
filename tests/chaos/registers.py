"""Clients that write and read a few registers, and what each saw: the descriptions of projects, through the door and past it.

Writers go through the door, one request for each write and none repeated: a write that is carried out twice is no register's. So these
carry no key, which would let the door repeat them. Readers ask the controllers one by one, too, where a stale answer would come from.
"""
import asyncio
import itertools
import random
from client import Failed
from cloud import IDENTITY
from register import UNKNOWN, Op, violation

WRITERS, READERS = 3, 3
THINK = 0.3
TIMEOUT = 8.0


class Registers:
    def __init__(self, cloud, count, seed):
        self.cloud, self.count, self.dice = cloud, count, random.Random(seed)
        self.ids, self.histories, self.wrong, self.tasks = [], [], [], []
        self.values = itertools.count(1)
        self.goes = asyncio.Event()

    async def start(self):
        loop = asyncio.get_running_loop()
        for number in range(self.count):
            body = {"project": {"name": f"register-{number}", "description": f"{number}/0"}}
            begin = loop.time()
            made = await self.cloud.must("POST", f"{IDENTITY}/projects", body)
            self.ids.append(made["project"]["id"])
            self.histories.append([Op("write", f"{number}/0", begin, loop.time(), "start")])
            self.tasks += [asyncio.create_task(self.client(number, self.write, f"w{n}")) for n in range(WRITERS)]
            self.tasks += [asyncio.create_task(self.client(number, self.read, f"r{n}")) for n in range(READERS)]

    async def client(self, number, act, by):
        while True:
            await self.goes.wait()
            await act(number, by)
            await asyncio.sleep(self.dice.uniform(0, 2 * THINK))

    async def write(self, number, by):
        loop = asyncio.get_running_loop()
        value = f"{number}/{next(self.values)}"
        begin, kind, end = loop.time(), "write", UNKNOWN
        body = {"project": {"description": value}}
        try:
            answer = await self.cloud.front.call("PATCH", f"{IDENTITY}/projects/{self.ids[number]}", body, self.cloud.token, timeout=TIMEOUT)
            if answer.status == 200:
                end = loop.time()
            elif answer.status < 500:
                kind, end = "refused", loop.time()
                self.wrong.append(("write register", value, 0, f"{answer.status} {answer.text()}"))
        except Failed as e:
            if not e.sent:
                kind, end = "refused", loop.time()
        self.histories[number].append(Op(kind, value, begin, end, by))

    async def read(self, number, by):
        loop = asyncio.get_running_loop()
        name, at = self.dice.choice([("door", self.cloud.front), *self.cloud.each.items()])
        begin = loop.time()
        try:
            answer = await at.call("GET", f"{IDENTITY}/projects/{self.ids[number]}", token=self.cloud.token, timeout=TIMEOUT)
        except Failed:
            return
        if answer.status == 200:
            value = answer.json()["project"]["description"]
            self.histories[number].append(Op("read", value, begin, loop.time(), f"{by} at {name}"))
        elif answer.status < 500:
            self.wrong.append(("read register", name, 0, f"{answer.status} {answer.text()}"))

    def violations(self):
        """Of the whole run up to now."""
        return [found for history in self.histories if (found := violation(history))]

    def size(self):
        return sum(map(len, self.histories))

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
