"""The checker of histories is itself checked: by known histories, and against an exhaustive search on small ones."""
import itertools
import random
import unittest
from register import UNKNOWN, Op, violation

START = Op("write", "0", -2, -1)


def exhaustive(ops):
    """Is there an order that explains it? Unknown writes may be left out. For a few operations only."""
    done = [op for op in ops if op.kind == "read" or (op.kind == "write" and op.end != UNKNOWN)]
    open_ = [op for op in ops if op.kind == "write" and op.end == UNKNOWN]
    for some in itertools.chain.from_iterable(itertools.combinations(open_, n) for n in range(len(open_) + 1)):
        if place(done + list(some), None):
            return True
    return False


def place(left, holds):
    if not left:
        return True
    soonest = min(op.end for op in left)
    for op in left:
        if op.begin <= soonest and (op.kind == "write" or op.value == holds):
            if place([other for other in left if other is not op], op.value if op.kind == "write" else holds):
                return True
    return False


class Known(unittest.TestCase):
    def linearizable(self, *ops):
        self.assertIsNone(violation([START, *ops]))
        self.assertTrue(exhaustive([START, *ops]))

    def wrong(self, *ops):
        self.assertIsNotNone(violation([START, *ops]))
        self.assertFalse(exhaustive([START, *ops]))

    def test_one_after_another(self):
        self.linearizable(Op("read", "0", 0, 1), Op("write", "a", 2, 3), Op("read", "a", 4, 5))

    def test_a_read_during_a_write_may_see_either(self):
        self.linearizable(Op("write", "a", 0, 9), Op("read", "0", 1, 2), Op("read", "a", 3, 4))

    def test_a_stale_read(self):
        self.wrong(Op("write", "a", 0, 1), Op("read", "0", 2, 3))

    def test_a_lost_write(self):
        self.wrong(Op("write", "a", 0, 1), Op("write", "b", 2, 3), Op("read", "a", 4, 5))

    def test_a_value_that_comes_back(self):
        self.wrong(Op("write", "a", 0, 9), Op("read", "a", 1, 2), Op("read", "0", 3, 4))

    def test_two_readers_who_disagree_on_the_order(self):
        writes = Op("write", "a", 0, 20), Op("write", "b", 0, 20)
        self.wrong(*writes, Op("read", "a", 1, 2), Op("read", "b", 3, 4), Op("read", "a", 5, 6))

    def test_a_read_from_the_future(self):
        self.wrong(Op("read", "a", 0, 1), Op("write", "a", 2, 3))

    def test_an_unknown_write_may_happen_late_or_never(self):
        unknown = Op("write", "a", 0, UNKNOWN)
        self.linearizable(unknown, Op("read", "0", 1, 2))
        self.linearizable(unknown, Op("read", "0", 1, 2), Op("read", "a", 3, 4))

    def test_an_unknown_write_happens_once(self):
        self.wrong(Op("write", "a", 0, UNKNOWN), Op("read", "a", 1, 2), Op("write", "b", 3, 4), Op("read", "b", 5, 6), Op("read", "a", 7, 8))

    def test_what_was_refused_is_never_read(self):
        self.assertIsNotNone(violation([START, Op("refused", "a", 0, 1), Op("read", "a", 2, 3)]))


class Random(unittest.TestCase):
    def test_it_agrees_with_an_exhaustive_search(self):
        dice, found = random.Random(7), {True: 0, False: 0}
        for _ in range(6000):
            # Instants are all different, as those of a clock are.
            times = iter(dice.sample(range(1000), 14))
            spans = [sorted((next(times), next(times))) for _ in range(dice.randint(2, 7))]
            values, ops = ["0"], [START]
            for number, (begin, end) in enumerate(spans):
                if dice.random() < 0.4:
                    values.append(str(number + 1))
                    ops.append(Op("write", values[-1], begin, UNKNOWN if dice.random() < 0.3 else end))
                else:
                    ops.append(Op("read", "?", begin, end))
            ops = [Op("read", dice.choice(values), op.begin, op.end) if op.value == "?" else op for op in ops]
            expected = exhaustive(ops)
            found[expected] += 1
            self.assertEqual(violation(ops) is None, expected, [str(op) for op in ops])
        self.assertGreater(min(found.values()), 1000, "both kinds of history must be among them")


if __name__ == "__main__":
    unittest.main()
