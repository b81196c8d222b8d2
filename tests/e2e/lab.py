"""A lab under load while its controllers are killed, switched off and paused: what was acknowledged stays. `tests/run lab`."""
import os
import subprocess
import sys
from lib import DROVER

CHAOS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "chaos")


def test_the_checker_of_histories_finds_what_is_not_linearizable():
    subprocess.run([sys.executable, "-m", "unittest", "-q", "test_register"], cwd=CHAOS, check=True, timeout=120)


def test_a_lab_serves_through_faults_and_loses_nothing():
    # Its figures are printed and not judged here: this machine may have other work.
    done = subprocess.run([os.path.join(CHAOS, "chaos.py"), "--short"], env={**os.environ, "DROVER_BIN": DROVER}, timeout=900)
    assert done.returncode == 0, "something was wrong; it is named above"


def test_machines_are_restarted_one_by_one_under_load():
    """As an upgrade does, with a copy of the same program: `make upgrade` does it with another version."""
    done = subprocess.run([os.path.join(CHAOS, "upgrade.py"), "--same", "--short"], env={**os.environ, "DROVER_BIN": DROVER}, timeout=900)
    assert done.returncode == 0, "something was wrong; it is named above"
