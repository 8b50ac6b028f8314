# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload: a program of many small objects. objects.py COUNT PERCENT: in the working directory, for N = 1, 2, …: waits for the file "go-N",
gives PERCENT of its objects, here and there, another value, makes "done-N"; before N = 1, with all objects made, makes "done-0"."""
import itertools
import os
import random
import sys
import time


class Record:
    __slots__ = ("number", "source", "value")

    def __init__(self, number, source, value):
        self.number, self.source, self.value = number, source, value


def read_input(count, chance):
    """As from a file: what stays as it is."""
    return [{"name": f"record-{number}-{chance.getrandbits(64):016x}", "tags": [number % 7, number % 11], "seen": chance.getrandbits(32)}
            for number in range(count)]


def change(records, percent, chance):
    for record in chance.sample(records, len(records) * percent // 100):
        record.value = chance.random()


def main():
    count, percent = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(1)
    sources = read_input(count, chance)
    records = [Record(number, source, chance.random()) for number, source in enumerate(sources)]
    open("done-0", "w", encoding="ascii").close()
    for step in itertools.count(1):
        while not os.path.exists(f"go-{step}"):
            time.sleep(0.02)
        change(records, percent, chance)
        open(f"done-{step}", "w", encoding="ascii").close()


main()
