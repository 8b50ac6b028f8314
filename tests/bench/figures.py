# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: figures with a goal or without, printed as a table or as JSON; and where the bed's modules are, so import this first."""
import json
import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("system", "bed", "faults")]


class Figures:
    def __init__(self, bench):
        self.bench, self.rows = bench, []

    def add(self, name, value, unit, goal=None, met=None):
        """A goal is a text for people; met says whether it was reached."""
        self.rows.append({"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "met": met})

    def spread(self, name, values, unit, goal=None, met=None):
        """Median, minimum and maximum. met(median) says whether the goal was reached."""
        median = statistics.median(values)
        self.add(f"{name}, median of {len(values)}", median, unit, goal, met(median) if met else None)
        self.add(f"{name}, min", min(values), unit)
        self.add(f"{name}, max", max(values), unit)
        return median

    def report(self):
        """Prints, and ends the program: 1 if a goal was missed."""
        if "--json" in sys.argv[1:]:
            print(json.dumps({"bench": self.bench, "figures": self.rows}, indent=2))
        else:
            width = max(len(row["name"]) for row in self.rows)
            for row in self.rows:
                verdict = f"goal {row['goal']}: {'met' if row['met'] else 'MISSED'}" if row["goal"] else ""
                print(f"{row['name']:<{width}}  {row['value']:>10.3f} {row['unit']:<4} {verdict}".rstrip())
        sys.exit(any(row["met"] is False for row in self.rows))


def say(text):
    """Progress goes to standard error: standard output is the result."""
    print(text, file=sys.stderr, flush=True)
