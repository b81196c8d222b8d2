"""The OpenAPI documents that the OpenStack community publishes, made ready for a fuzzer.

published.py amend SERVICE FILE     writes the document of SERVICE, mended as SERVICE.toml says
published.py report SERVICE FILE    says what a run has reached; fails when an operation never succeeded and SERVICE.toml does not say why

The documents are made from the services' own sources and are data of a crate, `openstack_types`, which cargo fetches; Cargo.lock beside
this file holds its checksum.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import requests
import yaml

import overlay

HERE = Path(__file__).parent
SAMPLES = HERE.parent.parent / "crates/testkit/tests/cloud/misuse/samples.json"


def document(name):
    command = ["cargo", "metadata", "--quiet", "--locked", "--format-version", "1", "--manifest-path", str(HERE / "Cargo.toml")]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    crate = next(p for p in packages if p["name"] == "openstack_types")
    text = (Path(crate["manifest_path"]).parent / "data" / name).read_text()
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def amend(service, target):
    rules = overlay.load(service)
    samples = {overlay.fold(name): bodies for name, bodies in json.loads(SAMPLES.read_text()).items()}
    mended = rules.amend(document(rules.said["document"]), samples)
    for name in rules.absent():
        method, path = name.split(" ")
        if is_routed(f"/{service}{path}"):
            print(f"{name} is here after all; take it out of {service}.toml", file=sys.stderr)
        else:
            mended["paths"][path].pop(method.lower())
    # A path without operations would be asked for with methods that it has not.
    mended["paths"] = {path: item for path, item in mended["paths"].items() if set(item) & set(overlay.METHODS)}
    Path(target).write_text(json.dumps(mended))


def is_routed(path):
    """Is there anything? Where there is a route, but not for this method, the answer is 405."""
    url = os.environ["PUBLISHED_URL"] + overlay.fold(path).replace("{}", "x")
    return requests.request("TRACE", url, headers={"x-auth-token": os.environ["PUBLISHED_TOKEN"]}, timeout=30).status_code == 405


def report(service, source):
    rules, run = overlay.load(service), json.loads(Path(source).read_text())
    seen, expected = run["seen"], rules.unreached()
    reached = {name for name, counts in seen.items() if any(status < "400" for status in counts)}
    for name, times in sorted(run["excused"].items()):
        print(f"excused {times} times: {name}")
    print(f"{service}: {len(reached)} of {len(seen)} operations were seen to succeed, {len(expected)} are known not to")
    for name in sorted(expected & reached):
        print(f"  {name} succeeded after all; take it out of {service}.toml")
    lost = sorted(set(seen) - reached - expected)
    for name in lost:
        print(f"  {name} never succeeded: {seen[name]}; give it what it needs in world.py, or say in {service}.toml why not")
    return 1 if lost else 0


if __name__ == "__main__":
    command, service, file = sys.argv[1:]
    sys.exit({"amend": amend, "report": report}[command](service, file) or 0)
