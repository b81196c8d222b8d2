"""After a fault: what was acknowledged is there, once, as it was acknowledged, at the door and at each controller; and the books balance."""
import asyncio
from collections import Counter
from dataclasses import dataclass, field
from client import Failed
from cloud import COMPUTE, IDENTITY, NETWORK

# Servers come and go by and by.
SETTLE = 90
VERSION = {"openstack-api-version": "compute 2.90"}


@dataclass
class Found:
    # What, and at whom it was seen.
    lost: dict = field(default_factory=dict)
    twice: dict = field(default_factory=dict)
    books: list = field(default_factory=list)
    # Writes that their client saw fail, and those of them that were carried out.
    failed: int = 0
    ghosts: int = 0
    checked: int = 0

    def note(self, where, what, by):
        where.setdefault(what, []).append(by)


async def listing(cloud, load, by):
    """Name, id and description of all things of the load, by kind."""
    projects = (await cloud.must("GET", f"{IDENTITY}/projects", by=by))["projects"]
    ports = (await cloud.must("GET", f"{NETWORK}/ports?network_id={cloud.network}", by=by))["ports"]
    servers = await every_server(cloud, by)
    kinds = {"project": projects, "port": ports, "server": servers}
    return {kind: [thing for thing in things if thing["name"].startswith(load.tag)] for kind, things in kinds.items()}


async def every_server(cloud, by):
    servers, marker = [], ""
    while page := (await cloud.must("GET", f"{COMPUTE}/servers/detail?limit=500{marker}", by=by, headers=VERSION))["servers"]:
        servers += page
        marker = f"&marker={page[-1]['id']}"
    return servers


async def audit(cloud, load):
    """Reads all back. Nothing is asked of the cloud meanwhile."""
    found = Found()
    for name, by in (("door", cloud.front), *cloud.each.items()):
        seen = await listing(cloud, load, by)
        for kind, things in seen.items():
            compare(name, load, kind, things, found)
    failed_writes(load, seen, found)
    found.books = await settled(cloud, load)
    return found


def compare(name, load, kind, things, found):
    names, by_id = Counter(thing["name"] for thing in things), {thing["id"]: thing for thing in things}
    for n in (n for n, count in names.items() if count > 1):
        found.note(found.twice, f"{kind} {n}", name)
    known = {thing.name: thing for thing in load.things if thing.kind == kind}
    for thing in known.values():
        there = by_id.get(thing.id)
        if thing.made == "there" and thing.ended == "no":
            found.checked += 1
            if there is None:
                found.note(found.lost, f"create of {kind} {thing.id}", name)
            elif (there.get("description") or "") not in {thing.value, *thing.maybe} and not (kind == "server" and not thing.value):
                found.note(found.lost, f"update of {kind} {thing.id}: {there.get('description')!r} instead of {thing.value!r}", name)
        elif thing.ended == "acknowledged":
            found.checked += 1
            # Servers go by and by, and that they go is waited for below.
            if there is not None and kind != "server":
                found.note(found.lost, f"delete of {kind} {thing.id}", name)
        elif thing.made == "refused" and names[thing.name]:
            found.note(found.twice, f"{kind} {thing.name} was refused and is there", name)
    for n in names.keys() - known.keys():
        found.note(found.twice, f"{kind} {n} that nobody asked for", name)


def failed_writes(load, seen, found):
    """Each counts once, at the first audit after it."""
    for thing in load.things:
        if thing.counted or "unknown" not in (thing.made, thing.ended):
            continue
        there = any(other["name"] == thing.name for other in seen[thing.kind])
        thing.counted = True
        found.failed += 1
        found.ghosts += there == (thing.made == "unknown")


async def settled(cloud, load):
    """What is still wrong after a while with servers, allocations, addresses and quotas."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLE
    while (open_ := await books(cloud, load)) and loop.time() < until:
        await asyncio.sleep(1)
    return open_


async def books(cloud, load):
    wrong = []
    servers = await every_server(cloud, cloud.front)
    ids = {server["id"] for server in servers}
    for server in servers:
        if server["OS-EXT-STS:task_state"] or not (server["status"] == "ACTIVE" or server["status"] == "ERROR" and server.get("fault")):
            wrong.append(f"server {server['id']} is {server['status']}, task {server['OS-EXT-STS:task_state']}")
    wrong += [f"server {t.id} was deleted and is there" for t in load.things if t.kind == "server" and t.ended == "acknowledged" and t.id in ids]
    placed = {server["id"] for server in servers if server["OS-EXT-SRV-ATTR:host"]}
    held = set()
    for provider in (await cloud.must("GET", "/placement/resource_providers"))["resource_providers"]:
        answer = await cloud.must("GET", f"/placement/resource_providers/{provider['uuid']}/allocations")
        for consumer in answer["allocations"]:
            if consumer in held:
                wrong.append(f"{consumer} has allocations of two hosts")
            held.add(consumer)
    wrong += [f"{consumer} has an allocation and is no server" for consumer in held - ids]
    wrong += [f"server {server} has no allocation" for server in placed - held]
    ports = (await cloud.must("GET", f"{NETWORK}/ports"))["ports"]
    addresses = Counter((ip["subnet_id"], ip["ip_address"]) for port in ports for ip in port["fixed_ips"])
    wrong += [f"address {address} was given {count} times" for (_, address), count in addresses.items() if count > 1]
    used = (await cloud.must("GET", f"{NETWORK}/quotas/{cloud.project}/details"))["quota"]["port"]["used"]
    mine = sum(port["project_id"] == cloud.project for port in ports)
    if used != mine:
        wrong.append(f"the quota says {used} ports and there are {mine}")
    used = (await cloud.must("GET", f"{COMPUTE}/limits"))["limits"]["absolute"]
    if (used["totalInstancesUsed"], used["totalRAMUsed"]) != (len(servers), 64 * len(servers)):
        wrong.append(f"the limits say {used['totalInstancesUsed']} servers with {used['totalRAMUsed']} MiB and there are {len(servers)}")
    return wrong
