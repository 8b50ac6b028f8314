# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload: a program of many small objects. objects.py COUNT PERCENT: in the working directory, for N = 1, 2, …: waits for the file "go-N",
gives PERCENT of its objects, here and there, another value, makes "done-N"; before N = 1, with all objects made, makes "done-0"."""
import itertools
import os
import random
import sys
import time


class Record:
    __slots__ = ("number", "name", "value", "tags", "seen")

    def __init__(self, number, chance):
        self.number = number
        self.name = f"record-{number}-{chance.getrandbits(64):016x}"
        self.value = chance.random()
        self.tags = [number % 7, number % 11]
        self.seen = {"first": number, "last": chance.getrandbits(32)}


def change(records, percent, chance):
    for record in chance.sample(records, len(records) * percent // 100):
        record.value = chance.random()


def main():
    count, percent = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(1)
    records = [Record(number, chance) for number in range(count)]
    by_name = {record.name: record for record in records}
    open("done-0", "w", encoding="ascii").close()
    for step in itertools.count(1):
        while not os.path.exists(f"go-{step}"):
            time.sleep(0.02)
        change(records, percent, chance)
        assert len(by_name) == count
        open(f"done-{step}", "w", encoding="ascii").close()


main()
