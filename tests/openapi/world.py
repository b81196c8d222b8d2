"""What requests can be about: one thing of each kind in a running cloud, made again as soon as it is gone.

A generator's own ids name nothing, so all that it would see is 404. A thing is known by the part of a path that its id follows, as in
samples.json of the testkit: `$users` is the id after `/users/`.
"""
import base64
import hashlib
import hmac
import random
import time
import urllib.parse
import uuid

import requests

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
PASSWORD = "password of everybody"


def unique(prefix="fuzz"):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class World:
    def __init__(self, url, token, seed):
        self.url, self.token = url, token
        self.random = random.Random(seed)
        self.ids = {}
        self.secrets = {}
        mine = self.send("GET", "/identity/v3/auth/tokens", headers={"x-subject-token": token}).json()["token"]
        self.me, self.mine = mine["user"]["id"], mine["project"]["id"]
        self.member = self.make("GET", "/identity/v3/roles?name=member")["roles"][0]["id"]

    def send(self, method, path, body=None, token=None, **more):
        headers = {"x-auth-token": token or self.token, **more.pop("headers", {})}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=30, **more)
        if answer.status_code >= 500:
            raise AssertionError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer

    def make(self, method, path, body=None, **more):
        answer = self.send(method, path, body, **more)
        if answer.status_code >= 300:
            raise AssertionError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json() if answer.text and "json" in answer.headers.get("content-type", "") else {}

    def get(self, key):
        """The id of a thing that is there now."""
        if key in ("unique", "password", "secret", "token"):
            return {"unique": unique, "password": lambda: PASSWORD, "secret": lambda: SECRET, "token": self.subject}[key]()
        maker = MAKERS[key]
        known = self.ids.get(key)
        if known is None or self.send("GET", maker.shown(self, known)).status_code != 200:
            self.ids[key] = known = maker.make(self)
        return known

    def forget(self, key):
        self.ids.pop(key, None)

    def active(self, image):
        """Waits until an image has its data."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            shown = self.make("GET", f"/image/v2/images/{image}")
            if shown["status"] == "active" and not shown.get("os_glance_importing_to_stores"):
                return image
            time.sleep(0.05)
        raise AssertionError(f"image {image} is {shown['status']} after 30 s")

    def identity(self, path, kind, **fields):
        return self.make("POST", f"/identity/v3/{path}", {kind: fields})[kind]["id"]

    def subject(self):
        """A token that nothing else needs."""
        auth = {"identity": {"methods": ["token"], "token": {"id": self.token}}, "scope": {"project": {"id": self.mine}}}
        answer = self.send("POST", "/identity/v3/auth/tokens", {"auth": auth})
        return answer.headers["x-subject-token"]


class Maker:
    def __init__(self, shown, make):
        self._shown, self.make = shown, make

    def shown(self, world, known):
        return self._shown(world, known) if callable(self._shown) else self._shown.replace("{}", urllib.parse.quote(known, safe=""))


def identity(path, kind, **fields):
    """Something that POST makes; a field may be a function of the world."""
    def make(world):
        return world.identity(path, kind, **{k: v(world) if callable(v) else v for k, v in fields.items()})
    return Maker(f"/identity/v3/{path}/{{}}", make)


def the(key):
    return lambda world: world.get(key)


def name(_world):
    return unique()


def user(world):
    """A member of the caller's project."""
    made = world.identity("users", "user", name=unique(), password=PASSWORD, domain_id="default")
    world.make("PUT", f"/identity/v3/projects/{world.mine}/users/{made}/roles/{world.member}")
    return made


def ec2(world):
    made = world.make("POST", f"/identity/v3/users/{world.get('users')}/credentials/OS-EC2", {"tenant_id": world.mine})["credential"]
    world.secrets[made["access"]] = made["secret"]
    return made["access"]


def ec2_request(world):
    """A request signed as Amazon's clients did in version 2, for a service to ask whose it is."""
    access = ec2(world)
    params = {"AWSAccessKeyId": access, "SignatureMethod": "HmacSHA256", "SignatureVersion": "2",
              "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    query = "&".join(f"{k}={urllib.parse.quote(v, safe='-_~')}" for k, v in sorted(params.items()))
    digest = hmac.new(world.secrets[access].encode(), f"GET\nh\n/\n{query}".encode(), hashlib.sha256).digest()
    return {"access": access, "verb": "GET", "host": "h", "path": "/", "params": params, "signature": base64.b64encode(digest).decode()}


def s3_request(world):
    access, text = ec2(world), b"GET\n\n\n/"
    digest = hmac.new(world.secrets[access].encode(), text, hashlib.sha1).digest()
    return {"access": access, "token": base64.b64encode(text).decode(), "signature": base64.b64encode(digest).decode()}


def application_credential(world, path="/v2.1/servers"):
    body = {"name": unique(), "secret": SECRET, "access_rules": [{"path": path, "method": "GET", "service": "compute"}]}
    made = world.make("POST", f"/identity/v3/users/{world.me}/application_credentials", {"application_credential": body})
    return made["application_credential"]["id"]


def access_rule(world):
    # The rule of a credential that is gone may be deleted.
    path, mine = f"/v2.1/{unique()}", f"/identity/v3/users/{world.me}"
    world.make("DELETE", f"{mine}/application_credentials/{application_credential(world, path)}")
    rules = world.make("GET", f"{mine}/access_rules")["access_rules"]
    return next(rule["id"] for rule in rules if rule["path"] == path)


def trust(world):
    body = {"trustor_user_id": world.me, "trustee_user_id": world.get("users"), "project_id": world.mine, "impersonation": False}
    return world.make("POST", "/identity/v3/OS-TRUST/trusts", {"trust": {**body, "roles": [{"name": "member"}]}})["trust"]["id"]


def registered_limit(world):
    body = {"service_id": world.get("services"), "region_id": world.get("regions"), "resource_name": unique(), "default_limit": 10}
    made = world.make("POST", "/identity/v3/registered_limits", {"registered_limits": [body]})["registered_limits"][0]
    world.secrets[made["id"]] = made["resource_name"]
    return made["id"]


def limit(world):
    body = {"service_id": world.get("services"), "region_id": world.get("regions"), "project_id": world.mine, "resource_limit": 3}
    made = registered_limit(world)
    body["resource_name"] = world.secrets[made]
    return world.make("POST", "/identity/v3/limits", {"limits": [body]})["limits"][0]["id"]


def governed(world):
    """An endpoint that a policy is about."""
    endpoint = world.get("endpoints")
    world.make("PUT", f"/identity/v3/policies/{world.get('policies')}/OS-ENDPOINT-POLICY/endpoints/{endpoint}")
    return endpoint


def configured(world):
    """A domain with a configuration; gives the domain's id."""
    domain = world.get("domains")
    config = {"identity": {"driver": "sql"}, "ldap": {"url": "ldap://192.0.2.1"}}
    world.make("PUT", f"/identity/v3/domains/{domain}/config", {"config": config})
    return domain


def signature(world, path, form, secret, token_secret=""):
    """The header of a request as OAuth 1.0a signs it (RFC 5849)."""
    quote = lambda text: urllib.parse.quote(str(text), safe="-._~")
    url = f"{world.url}/identity/v3/OS-OAUTH1/{path}"
    form = {**form, "oauth_signature_method": "HMAC-SHA1", "oauth_timestamp": str(int(time.time())),
            "oauth_nonce": uuid.uuid4().hex, "oauth_version": "1.0"}
    pairs = "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(form.items()))
    base = "&".join(quote(part) for part in ("POST", url, pairs))
    digest = hmac.new(f"{quote(secret)}&{quote(token_secret)}".encode(), base.encode(), hashlib.sha1).digest()
    form["oauth_signature"] = base64.b64encode(digest).decode()
    return "OAuth " + ", ".join(f'{quote(k)}="{quote(v)}"' for k, v in form.items())


def to_request(world):
    """The consumer, and the header with which it asks for a request token."""
    consumer = world.make("POST", "/identity/v3/OS-OAUTH1/consumers", {"consumer": {"description": "c"}})["consumer"]
    form = {"oauth_consumer_key": consumer["id"], "oauth_callback": "oob"}
    return consumer, signature(world, "request_token", form, consumer["secret"])


def to_access(world):
    """The header with which a consumer fetches the access token that the caller has authorized."""
    asked = request_token(world)
    consumer, secret = world.secrets[asked]
    made = world.make("PUT", f"/identity/v3/OS-OAUTH1/authorize/{asked}", {"roles": [{"id": world.member}]})
    form = {"oauth_consumer_key": consumer["id"], "oauth_token": asked, "oauth_verifier": made["token"]["oauth_verifier"]}
    return signature(world, "access_token", form, consumer["secret"], secret)


def token_of(world, path, header):
    headers = {"authorization": header, "requested-project-id": world.mine}
    answer = requests.post(f"{world.url}/identity/v3/OS-OAUTH1/{path}", headers=headers, timeout=30)
    if answer.status_code != 201:
        raise AssertionError(f"POST {path} answered {answer.status_code}: {answer.text}")
    return dict(urllib.parse.parse_qsl(answer.text))


def request_token(world):
    consumer, header = to_request(world)
    asked = token_of(world, "request_token", header)
    world.secrets[asked["oauth_token"]] = (consumer, asked["oauth_token_secret"])
    return asked["oauth_token"]


def access_token(world):
    return token_of(world, "access_token", to_access(world))["oauth_token"]


def image(world, **fields):
    body = {"name": unique(), "disk_format": "raw", "container_format": "bare", "visibility": "shared", **fields}
    return world.make("POST", "/image/v2/images", body)["id"]


def with_data(world, where="file"):
    made = image(world)
    octets = {"headers": {"content-type": "application/octet-stream"}, "data": b"the data"}
    world.make("PUT", f"/image/v2/images/{made}/{where}", **octets)
    return made


def member(world):
    project = world.get("projects")
    answer = world.send("POST", f"/image/v2/images/{world.get('images')}/members", {"member": project})
    assert answer.status_code in (200, 409), answer.text
    return project


def copied(world):
    """An image in both stores."""
    made = with_data(world, "stage")
    body = {"method": {"name": "glance-direct"}, "stores": ["local", "second"]}
    world.make("POST", f"/image/v2/images/{made}/import", body)
    return world.active(made)


def elsewhere(world):
    """An image that is only in the second store, which the cache can hold."""
    made = image(world)
    octets = {"headers": {"content-type": "application/octet-stream", "x-image-meta-store": "second"}, "data": made.encode()}
    world.make("PUT", f"/image/v2/images/{made}/file", **octets)
    return made


def task(world):
    properties = {"name": unique(), "disk_format": "raw", "container_format": "bare"}
    body = {"import_from": world.url + "/", "import_from_format": "raw", "image_properties": properties}
    return world.make("POST", "/image/v2/tasks", {"type": "import", "input": body})["id"]


def namespace(world):
    made = unique("space")
    world.make("POST", "/image/v2/metadefs/namespaces", {"namespace": made, "visibility": "public"})
    return made


def of_namespace(kind, body):
    def make(world):
        made = unique("thing")
        path = f"/image/v2/metadefs/namespaces/{world.get('namespaces')}/{kind}"
        world.make("POST", *((f"{path}/{made}",) if body is None else (path, {"name": made, **body})))
        return made
    return make


def in_namespace(kind):
    return lambda world, known: f"/image/v2/metadefs/namespaces/{world.get('namespaces')}/{kind}/{known}"


def of_user(path):
    return lambda world, known: f"/identity/v3/users/{world.me}/{path}/{known}"


def given(path, kind, **fields):
    """Something that PUT makes under a name of choice."""
    def make(world):
        made = unique()
        world.make("PUT", f"/identity/v3/OS-FEDERATION/{path}/{made}", {kind: {k: v(world) if callable(v) else v for k, v in fields.items()}})
        return made
    return Maker(f"/identity/v3/OS-FEDERATION/{path}/{{}}", make)


def protocol(world):
    made, path = unique(), f"/identity/v3/OS-FEDERATION/identity_providers/{world.get('identity_providers')}/protocols"
    world.make("PUT", f"{path}/{made}", {"protocol": {"mapping_id": world.get("mappings")}})
    return made


def protocol_shown(world, known):
    return f"/identity/v3/OS-FEDERATION/identity_providers/{world.get('identity_providers')}/protocols/{known}"


def anywhere(_world, _known):
    """Looked at by nothing: made for each use."""
    return "/identity/v3/not/there"


# What is no thing, but stands in samples.
OWN = ("unique", "password", "secret", "token")

MAKERS = {
    "users": Maker("/identity/v3/users/{}", user),
    "trustee": Maker("/identity/v3/users/{}", user),
    "projects": identity("projects", "project", name=name, domain_id="default"),
    # Only a disabled one can be deleted.
    "domains": identity("domains", "domain", name=name, enabled=False),
    "groups": identity("groups", "group", name=name, domain_id="default"),
    "roles": identity("roles", "role", name=name),
    "implies": identity("roles", "role", name=name),
    "regions": identity("regions", "region", description="spare"),
    "services": identity("services", "service", type=name, name="spare"),
    "endpoints": identity("endpoints", "endpoint", interface="public", url="http://192.0.2.1", service_id=the("services"),
                          region_id=the("regions")),
    "endpoint_groups": identity("OS-EP-FILTER/endpoint_groups", "endpoint_group", name=name, filters={"interface": "public"}),
    "policies": identity("policies", "policy", blob="{}", type="application/json"),
    "consumers": identity("OS-OAUTH1/consumers", "consumer", description="c"),
    "credentials": identity("credentials", "credential", type="totp", blob=SECRET, user_id=the("users"), project_id=the("projects")),
    "registered_limits": Maker("/identity/v3/registered_limits/{}", registered_limit),
    "limits": Maker("/identity/v3/limits/{}", limit),
    "OS-EC2": Maker(lambda w, known: f"/identity/v3/users/{w.get('users')}/credentials/OS-EC2/{known}", ec2),
    "application_credentials": Maker(of_user("application_credentials"), application_credential),
    "access_rules": Maker(of_user("access_rules"), access_rule),
    "trusts": Maker("/identity/v3/OS-TRUST/trusts/{}", trust),
    "authorize": Maker(anywhere, request_token),
    "access_tokens": Maker(of_user("OS-OAUTH1/access_tokens"), access_token),
    "identity_providers": given("identity_providers", "identity_provider", enabled=True),
    "mappings": given("mappings", "mapping", rules=[{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "HTTP_OIDC_SUB"}]}]),
    "service_providers": given("service_providers", "service_provider", enabled=True, auth_url="https://192.0.2.1/auth", sp_url="https://192.0.2.1/sp"),
    "protocols": Maker(protocol_shown, protocol),
    "websso": Maker(protocol_shown, protocol),
    "governed": Maker("/identity/v3/endpoints/{}/OS-ENDPOINT-POLICY/policy", governed),
    "configured": Maker("/identity/v3/domains/{}/config", configured),
    "images": Maker("/image/v2/images/{}", with_data),
    "queued": Maker(anywhere, image),
    "copied": Maker(anywhere, copied),
    "elsewhere": Maker(anywhere, elsewhere),
    "staged": Maker(anywhere, lambda world: with_data(world, "stage")),
    "members": Maker(lambda w, known: f"/image/v2/images/{w.get('images')}/members/{known}", member),
    "tasks": Maker("/image/v2/tasks/{}", task),
    "namespaces": Maker("/image/v2/metadefs/namespaces/{}", namespace),
    "objects": Maker(in_namespace("objects"), of_namespace("objects", {})),
    "properties": Maker(in_namespace("properties"), of_namespace("properties", {"title": "t", "type": "string"})),
    "resource_types": Maker(anywhere, of_namespace("resource_types", {})),
    "metadef tags": Maker(in_namespace("tags"), of_namespace("tags", None)),
}
