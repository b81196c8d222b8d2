"""Runs the SDK's functional tests of identity and image against the cloud of OS_CLIENT_CONFIG_FILE, and judges them by a list.

They come with the SDK that is installed. The clouds.yaml names what they ask for: devstack (a member), devstack-alt (another),
devstack-admin and devstack-system-admin. Exit status: 0 if every id passed or is in the list given by --except, 1 if not.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

import openstack

import suites

FUNCTIONAL = pathlib.Path(openstack.__file__).resolve().parent / "tests" / "functional"
# Directories of tests, and what of them is about these two services.
PARTS = {
    "identity": r"",
    "image": r"",
    "cloud": r"\.test_(identity|image|inventory)\.",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--except", type=pathlib.Path, metavar="FILE", dest="exceptions", required=True, help='lines "ID # reason"')
    parser.add_argument("--only", metavar="REGEX", default="", help="only these ids; the rest of the list is not judged")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="directory of logs and results")
    return parser.parse_args()


def run(part, options, env):
    """The ids of one directory, and what became of them."""
    work = options.work.resolve() / part
    work.mkdir(parents=True, exist_ok=True)
    stestr = [suites.STESTR, "--test-path", str(FUNCTIONAL / part), "--top-dir", str(FUNCTIONAL.parents[2])]
    suites.forget(work)
    listed = subprocess.run([*stestr, "list"], cwd=work, env=env, stdout=subprocess.PIPE, text=True, check=True)
    names = [line for line in listed.stdout.splitlines() if line.startswith("openstack.")]
    ids = {name for name in names if re.search(PARTS[part], name) and re.search(options.only, name)}
    if not ids:
        return ids, suites.Results()
    # They upload this file of the directory that they run in.
    (work / "CONTRIBUTING.rst").write_text("Some bytes.\n")
    (work / "list.txt").write_text("".join(f"{test_id}\n" for test_id in sorted(ids)))
    print(f"sdk: running {len(ids)} tests; progress is in {work / 'out.txt'}", file=sys.stderr, flush=True)
    with open(work / "out.txt", "w") as out:
        # One after the other, as upstream does: several use the same names.
        command = [*stestr, "run", "--serial", "--load-list", "list.txt"]
        subprocess.run(command, cwd=work, env=env, stdout=out, stderr=subprocess.STDOUT)
    return ids, suites.last_results(work)


def main():
    options = arguments()
    env = {**os.environ, "OPENSTACKSDK_FLAVOR": "m1.nano", "OPENSTACKSDK_IMAGE": "tiny", "OS_TEST_TIMEOUT": "120"}
    del env["OS_CLOUD"]
    ids, results = set(), suites.Results()
    for part in PARTS:
        here, became = run(part, options, env)
        ids |= here
        results.add(became)
    lines, good = suites.judge(ids, results, suites.read_exceptions(options.exceptions), whole=not options.only)
    for line in lines:
        print(line)
    print(results.summary())
    return 0 if good and results.passed else 1


if __name__ == "__main__":
    sys.exit(main())
