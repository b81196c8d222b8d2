"""A client that shares no code with the first: HTTP by hand, as a program of a user would do it."""
import json
import urllib.error
import urllib.request
from lib import STATE, endpoint, wait


def call(method, path, token="", body=None, headers=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(endpoint() + path, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("X-Auth-Token", token)
    for key, value in (headers or {}).items():
        request.add_header(key, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, dict(answer.headers), json.loads(text) if text[:1] in (b"{", b"[") else text
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read().decode(errors="replace")


def token():
    with open(f"{STATE}/secrets/demo") as f:
        password = f.read().strip()
    user = {"name": "demo", "password": password, "domain": {"id": "default"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                     "scope": {"project": {"name": "demo", "domain": {"id": "default"}}}}}
    status, headers, _ = call("POST", "/identity/v3/auth/tokens", body=body)
    assert status == 201
    return {k.lower(): v for k, v in headers.items()}["x-subject-token"]


def test_a_server_by_hand():
    t = token()
    image = call("GET", "/image/v2/images?name=tiny", t)[2]["images"][0]["id"]
    network = call("GET", "/network/v2.0/networks?name=private", t)[2]["networks"][0]["id"]
    server = {"name": "by-hand", "imageRef": image, "flavorRef": "42", "networks": [{"uuid": network}]}
    status, _, made = call("POST", "/compute/v2.1/servers", t, {"server": server})
    assert status == 202, made
    path = f"/compute/v2.1/servers/{made['server']['id']}"
    wait("ACTIVE", lambda: call("GET", path, t)[2]["server"]["status"] == "ACTIVE")
    assert call("DELETE", path, t)[0] == 204
    wait("404", lambda: call("GET", path, t)[0] == 404)


def test_bad_input_gets_a_precise_answer_and_never_a_500():
    t = token()
    posts = ["/compute/v2.1/servers", "/network/v2.0/ports", "/network/v2.0/networks", "/network/v2.0/subnets", "/network/v2.0/routers",
             "/network/v2.0/floatingips", "/network/v2.0/security-groups", "/network/v2.0/security-group-rules",
             "/compute/v2.1/os-keypairs", "/compute/v2.1/os-server-groups", "/image/v2/images", "/identity/v3/auth/tokens"]
    bodies = [None, [], "x", 7, {}, {"server": None}, {"server": []}, {"server": {"name": 1}}, {"port": {"network_id": 5}},
              {"port": {"network_id": "../../etc"}}, {"network": {"name": "x" * 300}}, {"network": {"nope": 1}},
              {"subnet": {"network_id": "x", "cidr": "10.0.0.0/99", "ip_version": 4}}, {"router": {"name": {"a": 1}}},
              {"keypair": {"name": "\u0000"}}, {"name": {"deep": [[[[]]]]}}, {"auth": {"identity": {"methods": ["password"]}}}]
    for path in posts:
        for body in bodies:
            status, _, text = call("POST", path, t, body)
            assert 400 <= status < 500 or (path.endswith("/images") and status == 201) \
                or (body == {} and status in (201, 300)), f"POST {path} {body}: {status} {text}"
    for path in ("/compute/v2.1/servers", "/network/v2.0/ports", "/image/v2/images"):
        for query in ("marker=nope", "limit=-1", "limit=x", "sort_key=nope"):
            status = call("GET", f"{path}?{query}", t)[0]
            assert status in (400, 404), f"GET {path}?{query}: {status}"
        assert call("GET", f"{path}/not-a-uuid", t)[0] == 404
    assert call("GET", "/compute/v2.1/servers", t, headers={"OpenStack-API-Version": "compute 2.9999"})[0] == 406
    assert call("GET", "/compute/v2.1/servers", t, headers={"OpenStack-API-Version": "compute x"})[0] == 400
    assert call("GET", "/compute/v2.1/servers", "gAAAAAnot-a-token")[0] == 401
    assert call("POST", "/network/v2.0/networks", t, {"network": {"name": "x" * (10 << 20)}})[0] == 413
