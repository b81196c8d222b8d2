"""The load: requests arrive at a rate, whatever becomes of those before, and each that failed is repeated once with its key.

What was acknowledged is written down thing by thing, for the audit. Requests that change one thing follow each other, so that it is known
what it has to be. An answer is a failure when there is none within ten seconds or it is a 5xx; other answers that are not what they
should be (a 404 of something that was acknowledged, say) are failures too, and listed.
"""
import asyncio
import itertools
import random
import uuid
from dataclasses import dataclass, field
from client import Failed
from cloud import COMPUTE, IDENTITY, NETWORK

# Before the one repeat: what a client library waits.
PAUSE = 1.0
TIMEOUT = 10.0
# How many of 100 requests do what; projects, ports and servers are as many as this when there is nothing to choose from.
MIX = {"login": 2, "validate": 18, "list": 15, "show": 25, "create": 15, "update": 12, "delete": 13}
KINDS = {"project": 8, "port": 6, "server": 1}
MOST = {"project": 300, "port": 200, "server": 40}


@dataclass
class Thing:
    kind: str
    name: str
    id: str = None
    # What an acknowledged write gave it, and what writes gave it whose outcome nobody knows (they may come late).
    value: str = ""
    maybe: set = field(default_factory=set)
    # asked, there, unknown (the create was not answered), refused; and for its end: no, asked, acknowledged, unknown.
    made: str = "asked"
    ended: str = "no"
    busy: bool = False
    counted: bool = False


@dataclass
class Sample:
    begin: float
    end: float
    what: str
    read: bool
    # Of the first try alone.
    seconds: float
    first: bool
    ok: bool


def path(kind, of=""):
    base = {"project": f"{IDENTITY}/projects", "port": f"{NETWORK}/ports", "server": f"{COMPUTE}/servers"}[kind]
    return f"{base}/{of}" if of else base


class Load:
    def __init__(self, cloud, rate, seed):
        self.cloud, self.rate, self.dice = cloud, rate, random.Random(seed)
        self.tag = uuid.uuid4().hex[:8]
        self.numbers = itertools.count()
        self.things = []
        self.live = {kind: [] for kind in KINDS}
        self.samples, self.wrong, self.causes = [], [], {}
        self.tasks, self.arrivals = set(), None
        self.replayed = 0

    def start(self):
        self.arrivals = asyncio.create_task(self.arrive())

    async def stop(self):
        """No more arrive, and all that were there have ended."""
        self.arrivals.cancel()
        await asyncio.wait([self.arrivals])
        if self.tasks:
            await asyncio.wait(list(self.tasks))

    async def arrive(self):
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / self.rate
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            elif due < loop.time() - 1:
                due = loop.time()  # This machine cannot keep up; a burst would only make it worse.
            task = asyncio.create_task(self.one())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def one(self):
        what = self.dice.choices(list(MIX), list(MIX.values()))[0]
        kind = self.dice.choices(list(KINDS), list(KINDS.values()))[0]
        if what == "create" and len(self.live[kind]) >= MOST[kind]:
            what = "delete"
        if what in ("update", "delete", "show"):
            free = [thing for thing in self.live[kind] if not thing.busy]
            if free:
                return await getattr(self, what)(self.dice.choice(free))
            what = "list"
        await getattr(self, what)(*([kind] if what in ("list", "create") else []))

    async def ask(self, what, method, path, good, body=None, read=False, after=(), **options):
        """Asks, and once more if need be. Gives the answer, or None, and whether one try was left without a clear outcome."""
        loop = asyncio.get_running_loop()
        key = uuid.uuid4().hex
        begin, first, unclear = loop.time(), None, False
        for attempt in (0, 1):
            answer = None
            try:
                answer = await self.cloud.front.call(method, path, body, self.cloud.token, key, TIMEOUT, **options)
                ok = answer.status in good or (attempt and answer.status in after)
                cause = f"{answer.status} {answer.text()}"
                unclear |= answer.status >= 500
            except Failed as e:
                ok, cause = False, str(e)
                unclear |= e.sent
            first = first or (loop.time() - begin, ok)
            if ok:
                break
            self.causes.setdefault((what, attempt, cause[:160]), []).append(loop.time())
            if answer and answer.status < 500 and answer.status not in (409, 429):
                # Nobody repeats a request that was found wrong.
                self.wrong.append((what, path, attempt, cause))
                break
            if not attempt:
                await asyncio.sleep(PAUSE)
        if answer and "idempotency-replayed" in answer.headers:
            self.replayed += 1
        self.samples.append(Sample(begin, loop.time(), what, read, *first, ok))
        return (answer if ok else None), unclear

    async def login(self):
        await self.ask("login", "POST", f"{IDENTITY}/auth/tokens", [201], self.cloud.login(), read=True)

    async def validate(self):
        await self.ask("validate", "GET", f"{IDENTITY}/auth/tokens", [200], read=True, headers={"x-subject-token": self.cloud.token})

    async def list(self, kind):
        where = {"project": f"?name={self.tag}-0", "port": "?fields=id&limit=50", "server": "?limit=50"}[kind]
        await self.ask(f"list {kind}s", "GET", path(kind) + where, [200], read=True)

    async def show(self, thing):
        thing.busy = True
        answer, _ = await self.ask(f"show {thing.kind}", "GET", path(thing.kind, thing.id), [200], read=True)
        if answer and thing.kind != "server":
            value = answer.json()[thing.kind]["description"]
            if value not in {thing.value, *thing.maybe}:
                self.wrong.append(("stale read", path(thing.kind, thing.id), 0, f"{value!r} instead of {thing.value!r}"))
        thing.busy = False

    async def create(self, kind):
        thing = Thing(kind, f"{self.tag}-{next(self.numbers)}")
        self.things.append(thing)
        body = {
            "project": {"name": thing.name, "description": ""},
            "port": {"name": thing.name, "network_id": self.cloud.network, "description": ""},
            "server": {"name": thing.name, "flavorRef": "chaos", "imageRef": self.cloud.image, "networks": [{"uuid": self.cloud.network}]},
        }[kind]
        answer, unclear = await self.ask(f"create {kind}", "POST", path(kind), [201, 202], {kind: body})
        if answer:
            thing.id, thing.made = answer.json()[kind]["id"], "there"
            self.live[kind].append(thing)
        else:
            thing.made = "unknown" if unclear else "refused"

    async def update(self, thing):
        thing.busy = True
        value = uuid.uuid4().hex[:12]
        method = "PATCH" if thing.kind == "project" else "PUT"
        version = {"openstack-api-version": "compute 2.90"} if thing.kind == "server" else {}
        answer, unclear = await self.ask(f"update {thing.kind}", method, path(thing.kind, thing.id), [200],
                                         {thing.kind: {"description": value}}, headers=version)
        if answer:
            thing.value = value
        if unclear:
            thing.maybe.add(value)
        thing.busy = False

    async def delete(self, thing):
        if thing not in self.live[thing.kind]:
            return
        self.live[thing.kind].remove(thing)
        thing.ended = "asked"
        answer, unclear = await self.ask(f"delete {thing.kind}", "DELETE", path(thing.kind, thing.id), [204], after=[404])
        # Not found at the first try: either it was lost, or somebody on the way has sent it twice. That is among the wrong answers.
        missing = self.wrong and self.wrong[-1][1] == path(thing.kind, thing.id)
        thing.ended = "acknowledged" if answer else "unknown" if unclear or missing else "no"
        if thing.ended == "no":
            self.live[thing.kind].append(thing)
