"""A client that shares no code with the first: HTTP by hand, as a program of a user would do it."""
from lib import wait
from rest import call, tiny, token


def test_a_server_by_hand():
    t = token()
    status, _, made = call("POST", "/compute/v2.1/servers", t, {"server": {"name": "by-hand", **tiny(t)}})
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
