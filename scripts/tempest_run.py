"""Runs Tempest tests against the cloud of OS_CLIENT_CONFIG_FILE and OS_CLOUD (an admin cloud), and compares with the ratchet.

The ratchet is a file of test ids that passed once: the run fails if one of them was run and did not pass, or is gone.
With --except FILE the run also fails if an id that was asked for did not pass and is not in FILE, where each id has its reason.
Exit status: 0 if something ran and all was as recorded, 1 if not or if nothing ran, 2 if the cloud is not ready.
Standard output is data: the ids that are not as recorded, and last "N passed, N failed, N skipped".
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import keystoneauth1.exceptions
import openstack
import openstack.exceptions

import suites
from suites import plain

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "tempest"
RATCHET = TESTS / "ratchet.txt"
TEMPEST = str(pathlib.Path(sys.executable).parent / "tempest")
# Tempest's own tests and those of its plugins.
PREFIXES = ("tempest.", "keystone_tempest_plugin.")
# Whatever passes of these is recorded; of the rest, what upstream passes.
WHOLE = re.compile(r"tempest\.api\.(identity|image)\.")


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
    parser.add_argument("--update", action="store_true", help="add what newly passes to the ratchet")
    parser.add_argument("--workers", type=int, default=2, help="tests at once (default 2)")
    parser.add_argument("--work", type=pathlib.Path, default=cache / "drover" / "tempest", help="directory of logs and results")
    parser.add_argument("--except", type=pathlib.Path, metavar="FILE", dest="exceptions",
                        help='every id that is asked for passes, or FILE says why not: lines "ID # reason"')
    parser.add_argument("--part", action="store_true", help="with --except: only a part of FILE's suite is run, so its other ids may be absent")
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
    """Every test of Tempest and its plugins: the plain id and the full one, which alone can be run."""
    listed = subprocess.run([TEMPEST, "run", "--list-tests"], cwd=work, stdout=subprocess.PIPE, text=True, check=True)
    return {plain(line): line for line in listed.stdout.splitlines() if line.startswith(PREFIXES)}


def wanted(options, known):
    if not options.what:
        return read_ids(TESTS / "a-tempest.txt") | read_ids(RATCHET)
    ids = set()
    for what in options.what:
        path = pathlib.Path(what)
        ids |= read_ids(path) if path.is_file() else {name for name in known if re.search(what, name)}
    return ids


def run(options, work, ids):
    (work / "list.txt").write_text("".join(f"{test_id}\n" for test_id in sorted(ids)))
    if not ids:
        return suites.Results()
    suites.forget(work)
    with open(work / "out.txt", "w") as out:
        command = [TEMPEST, "run", "--concurrency", str(options.workers), "--load-list", "list.txt"]
        subprocess.run(command, cwd=work, stdout=out, stderr=subprocess.STDOUT)
    return suites.last_results(work)


def main():
    options = arguments()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / ".stestr.conf").exists():
        with tempfile.TemporaryDirectory() as own:
            # Not the user's list of workspaces, in which another one may have the name.
            command = [TEMPEST, "init", "--workspace-path", f"{own}/workspaces.yaml", str(work)]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
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

    for name in gone:
        print(f"UNKNOWN {name}")
    good = judge(options, results, ids & known.keys()) if options.exceptions else compare(options, results, ids)
    if not good:
        say(f"see the traces in {work / 'out.txt'}.")
    print(results.summary())
    return 0 if good and results.passed else 1


def judge(options, results, ids):
    """Is every id that was asked for passed or excepted?"""
    lines, good = suites.judge(ids, results, suites.read_exceptions(options.exceptions), whole=not options.part)
    for line in lines:
        print(line)
    if not good:
        say(f"not all passes that should: mend it, or write into {options.exceptions} why not.")
    return good


def compare(options, results, ids):
    """Does every recorded id pass that was run?"""
    recorded = read_ids(RATCHET)
    lost = sorted((recorded & ids) - results.passed)
    listed = read_ids(TESTS / "upstream-passes.txt") | read_ids(TESTS / "a-tempest.txt")
    new = sorted({name for name in results.passed - recorded if name in listed or WHOLE.match(name)})
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
        say(f"{len(lost)} recorded ids were lost.")
    return not lost


if __name__ == "__main__":
    sys.exit(main())
