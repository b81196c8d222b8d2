#!/usr/bin/env python3
"""Upgrades a lab under load, one machine after the other, takes one back and upgrades it again, and prints what clients noticed. `make upgrade`.

The lab is started with the program of the previous commit (or of FROM=REV), which is built in a work tree of its own; then each controller and each
node gets the program that is built here (DROVER_BIN). Between the steps versions are mixed, and everything that was acknowledged is read back through
each controller, so rows of each version are read by the other. The answer is 0 if nothing was lost, done twice, or needed a human.

  FROM                 what to begin with: a commit, or the path of a program (HEAD^)
  --same               begin with a copy of the same program: a rolling restart, for tests
and the rest as chaos.py has it (DROVER_CHAOS_RATE, _USES, _KEEP …)
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def built(commit, target):
    """The program of another commit, built apart so that nothing here is built anew."""
    tree = tempfile.mkdtemp(prefix="drover-upgrade.")
    try:
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
        # By release as `make build` does; DROVER_UPGRADE_PROFILE=dev is quicker to build.
        profile = os.environ.get("DROVER_UPGRADE_PROFILE", "release")
        subprocess.run(["cargo", "build", "--quiet", "--profile", profile, "--package", "drover"], cwd=tree,
                       env={**os.environ, "CARGO_TARGET_DIR": target}, check=True)
        return f"{target}/{'debug' if profile == 'dev' else profile}/drover"
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", action="store_true", help="begin with a copy of the same program")
    parser.add_argument("--short", action="store_true", help="less load, and less of it")
    options = parser.parse_args()
    new = os.environ.get("DROVER_BIN") or parser.error("set DROVER_BIN to the program, or use: make upgrade")
    start = os.environ.get("FROM") or "HEAD^"
    with tempfile.TemporaryDirectory(prefix="drover-from.") as at:
        # The services of hosts run as users of their own.
        os.chmod(at, 0o711)
        if options.same:
            source = new
        elif os.path.isfile(start):
            source = start
        else:
            target = os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "-upgrade"
            source = built(start, target)
        # Processes are known by their program's name.
        old = shutil.copy(source, f"{at}/drover")
        environment = {**os.environ, "DROVER_BIN": old, "DROVER_UPGRADE_TO": os.path.abspath(new)}
        return subprocess.run([sys.executable, f"{HERE}/chaos.py", *(["--short"] if options.short else [])], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
