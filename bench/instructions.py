#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions per recording call, counted by callgrind: instructions.py --build DIR [--update].

Fails when a call takes more than 2 instructions over what instructions.json records for it. The counts are of the release
build by Debian 12's g++; they repeat exactly. --update records the present ones.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

RECORDED = pathlib.Path(__file__).with_name("instructions.json")
TOLERANCE = 2


def parse_dump(text):
    """The name of the case and the instructions of one dump."""
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
    return (name[1], int(total[1])) if name and total else None


def count(build, program="record_instructions"):
    """{case: instructions per call} on the program's first thread, the loop's own taken off."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/out",
             build / "bench" / program],
            capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{program} failed:\n{run.stderr}{run.stdout}")
        calls = int(run.stdout.split()[0])
        dumps = pathlib.Path(folder).glob("out.*-01")
        totals = dict(filter(None, (parse_dump(path.read_text()) for path in dumps)))
    empty = totals.pop("empty", 0)
    return {case: round((total - empty) / calls, 1) for case, total in totals.items()}


def compare(recorded, counted):
    """What is to be said, line by line, and whether the check fails."""
    said, failed = [], False
    for case in sorted(recorded.keys() | counted.keys()):
        before, now = recorded.get(case), counted.get(case)
        if before is None or now is None:
            said.append(f"{case}: {'not recorded' if before is None else 'not counted any more'}")
            failed = True
        elif now > before + TOLERANCE:
            said.append(f"{case}: {now} instructions, recorded are {before}")
            failed = True
        elif now < before:
            said.append(f"{case}: {now} instructions, fewer than the recorded {before}: record them with --update")
    return said, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    counted = count(options.build)
    if options.update:
        RECORDED.write_text(json.dumps(dict(sorted(counted.items())), indent=1) + "\n")
    said, failed = compare(json.loads(RECORDED.read_text()), counted)
    print(*(f"{case:20} {count:6}" for case, count in sorted(counted.items())), *said, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
