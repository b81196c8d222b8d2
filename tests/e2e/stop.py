"""`down` stops everything and leaves the data; `--destroy` leaves nothing."""
import json
import os
from lib import DROVER, STATE, commands, guests, run


def test_down_leaves_the_data_and_nothing_else():
    run(DROVER, "down", "--state", STATE, timeout=120)
    assert not guests()
    assert os.path.exists(f"{STATE}/drover.db")
    left = [argv for _, argv in commands()]
    assert not left, left


def test_destroy_leaves_nothing():
    run(DROVER, "down", "--destroy", "--state", STATE, timeout=120)
    assert not os.path.exists(STATE)
    # The namespace of the test was empty before.
    assert [link["ifname"] for link in json.loads(run("ip", "-j", "link"))] == ["lo"]
