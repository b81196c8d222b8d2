"""HTTP by hand, as a program of a user would do it: no code in common with the `openstack` command."""
import json
import urllib.error
import urllib.request
from lib import STATE, endpoint


def call(method, path, token="", body=None, headers=None, timeout=30):
    """Status, headers and content of the answer. A connection that is cut raises OSError."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(endpoint() + path, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("X-Auth-Token", token)
    for key, value in (headers or {}).items():
        request.add_header(key, value)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read()
            return answer.status, dict(answer.headers), json.loads(text) if text[:1] in (b"{", b"[") else text
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read().decode(errors="replace")


def token(user="demo"):
    with open(f"{STATE}/secrets/{user}") as f:
        password = f.read().strip()
    who = {"name": user, "password": password, "domain": {"id": "default"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": who}},
                     "scope": {"project": {"name": user, "domain": {"id": "default"}}}}}
    status, headers, text = call("POST", "/identity/v3/auth/tokens", body=body)
    assert status == 201, text
    return {k.lower(): v for k, v in headers.items()}["x-subject-token"]


def get(path, t):
    """The content of something that must be there."""
    status, _, body = call("GET", path, t)
    assert status == 200, f"GET {path}: {status} {body}"
    return body


def tiny(t):
    """What a request for a small server of the image `tiny` on the network `private` says, besides its name."""
    image = get("/image/v2/images?name=tiny", t)["images"][0]["id"]
    network = get("/network/v2.0/networks?name=private", t)["networks"][0]["id"]
    return {"imageRef": image, "flavorRef": "42", "networks": [{"uuid": network}]}
