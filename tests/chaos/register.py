"""Was a register linearizable? For one value that many write and read, where each write has a value of its own.

Then the values are independent of each other, and no search is needed (Gibbons and Korach, "Testing shared memories", section 4). All that
was done with one value, its write and its reads, is a cluster; it lasts from the first end to the last beginning of its operations. When the
first end is before the last beginning, the register must have held the value all that time: a forward zone. Otherwise there is an instant
that all of them share, and somewhere in between the value must have been there: a backward zone. A history is linearizable if no value is
read before its write begins, no two forward zones overlap, and no backward zone lies within a forward one.

A write whose outcome nobody knows may take effect at any time from its beginning on, or never: it has no end, and if nobody read its value
it is as if it had not been. One that was refused must never be read.
"""
import math
from dataclasses import dataclass

UNKNOWN = math.inf


@dataclass(frozen=True)
class Op:
    """One operation as its client saw it; `end` of a write without a known outcome is UNKNOWN."""
    kind: str  # "read", "write", or "refused" for a write that was not carried out
    value: str
    begin: float
    end: float
    by: str = ""

    def __str__(self):
        return f"{self.by} {self.kind} {self.value} [{self.begin:.4f}, {self.end:.4f}]"


def violation(ops):
    """Why the history is not linearizable, or None. The first value is a write that begins and ends before all else."""
    clusters, writes = {}, {}
    for op in ops:
        if op.kind == "write":
            if op.value in writes:
                raise ValueError(f"{op.value} is written twice; each write needs a value of its own")
            writes[op.value] = op
        if op.kind != "refused":
            clusters.setdefault(op.value, []).append(op)
    zones = []
    for value, cluster in clusters.items():
        write = writes.get(value)
        if write is None:
            return f"nobody wrote what was read, or the write was refused: {cluster[0]}"
        early = next((op for op in cluster if op.end < write.begin), None)
        if early:
            return f"read before it was written: {early}; {write}"
        first, last = min(cluster, key=lambda op: op.end), max(cluster, key=lambda op: op.begin)
        if first.end != UNKNOWN:
            zones.append((first.end, last.begin, first, last))
    forward = sorted((zone for zone in zones if zone[0] < zone[1]), key=lambda zone: zone[0])
    for one, next_ in zip(forward, forward[1:]):
        if next_[0] < one[1]:
            return f"a value was there again after another: {one[2]}; {next_[2]}; {one[3]}; {next_[3]}"
    for low, high, first, last in ((b, a, f, l) for a, b, f, l in zones if a >= b):
        for begin, end, since, until in forward:
            if begin < low and high < end:
                return f"a value was there in the middle of another: {since}; {first}; {last}; {until}"
    return None
