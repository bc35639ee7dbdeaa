# SPDX-License-Identifier: Apache-2.0
"""Metrics by seed, with everything that CloudWatch takes at its limits, and some that it does not."""

import math
import random
import string

UNITS = [
    "Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits",
    "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second", "Kilobytes/Second",
    "Megabytes/Second", "Gigabytes/Second", "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
    "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
]
PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
GREATEST = 2.0**360
SMALLEST = 8.515920e-109


def text(random_, length):
    return "x" + "".join(random_.choices(PRINTABLE, k=length - 1))


def dimensions(random_, most):
    count = random_.choice([0, 0, 1, 2, most])
    return {
        f"D{n}" + text(random_, random_.choice([1, 8, 240])): text(random_, random_.choice([1, 12, 1024]))
        for n in range(count)
    }


def values(random_, kind):
    shape = random_.randrange(6)
    if shape == 0:
        some = [random_.choice([0.0, 1.0, SMALLEST, 1 / 3, 2.0**53 + 2, GREATEST / 4])]
    elif shape == 1:
        some = [float(random_.randrange(100)) for _ in range(random_.randrange(1, 50))]
    elif shape == 2:  # Buckets by the hundred: more than a datum or document takes.
        some = [random_.uniform(1, 10) ** random_.uniform(0, 40) for _ in range(600)]
    elif shape == 3:
        some = [random_.random() * 10.0 ** random_.randrange(-100, 100) for _ in range(40)]
    elif shape == 4:
        some = [0.1] * random_.randrange(1, 400)
    else:
        some = [GREATEST, 1.0, 0.0]
    if kind != "counter" and random_.random() < 0.4:
        some = [-value for value in some] + some[: len(some) // 2]
        random_.shuffle(some)
    return some


def metrics(seed, count):
    """Metrics that CloudWatch takes. Names differ, so that each is one series."""
    random_ = random.Random(seed)
    made = []
    for n in range(count):
        kind = random_.choice(["counter", "gauge", "histogram", "histogram"])
        made.append({
            "kind": kind,
            "name": f"M{n}" + text(random_, random_.choice([1, 10, 250])),
            "unit": UNITS[n % len(UNITS)],
            "resolution": random_.choice([1, 60]),
            # The probe's own dimension, Service, comes on top.
            "dimensions": dimensions(random_, 29),
            "values": values(random_, kind),
        })
    return made


INVALID = [
    {"kind": "counter", "name": "Negative", "unit": "Count", "values": [-1, -0.5]},
    {"kind": "histogram", "name": "Huge", "unit": "None", "values": [GREATEST * 1.01, -1e300]},
    {"kind": "gauge", "name": "Huge gauge", "unit": "None", "values": [1e109]},
    {"kind": "counter", "name": "é", "unit": "Count", "values": [1]},
    {"kind": "counter", "name": "x" * 256, "unit": "Count", "values": [1]},
    {"kind": "counter", "name": "", "unit": "Count", "values": [1]},
    {"kind": "counter", "name": "Many", "unit": "Count", "values": [1],
     "dimensions": {f"D{n}": "v" for n in range(30)}},
    {"kind": "counter", "name": "Empty", "unit": "Count", "values": [1], "dimensions": {"D": ""}},
    {"kind": "counter", "name": "Long", "unit": "Count", "values": [1], "dimensions": {"D": "v" * 1025}},
    {"kind": "counter", "name": "Colon", "unit": "Count", "values": [1], "dimensions": {":D": "v"}},
]


def count_of(some):
    return sum(len(metric["values"]) for metric in some)


def key_of(metric):
    """What tells series apart."""
    return (metric["name"], metric["unit"], metric.get("resolution", 60),
            tuple(sorted(({"Service": "probe"} | metric.get("dimensions", {})).items())))


def is_near(value, expected, scale):
    """Equal but for the rounding of sums whose parts are as large as `scale`."""
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12 * scale)
