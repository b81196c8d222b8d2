"""What schemathesis is told beside the document: things that are there, and the failures that are the document's.

A case keeps what was generated, but three of four get the ids of things that exist (all of the examples do). Without them nearly every
answer would be 404, and no answer of success would ever be held against its schema.
"""
import atexit
import collections
import copy
import json
import os
import re
import sys
from pathlib import Path

import schemathesis

sys.path.insert(0, str(Path(__file__).parent))
import overlay
import world as things

WORLD = things.World(os.environ["PUBLISHED_URL"], os.environ["PUBLISHED_TOKEN"], os.environ["PUBLISHED_SEED"])
OVERLAY = overlay.load(os.environ["PUBLISHED_SERVICE"])
SEEN = collections.defaultdict(collections.Counter)
EXCUSED = collections.Counter()

# Only the oldest of JSON's patches is documented.
schemathesis.serializer.alias("application/openstack-images-v2.1-json-patch", "application/json")

ME, MINE, FRESH = (lambda w: w.me), (lambda w: w.mine), (lambda w: things.unique())
THING, SECOND = (lambda w: "thing"), (lambda w: "second")
MEMBER = lambda w: w.member
# Operations that need their thing in a certain state, or the caller's own; the first that fits counts.
INSTEAD = [
    (r"/users/{user_id}/(application_credentials|access_rules)", {"users": ME}),
    (r"/users/{user_id}/OS-OAUTH1", {"users": ME, "roles": MEMBER}),
    (r"POST .*/(auth/tokens|credentials/OS-EC2)$", {"projects": MINE}),
    (r"PUT .*/OS-FEDERATION/(identity_providers/{idp_id}|mappings/{mapping_id}|service_providers/{service_provider_id})$",
     {"identity_providers": FRESH, "mappings": FRESH, "service_providers": FRESH}),
    (r"PUT .*/protocols/{protocol_id}$", {"protocols": FRESH}),
    (r"POST .*/trusts$", {"users": ME, "projects": MINE}),
    (r"/trusts/{trust_id}/roles/", {"roles": MEMBER}),
    (r"PUT .*/regions/", {"regions": FRESH}),
    (r"/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy$", {"endpoints": "governed"}),
    (r"/domains/{domain_id}/config", {"domains": "configured"}),
    (r"PUT .*/(file|stage)$", {"images": "queued"}),
    (r"POST .*/import$", {"images": "staged"}),
    (r"POST .*/images/{image_id}/locations$", {"images": "queued"}),
    (r"/cache/{image_id}", {"cache": "elsewhere"}),
    (r"/stores/{store_id}/{image_id}", {"stores": SECOND, "{store_id}": "copied"}),
    (r"POST .*/members$", {"images": "images", "projects": FRESH}),
    (r"POST .*/metadefs/.*/tags/", {"tags": FRESH}),
    (r"/metadefs/", {"tags": "metadef tags"}),
    (r"/(projects|images)/[^/]*/tags/", {"tags": THING}),
]
# Fields of bodies that name a thing, and objects whose `id` does.
FIELDS = {
    "domain_id": "domains", "project_id": "projects", "default_project_id": "projects", "tenant_id": "projects", "user_id": "users",
    "trustor_user_id": ME, "trustee_user_id": "users", "service_id": "services", "region_id": "regions", "region": "regions",
    "parent_region_id": "regions", "parent_id": "projects", "member": "projects", "image_id": "images", "mapping_id": "mappings",
}
OBJECTS = {"user": "users", "project": "projects", "domain": "domains", "token": "token", "roles": MEMBER}
SPECIAL = {before for _, instead in INSTEAD for before in instead}
CONSTANTS = {"group": lambda w: "identity", "option": lambda w: "driver"}


def label(case):
    return f"{case.operation.method.upper()} {case.operation.path}"


def resolve(case, key):
    found = next((keys for pattern, keys in INSTEAD if re.search(pattern, label(case))), {})
    key = found.get(key, key)
    return key(WORLD) if callable(key) else WORLD.get(key)


def keys(path):
    """The parameters of a path, each with the kind of thing that it names."""
    parts = path.split("/")
    for before, part in zip(parts, parts[1:]):
        if part.startswith("{"):
            yield part[1:-1], before


def fill(case, body, inside=None, sure=True):
    if isinstance(body, dict):
        return {k: fill(case, v, k if k != "id" else f"{inside} id", sure) for k, v in body.items()}
    if isinstance(body, list):
        return [fill(case, v, inside, sure) for v in body]
    if not isinstance(body, str):
        return body
    if body.startswith("$") and (body[1:] in things.MAKERS or body[1:] in things.OWN):
        return resolve(case, body[1:])
    if sure:
        return body
    if inside == "resource_name" and label(case) == "POST /v3/limits":
        return WORLD.secrets[WORLD.get("registered_limits")]
    key = FIELDS.get(inside) or OBJECTS.get((inside or "").removesuffix(" id") if (inside or "").endswith(" id") else None)
    if key is None or WORLD.random.random() > 0.75:
        return body
    return resolve(case, key) if isinstance(key, str) else key(WORLD)


@schemathesis.hook
def before_call(context, case, kwargs):
    example = case.meta is not None and case.meta.phase.name.value == "examples"
    if case.method.upper() != case.operation.method.upper() or not (example or WORLD.random.random() < 0.75):
        return
    case.path_parameters = dict(case.path_parameters or {})
    for parameter, before in keys(case.operation.path):
        if parameter in CONSTANTS:
            case.path_parameters[parameter] = CONSTANTS[parameter](WORLD)
        elif before in things.MAKERS or before in SPECIAL:
            case.path_parameters[parameter] = resolve(case, before)
    if isinstance(case.body, (dict, list)):
        case.body = fill(case, copy.deepcopy(case.body), sure=example)
    name = label(case)
    if name.endswith(" /v3/auth/tokens") and not name.startswith("POST"):
        case.headers["X-Subject-Token"] = WORLD.subject()
    if name == "POST /v3/OS-OAUTH1/request_token":
        case.headers.update({"Authorization": things.to_request(WORLD)[1], "Requested-Project-Id": WORLD.mine})
    if name == "POST /v3/OS-OAUTH1/access_token":
        case.headers["Authorization"] = things.to_access(WORLD)
    if example and name == "POST /v3/ec2tokens":
        case.body = {"credentials": things.ec2_request(WORLD)}
    if example and name == "POST /v3/s3tokens":
        case.body = {"credentials": things.s3_request(WORLD)}
    if name == "POST /v2/images/{image_id}/locations" and isinstance(case.body, dict) and example:
        case.body = {"url": WORLD.url + "/"}
    if name == "POST /v2/tasks" and isinstance(case.body, dict) and example:
        case.body["input"]["import_from"] = WORLD.url + "/"
    prepare(case)


def prepare(case):
    """What a PUT without a body makes, such as an assignment, is there before it is looked at or taken away."""
    put = case.operation.schema.raw_schema["paths"][case.operation.path].get("put")
    has_body = put is not None and any("examples" in media for media in put.get("requestBody", {}).get("content", {}).values())
    if put is not None and not has_body and case.method.upper() in ("GET", "HEAD", "DELETE"):
        WORLD.send("PUT", f"/{OVERLAY.service}" + case.formatted_path)


@schemathesis.hook
def after_call(context, case, response):
    name = label(case)
    if case.method.upper() != case.operation.method.upper():
        return
    SEEN[name][response.status_code] += 1
    named = [before for _, before in keys(case.operation.path)]
    if response.status_code >= 300 or case.method.upper() not in ("PUT", "PATCH", "POST", "DELETE") or not named:
        return
    # It may have become useless, and what is below it with a delete.
    found = next((keys for pattern, keys in INSTEAD if re.search(pattern, name)), {})
    for key in named if case.method.upper() == "DELETE" else named[-1:]:
        WORLD.forget(found.get(key, key))


@schemathesis.hook
def filter_failure(context, failure, case, response):
    excuse = OVERLAY.excuse(label(case), failure.checks, response.status_code)
    if excuse is None:
        return True
    EXCUSED[excuse] += 1
    return False


@atexit.register
def tell():
    out = {"seen": {k: dict(v) for k, v in SEEN.items()}, "excused": dict(EXCUSED)}
    Path(os.environ["PUBLISHED_SEEN"]).write_text(json.dumps(out))
