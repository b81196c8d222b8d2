"""`down` stops everything and leaves the data; `--destroy` leaves nothing."""
import os
from lib import DROVER, STATE, guests, run


def test_down_leaves_the_data_and_nothing_else():
    run(DROVER, "down", "--state", STATE, timeout=120)
    assert not guests()
    assert os.path.exists(f"{STATE}/drover.db")
    left = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as f:
                line = f.read().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if STATE in line and int(number) != os.getpid():
            left.append(line)
    assert not left, left


def test_destroy_leaves_nothing():
    run(DROVER, "down", "--destroy", "--state", STATE, timeout=120)
    assert not os.path.exists(STATE)
