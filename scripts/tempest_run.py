"""Runs Tempest tests against the cloud of OS_CLIENT_CONFIG_FILE and OS_CLOUD (an admin cloud), and compares with the ratchet.

The ratchet is a file of test ids that passed once: the run fails if one of them was run and did not pass, or is gone.
Exit status: 0 if something ran and no recorded id was lost, 1 if one was lost or nothing ran, 2 if the cloud is not ready.
Standard output is data: the lost and the new ids, and last "N passed, N failed, N skipped".
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

import keystoneauth1.exceptions
import openstack
import openstack.exceptions
import subunit
import testtools

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "tempest"
RATCHET = TESTS / "ratchet.txt"
TEMPEST = str(pathlib.Path(sys.executable).parent / "tempest")
STESTR = str(pathlib.Path(sys.executable).parent / "stestr")


def say(text):
    print(f"tempest: {text}", file=sys.stderr, flush=True)


def setting(text):
    found = re.fullmatch(r"([^.=]+)\.([^.=]+)=(.*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not SECTION.OPTION=VALUE")
    return found.groups()


def arguments():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="files of test ids, or regular expressions (default: a-tempest.txt and the ratchet)")
    parser.add_argument("--update", action="store_true", help="add what newly passes to the ratchet (of ids that upstream passes)")
    parser.add_argument("--workers", type=int, default=2, help="tests at once (default 2)")
    parser.add_argument("--work", type=pathlib.Path, default=cache / "drover" / "tempest", help="directory of logs and results")
    parser.add_argument("--no-ssh", action="store_true", help="do not log into guests (for the simulated node)")
    parser.add_argument("--image", default="tiny")
    parser.add_argument("--image-alt", default="tiny-alt")
    parser.add_argument("--flavor", default="m1.nano")
    parser.add_argument("--flavor-alt", default="m1.micro")
    parser.add_argument("--public", default="public")
    parser.add_argument("--set", action="append", default=[], type=setting, metavar="SECTION.OPTION=VALUE", dest="settings",
                        help="an option of tempest.conf, such as image-feature-enabled.image_format_enforcement=false "
                        "for a cloud that was started with --no-require-image-format-match")
    return parser.parse_args()


def read_ids(path):
    if not path.exists():
        return set()
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return {words[0] for words in lines if words and words[0] != "MISSING"}


def plain(test_id):
    """The id without its attributes: tests.Class.test[id-…,smoke] is listed as tests.Class.test."""
    return test_id.split("[")[0]


def write_configuration(options, work):
    cloud = openstack.connect()
    auth = cloud.config.config["auth"]

    def one(kind, resource, name):
        if resource is None:
            raise SystemExit(f"tempest: the cloud has no {kind} {name}; run make up.")
        return resource.id

    catalog = {service.get("type") for service in cloud.service_catalog}
    values = {
        "WORK": work,
        "URL": auth["auth_url"],
        "USER": auth["username"],
        "PASS": auth["password"],
        "PROJ": auth["project_name"],
        "IMAGE": one("image", cloud.image.find_image(options.image), options.image),
        "IMAGE_ALT": one("image", cloud.image.find_image(options.image_alt), options.image_alt),
        "FLAVOR": one("flavor", cloud.compute.find_flavor(options.flavor), options.flavor),
        "FLAVOR_ALT": one("flavor", cloud.compute.find_flavor(options.flavor_alt), options.flavor_alt),
        "PUBLIC": one("network", cloud.network.find_network(options.public), options.public),
        "EXT": ",".join(sorted(extension.alias for extension in cloud.network.extensions())),
        "CINDER": str(bool(catalog & {"volumev3", "block-storage"})).lower(),
        "VALIDATE": str(not options.no_ssh).lower(),
    }
    text = (TESTS / "tempest.conf.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    for section, option, value in options.settings:
        text += f"\n[{section}]\n{option} = {value}\n"
    path = work / "etc" / "tempest.conf"
    path.touch(mode=0o600)
    path.write_text(text)


def known_tests(work):
    """Every test of Tempest: the plain id and the full one, which alone can be run."""
    listed = subprocess.run([TEMPEST, "run", "--list-tests"], cwd=work, stdout=subprocess.PIPE, text=True, check=True)
    return {plain(line): line for line in listed.stdout.splitlines() if line.startswith("tempest.")}


def wanted(options, known):
    if not options.what:
        return read_ids(TESTS / "a-tempest.txt") | read_ids(RATCHET)
    ids = set()
    for what in options.what:
        path = pathlib.Path(what)
        ids |= read_ids(path) if path.is_file() else {name for name in known if re.search(what, name)}
    return ids


class Results(testtools.StreamResult):
    KINDS = {"success": "passed", "xfail": "passed", "fail": "failed", "uxsuccess": "failed", "skip": "skipped"}

    def __init__(self):
        super().__init__()
        self.passed, self.failed, self.skipped = set(), set(), set()

    def status(self, test_id=None, test_status=None, **_):
        kind = self.KINDS.get(test_status)
        if test_id and kind:
            getattr(self, kind).add(plain(test_id) if test_id.startswith("tempest.") else test_id)


def run(options, work, ids):
    (work / "list.txt").write_text("".join(f"{test_id}\n" for test_id in sorted(ids)))
    with open(work / "out.txt", "w") as out:
        command = [TEMPEST, "run", "--concurrency", str(options.workers), "--load-list", "list.txt"]
        subprocess.run(command, cwd=work, stdout=out, stderr=subprocess.STDOUT)
    with open(work / "last.subunit", "wb") as stream:
        subprocess.run([STESTR, "last", "--subunit"], cwd=work, stdout=stream, stderr=subprocess.DEVNULL)
    results = Results()
    with open(work / "last.subunit", "rb") as stream:
        subunit.ByteStreamToStreamResult(stream, non_subunit_name="stdout").run(results)
    for kind in ("passed", "failed", "skipped"):
        (work / f"{kind}.txt").write_text("".join(f"{test_id}\n" for test_id in sorted(getattr(results, kind))))
    return results


def main():
    options = arguments()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / ".stestr.conf").exists():
        subprocess.run([TEMPEST, "init", str(work)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    try:
        write_configuration(options, work)
    except (openstack.exceptions.SDKException, keystoneauth1.exceptions.ClientException) as error:
        say(f"the cloud does not answer: {error}. Run make up.")
        return 2

    known = known_tests(work)
    ids = wanted(options, known)
    gone = sorted(ids - known.keys())
    say(f"running {len(ids) - len(gone)} tests; progress is in {work / 'out.txt'}")
    results = run(options, work, [known[name] for name in ids if name in known])

    recorded = read_ids(RATCHET)
    lost = sorted((recorded & ids) - results.passed)
    new = sorted((results.passed & (read_ids(TESTS / "upstream-passes.txt") | read_ids(TESTS / "a-tempest.txt"))) - recorded)
    for name in gone:
        print(f"UNKNOWN {name}")
    for name in sorted(results.failed):
        print(f"FAILED {name}")
    for name in lost:
        print(f"LOST {name}")
    if new and options.update:
        RATCHET.write_text("".join(f"{name}\n" for name in sorted(recorded | set(new))))
        say(f"{len(new)} ids are new in {RATCHET.name}; commit it.")
    elif new:
        say(f"{len(new)} more ids pass than the ratchet records; run with --update to record them.")
    if lost:
        say(f"{len(lost)} recorded ids were lost; see their traces in {work / 'out.txt'}.")
    print(f"{len(results.passed)} passed, {len(results.failed)} failed, {len(results.skipped)} skipped")
    return 1 if lost or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main())
