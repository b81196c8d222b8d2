#!/usr/bin/env python3
"""Runs the parts of the end-to-end test in order and ends with a count: `N passed, N failed`."""
import importlib
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
PARTS = ["start", "day", "second_client", "libcloud_client", "volumes", "cli_sweep", "outside", "console", "uploads", "object_store", "kills", "storm", "leaks", "controllers", "server", "operate", "package", "lab", "hosts", "stop"]
# Only when they are named: one needs a cloud on a small file system, one is a figure.
APART = ["full_disk", "boots"]


def main():
    wanted = sys.argv[1:]
    passed, failed = 0, 0
    parts = PARTS[:-1] + APART + PARTS[-1:] if wanted else PARTS
    for part in parts:
        if wanted and part not in wanted and part not in ("start", "stop"):
            continue
        for name, test in list(vars(importlib.import_module(part)).items()):
            if not name.startswith("test_"):
                continue
            begin = time.time()
            try:
                test()
                passed += 1
                print(f"PASS {part}.{name} ({time.time() - begin:.1f} s)", flush=True)
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"FAIL {part}.{name} ({time.time() - begin:.1f} s)", flush=True)
                if part == "start":
                    print(f"{passed} passed, {failed} failed")
                    return 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())
