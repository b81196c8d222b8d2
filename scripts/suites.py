"""What the runners of upstream's suites share: reading the results of a run, and judging them by a list of exceptions.

A list of exceptions is a file of lines "ID # reason". Every id of a suite passes or is on its list; a skip is no pass.
"""

import pathlib
import shutil
import subprocess
import sys

import subunit
import testtools

BIN = pathlib.Path(sys.executable).parent
STESTR = str(BIN / "stestr")


def plain(test_id):
    """The id without its attributes: tests.Class.test[id-…,smoke](scenario) is listed as tests.Class.test(scenario)."""
    before, bracket, after = test_id.partition("[")
    return before + after.partition("]")[2] if bracket else before


class Results(testtools.StreamResult):
    KINDS = {"success": "passed", "xfail": "passed", "fail": "failed", "uxsuccess": "failed", "skip": "skipped"}

    def __init__(self):
        super().__init__()
        self.passed, self.failed, self.skipped = set(), set(), set()

    def status(self, test_id=None, test_status=None, **_):
        kind = self.KINDS.get(test_status)
        if test_id and kind:
            getattr(self, kind).add(plain(test_id))

    def add(self, other):
        self.passed |= other.passed
        self.failed |= other.failed
        self.skipped |= other.skipped

    def kind(self, test_id):
        """What became of a test that did not pass."""
        if test_id in self.failed:
            return "FAILED"
        whole_class = f"setUpClass ({test_id.rpartition('.')[0]})"
        return "SKIPPED" if {test_id, whole_class} & self.skipped else "NOT RUN"

    def summary(self):
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def forget(work):
    """Forgets the runs of before, so that a run that does not begin has no results."""
    shutil.rmtree(work / ".stestr", ignore_errors=True)
    subprocess.run([STESTR, "init"], cwd=work, check=True)


def last_results(work):
    """The results of stestr's last run in that directory, also as files of ids there."""
    with open(work / "last.subunit", "wb") as stream:
        subprocess.run([STESTR, "last", "--subunit"], cwd=work, stdout=stream, stderr=subprocess.DEVNULL)
    results = Results()
    with open(work / "last.subunit", "rb") as stream:
        subunit.ByteStreamToStreamResult(stream, non_subunit_name="stdout").run(results)
    for kind in ("passed", "failed", "skipped"):
        (work / f"{kind}.txt").write_text("".join(f"{test_id}\n" for test_id in sorted(getattr(results, kind))))
    return results


def read_exceptions(path):
    """Ids and reasons; a line without a reason is an error."""
    exceptions = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        test_id, _, reason = (part.strip() for part in line.partition("#"))
        if not test_id:
            continue
        if not reason:
            raise SystemExit(f"{path}:{number}: {test_id} has no reason; write one after a '#'.")
        exceptions[test_id] = reason
    return exceptions


def judge(ids, results, exceptions, whole=True):
    """Lines to print, and whether every id of the suite passed or is excepted. `whole`: all of the suite was asked for."""
    lines, good = [], True
    # A class whose setup or end fails is told under a name of its own.
    strays = results.failed - ids
    for test_id in sorted((ids - results.passed) | (ids & results.failed) | strays):
        if test_id not in exceptions:
            good = False
            lines.append(f"{results.kind(test_id)} {test_id}")
    for test_id in sorted(exceptions):
        if test_id in results.passed - results.failed:
            lines.append(f"PASSES NOW {test_id}; take it off the list")
        elif whole and test_id not in ids | results.failed:
            lines.append(f"UNKNOWN {test_id}; take it off the list")
    return lines, good
