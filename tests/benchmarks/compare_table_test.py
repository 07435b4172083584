#!/usr/bin/env python3
"""What compare_table.py prints and judges: run by ctest."""
import io
import unittest
from contextlib import redirect_stdout

from compare_table import Table, bounds, digits


def printed(lines):
    """The bounds of these (name, value) lines, and how many were missed."""
    table = Table()
    for name, value in lines:
        table.values.setdefault(name, []).append(value)
    out = io.StringIO()
    with redirect_stdout(out):
        bounds(table)
    return out.getvalue(), table.failed


def training(ours, peer):
    """The lines of some turns of one network."""
    lines = []
    for mine, theirs in zip(ours, peer):
        lines += [("resnet18.recorder_10.blocked_cpu_ms", mine), ("resnet18.classic_10.blocked_cpu_ms", mine),
                  ("resnet18.activations_10.blocked_cpu_ms", 10 * mine), ("resnet18.rerun.blocked_cpu_ms", theirs),
                  ("resnet18.gather_classic_ms", 1.0), ("resnet18.memcpy_classic_ms", 1.0)]
    return lines


class Tables(unittest.TestCase):
    def test_digits_do_not_hide_a_miss(self):
        self.assertEqual(digits(39.96, 40), "39.96")
        self.assertEqual(digits(39.9996, 40), "39.9996")
        self.assertEqual(digits(2.0000001, 2), "2.0000001")
        self.assertEqual(digits(40, 40), "40.00")
        self.assertEqual(digits(41.239, 40), "41.24")

    def test_a_miss_shows_what_was_compared(self):
        text, failed = printed(training([0.1, 0.1, 0.1], [3.9996, 4.1, 3.5]))
        self.assertEqual(failed, 2)
        self.assertIn("39.996 x (35 to 41 in 3 turns) | >= 40 x | **FAIL**", text)
        text, failed = printed(training([0.1, 0.1, 0.1], [4.001, 4.1, 3.5]))
        self.assertEqual(failed, 0)
        self.assertIn("40.01 x (35 to 41 in 3 turns) | >= 40 x | pass", text)

    def test_too_few_turns_are_not_judged(self):
        for ours, peer in (([0.1], [1.0]), ([0.1, 0.1], [1.0, 1.0])):
            text, failed = printed(training(ours, peer))
            self.assertEqual(failed, 0)
            self.assertIn("| not judged |", text)
            self.assertNotIn("FAIL", text)

    def test_a_quick_run_judges_only_what_is_steady(self):
        lines = training([0.1] * 5, [1.0] * 5) + [("throughput.busy.ratio", 0.5), ("throughput.busy.fps", 10.0),
                                                  ("throughput.watched.ratio", 0.5), ("throughput.watched.fps", 10.0),
                                                  ("shapes.activations", 0.5)]
        memory = [("memory.fit.max_host_bytes", 100.0), ("memory.fit.growth_bytes", 101.0)]
        self.assertEqual(printed([("run.quick", 1)] + lines)[1], 0)
        self.assertEqual(printed([("run.quick", 1)] + lines + memory)[1], 1)
        self.assertEqual(printed(lines + memory)[1], 5)  # two of the peer, busy, shapes, memory; watched has one turn

    def test_a_blocked_thread_is_judged_by_its_median(self):
        text, failed = printed(training([0.39, 0.41, 0.5], [400, 400, 400]))
        self.assertEqual(failed, 2)  # a due update() of 0.41 ms, and activations
        self.assertIn("0.41 ms (0.39 to 0.5 in 3 turns) | <= 0.4 ms | **FAIL**", text)


if __name__ == "__main__":
    unittest.main()
