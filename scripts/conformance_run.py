"""Runs upstream's own tests of identity and image against a simulated cloud, in which everything that they ask about is switched on.

Everything passes, or tests/conformance/SUITE.txt says why not, id by id; one that is on no list and does not pass fails the run.
Exit status: 0 if all is as the lists say, 1 if not. Standard output is data: the ids that are not, and a summary of each suite.
"""

import argparse
import functools
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import openstack
import yaml

import conformance_images

SCRIPTS = pathlib.Path(__file__).resolve().parent
LISTS = SCRIPTS.parent / "tests" / "conformance"
# These need a cloud that takes images of unknown formats, or one with a single store.
LOOSE = r"\.(ListUserImagesTest\.|LocationImportTest\.|ImagesFormatTest\.test_compute_)"
# Suites of Tempest, and the cloud that each runs against.
TEMPEST_SUITES = {
    "identity": ("full", r"^tempest\.api\.identity\."),
    "image": ("full", rf"^tempest\.api\.image\.(?!.*{LOOSE})"),
    "image-loose": ("loose", rf"^tempest\.api\.image\..*{LOOSE}"),
    "rbac": ("full", r"^keystone_tempest_plugin\.tests\.(rbac|api)\."),
}
SUITES = [*TEMPEST_SUITES, "sdk"]
# The rules for passwords that Tempest's tests of them expect.
COMPLIANCE = {"lockout_failure_attempts": 2, "lockout_duration": 5, "unique_last_password_count": 2}
FLAVORS = [("m1.nano", 192, 1), ("m1.micro", 256, 1)]


def say(text):
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def arguments():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="SUITE", help=f"one of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="directory of the cloud, which is started there")
    parser.add_argument("--work", type=pathlib.Path, default=cache / "drover" / "conformance", help="directory of logs and results")
    parser.add_argument("--only", metavar="REGEX", help="only the ids of the suite that match; the rest of its list is not judged")
    parser.add_argument("--workers", type=int, default=2, help="tests at once (default 2)")
    options = parser.parse_args()
    odd = [name for name in options.what if name not in SUITES]
    if odd:
        parser.error(f"there is no suite {odd[0]}; there are {', '.join(SUITES)}.")
    return options


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(directory):
    """A web server for images that the cloud is to fetch; ends with this process."""
    handler = functools.partial(Quiet, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(directory, name, web_port):
    """The cloud `full`, which has whatever the tests ask about, or `loose`: one store, and images of unknown formats are welcome."""
    state = directory / name
    state.mkdir(mode=0o711)
    (state / "config.json").write_text(json.dumps({"security_compliance": COMPLIANCE}))
    command = [os.environ["DROVER_BIN"], "up", "--bare", "--simulate", "2", "--state", state, "--listen", f"127.0.0.1:{free_port()}",
               "--image-locations", "--web-download-allow", "127.0.0.0/8", "--web-download-port", str(web_port)]
    if name == "full":
        second = directory / "second"
        second.mkdir()
        # The cache is for what is not in `local`.
        command += ["--image-store", f"id=second,type=local,path={second},weight=10", "--default-image-store", "second"]
    else:
        command.append("--no-require-image-format-match")
    with open(directory / f"{name}.up.txt", "w") as out:
        subprocess.run(command, stdout=out, stderr=out, check=True)
    return state


def ensure_user(admin, name, password):
    """A user with a project of the same name, in which it is a member."""
    project = admin.identity.create_project(name=name, domain_id="default")
    user = admin.identity.create_user(name=name, password=password, domain_id="default", default_project_id=project.id)
    admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role("member"))


def fill(state, images):
    """Makes what the tests expect to find, and writes a clouds.yaml with every user that they want to be."""
    path = state / "clouds.yaml"
    os.environ.update(DROVER_STATE=str(state), OS_CLIENT_CONFIG_FILE=str(path), OS_CLOUD="drover-admin")
    admin = openstack.connect()
    clouds = yaml.safe_load(path.read_text())["clouds"]
    password = "only-for-these-tests"
    ensure_user(admin, "alt_demo", password)
    admin.identity.assign_system_role_to_user(admin.current_user_id, admin.identity.find_role("admin"), system="all")
    member, root = clouds["drover"], clouds["drover-admin"]
    other = {**member["auth"], "username": "alt_demo", "password": password, "project_name": "alt_demo"}
    system = {key: value for key, value in root["auth"].items() if not key.startswith("project")}
    # The names that the SDK's tests use.
    clouds.update({
        "devstack": member,
        "devstack-alt": {**member, "auth": other},
        "devstack-admin": root,
        "devstack-system-admin": {**root, "auth": {**system, "system_scope": "all"}},
    })
    path.write_text(yaml.safe_dump({"clouds": clouds}))
    for name, ram, disk in FLAVORS:
        admin.compute.create_flavor(name=name, vcpus=1, ram=ram, disk=disk)
    for name in ("tiny", "tiny-alt"):
        admin.image.create_image(
            name, filename=str(images / "tiny.qcow2"), disk_format="qcow2", container_format="bare", visibility="public", wait=True)
    net = admin.network.create_network(
        name="public", is_router_external=True, provider_network_type="flat", provider_physical_network="public")
    admin.network.create_subnet(network_id=net.id, name="public-subnet", ip_version=4, cidr="172.24.4.0/24", is_dhcp_enabled=False)


def settings(cloud, web_port, images):
    """What this cloud has and tempest.conf does not say for every cloud."""
    full = str(cloud == "full").lower()
    url = f"http://127.0.0.1:{web_port}/tiny.qcow2"
    return {
        "identity-feature-enabled.security_compliance": "true",
        "identity.user_lockout_failure_attempts": COMPLIANCE["lockout_failure_attempts"],
        "identity.user_lockout_duration": COMPLIANCE["lockout_duration"],
        "identity.user_unique_last_password_count": COMPLIANCE["unique_last_password_count"],
        "image.http_image": url,
        "image.http_qcow2_image": url,
        "image.image_caching_enabled": full,
        "image.images_manifest_file": images / "manifest.yaml",
        "image-feature-enabled.image_conversion": "true",
        "image-feature-enabled.image_format_enforcement": full,
        "image-feature-enabled.http_store_enabled": "true",
        "image-feature-enabled.store_weight_enabled": full,
    }


def tempest(options, suite, extra):
    _, what = TEMPEST_SUITES[suite]
    command = [sys.executable, "-W", "ignore", SCRIPTS / "tempest_run.py", "--work", options.work / suite, "--no-ssh",
               "--workers", str(options.workers), "--except", LISTS / f"{suite}.txt"]
    for name, value in extra.items():
        command += ["--set", f"{name}={value}"]
    if options.only:
        what = f"(?=.*(?:{options.only})){what}"
        command.append("--part")
    return subprocess.run([*command, what]).returncode == 0


def sdk(options):
    command = [sys.executable, "-W", "ignore", SCRIPTS / "sdk_run.py", "--work", options.work / "sdk", "--except", LISTS / "sdk.txt"]
    if options.only:
        command += ["--only", options.only]
    return subprocess.run(command).returncode == 0


def main():
    options = arguments()
    images = options.dir / "images"
    images.mkdir()
    conformance_images.make(images)
    web_port = serve(images)
    bad = []
    for cloud in ("full", "loose"):
        chosen = [suite for suite in options.what or SUITES if TEMPEST_SUITES.get(suite, ("full",))[0] == cloud]
        if not chosen:
            continue
        fill(start(options.dir, cloud, web_port), images)
        for suite in chosen:
            say(suite)
            print(f"== {suite}", flush=True)
            good = sdk(options) if suite == "sdk" else tempest(options, suite, settings(cloud, web_port, images))
            if not good:
                bad.append(suite)
    if bad:
        say(f"these are not as their lists say: {', '.join(bad)}.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
