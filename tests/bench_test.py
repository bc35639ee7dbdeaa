#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark programs run and answer every question; the instruction check fails when it should. No time is judged.

bench_test.py BUILD
"""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "bench"))
import instructions
import run

KEYS = {"suite", "case", "subject", "threads", "ns_p50", "ns_p99", "ns_p999", "ns_mean", "instructions", "per_second"}


def row(subject="spillway", threads=1, **figures):
    return {**dict.fromkeys(KEYS), "suite": "record", "case": "x", "subject": subject, "threads": threads, **figures}


class Instructions(unittest.TestCase):
    def test_up_to_two_more_pass(self):
        self.assertEqual(instructions.compare({"add": 25.0}, {"add": 27.0}), ([], False))

    def test_more_than_two_more_fail(self):
        said, failed = instructions.compare({"add": 25.0}, {"add": 27.1})
        self.assertTrue(failed)
        self.assertIn("27.1", said[0])

    def test_fewer_are_said_and_pass(self):
        said, failed = instructions.compare({"add": 25.0}, {"add": 24.0})
        self.assertFalse(failed)
        self.assertIn("--update", said[0])

    def test_a_case_that_is_not_on_both_sides_fails(self):
        self.assertTrue(instructions.compare({}, {"add": 1.0})[1])
        self.assertTrue(instructions.compare({"add": 1.0}, {})[1])

    def test_a_dump_is_read_by_its_name(self):
        dump = "version: 1\ndesc: Trigger: Client Request: log_3_fields\n\nfn=(1)\n1 5\n\ntotals: 108000\n"
        self.assertEqual(instructions.parse_dump(dump), ("log_3_fields", 108000))

    def test_the_dump_at_the_programs_end_is_no_case(self):
        self.assertIsNone(instructions.parse_dump("desc: Trigger: Program termination\ntotals: 5\n"))


class Tables(unittest.TestCase):
    def test_a_figure_is_held_against_the_floor_of_as_many_threads(self):
        lines = run.table([row("floor", 1, ns_p50=2.0), row("floor", 2, ns_p50=4.0), row("ours", 2, ns_p50=6.0)])
        self.assertEqual(lines[0].split(), ["subject", "threads", "p50", "ns", "over", "floor"])
        self.assertEqual(lines[3].split(), ["ours", "2", "6.00", "1.50"])

    def test_columns_without_a_figure_are_left_out(self):
        self.assertEqual(run.table([row(per_second=6.6e6)])[0].split(), ["subject", "threads", "a", "second"])

    def test_figures_are_short(self):
        self.assertEqual([run.short(x) for x in (None, 0, 1.849, 45.21, 843.4, 14_800, 6_600_000, 3e9)],
                         ["", "0.00", "1.85", "45.2", "843", "14.8 k", "6.6 M", "3 G"])


class Programs(unittest.TestCase):
    build = None

    def smoke(self, suite):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as printed:
            file = pathlib.Path(folder, "rows.json")
            self.assertEqual(run.main(["--build", str(self.build), suite, "--smoke", "--json", str(file)]), 0)
            rows = json.loads(file.read_text())
        for one in rows:
            self.assertLessEqual(KEYS, one.keys())
            self.assertEqual(one["suite"], suite)
            figures = [one[key] for key in one.keys() - {"suite", "case", "subject", "threads"}]
            self.assertTrue(any(figure is not None for figure in figures), one)
        return {one["case"] for one in rows}, printed.getvalue()

    def test_every_question_is_answered(self):
        for suite, questions in run.QUESTIONS.items():
            with self.subTest(suite):
                cases, printed = self.smoke(suite)
                self.assertEqual(cases, questions.keys())
                for question in questions.values():
                    self.assertIn(question, printed)


if __name__ == "__main__":
    Programs.build = pathlib.Path(sys.argv.pop(1))
    unittest.main()
