"""The APIs that the load and the audit use: as the administrator, at the public address or at one controller."""
import asyncio
import re
from client import OWN_PORT, PORT, Client, Failed

IDENTITY, COMPUTE, NETWORK = "/identity/v3", "/compute/v2.1", "/network/v2.0"
SUBNET = "10.64.0.0/12"


def credentials(state):
    with open(f"{state}/lab/clouds.yaml") as f:
        text = f.read().split("lab-admin:")[1]
    return re.search(r"https://([^:/]+):", text).group(1), re.search(r"password: (\S+)", text).group(1)


class Cloud:
    def __init__(self, state, addresses, uses):
        ca = f"{state}/lab/ca.pem"
        vip, self.password = credentials(state)
        self.front = Client(vip, PORT, ca, uses)
        # Past the door, each controller by itself.
        self.each = {name: Client(address, OWN_PORT, ca, uses) for name, address in addresses.items()}
        self.token = None

    def login(self):
        domain = {"id": "default"}
        user = {"name": "admin", "domain": domain, "password": self.password}
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                         "scope": {"project": {"name": "admin", "domain": domain}}}}

    async def must(self, method, path, body=None, by=None, tries=60, **options):
        """The content of an answer that has to come: asked again while there is none."""
        last = None
        for _ in range(tries):
            try:
                answer = await (by or self.front).call(method, path, body, token=self.token, **options)
            except Failed as e:
                last = e
            else:
                if answer.status < 300:
                    return answer.json() if answer.body[:1] in (b"{", b"[") else None
                last = f"{answer.status} {answer.text()}"
                if answer.status < 500 and answer.status != 429:
                    break
            await asyncio.sleep(0.5)
        raise Failed(f"{method} {path} at {(by or self.front).host}: {last}", True)

    async def prepare(self):
        """What the load needs: a token, an image, a flavor, a network and room."""
        answer = await self.front.call("POST", f"{IDENTITY}/auth/tokens", self.login())
        if answer.status != 201:
            raise Failed(f"login: {answer.status} {answer.text()}", True)
        self.token = answer.headers["x-subject-token"]
        self.project = answer.json()["token"]["project"]["id"]
        flavor = {"flavor": {"name": "chaos", "id": "chaos", "ram": 64, "vcpus": 1, "disk": 1}}
        await self.must("POST", f"{COMPUTE}/flavors", flavor)
        image = await self.must("POST", "/image/v2/images", {"name": "chaos", "disk_format": "raw", "container_format": "bare"})
        self.image = image["id"]
        await self.must("PUT", f"/image/v2/images/{self.image}/file", b"\0" * 4096, headers={"content-type": "application/octet-stream"})

        async def active():
            return (await self.must("GET", f"/image/v2/images/{self.image}"))["status"] == "active"
        await until("the image is active", active, 60)
        network = await self.must("POST", f"{NETWORK}/networks", {"network": {"name": "chaos"}})
        self.network = network["network"]["id"]
        await self.must("POST", f"{NETWORK}/subnets", {"subnet": {"network_id": self.network, "cidr": SUBNET, "ip_version": 4}})
        many = 1000000
        await self.must("PUT", f"{NETWORK}/quotas/{self.project}", {"quota": {"port": many}})
        limits = {"quota_set": {"instances": many, "cores": many, "ram": many}}
        await self.must("PUT", f"{COMPUTE}/os-quota-sets/{self.project}", limits)

    async def serves(self):
        """Each controller says that it is ready."""
        async def ready(client):
            try:
                return (await client.call("GET", "/readyz", timeout=3)).status == 200
            except Failed:
                return False
        return all(await asyncio.gather(*(ready(client) for client in self.each.values())))

    def close(self):
        for client in (self.front, *self.each.values()):
            client.close()


async def until(what, probe, seconds):
    """Waits until `probe` gives something true; gives back how long that took."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while not await probe():
        if loop.time() - begin > seconds:
            raise Failed(f"{what} is not so within {seconds} s", False)
        await asyncio.sleep(0.1)
    return loop.time() - begin
