# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the system tests in the bed: run.py [--counts FILE] [NAME…], where a NAME is part of a module's or a test's name.

Tests are the functions test_*(bed) of tests/system/test_*.py and tests/faults/test_*.py. A module may set FRESH_CLUSTER = True (its tests
start on new disks) and TIMEOUT (seconds per test). Otherwise all share one cluster, which is healed after each test.
The last line is `N passed, N failed`; a failed test shows its traceback and the ends of all logs."""
import argparse
import importlib.util
import signal
import sys
import time
import traceback
from pathlib import Path

from lib import Bed
import machines

TESTS = Path(__file__).resolve().parent.parent
DEFAULT_TIMEOUT = 180


class TooSlow(BaseException):
    """Not an Exception: no test may catch it."""


def discover(names):
    """(module, test name) of all tests whose full name holds one of the names."""
    found = []
    for file in sorted((TESTS / "system").glob("test_*.py")) + sorted((TESTS / "faults").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"{file.parent.name}.{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tests = [n for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
        found += [(module, t) for t in tests if not names or any(n in f"{module.__name__}.{t}" for n in names)]
    return found


def limited(function, seconds):
    """Runs function(); its traceback, or None if all was well."""
    def too_slow(*_):
        raise TooSlow(f"not done after {seconds} s")
    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(seconds)
    try:
        function()
        return None
    except (Exception, TooSlow):
        return traceback.format_exc()
    finally:
        signal.alarm(0)


def run_test(bed, module, test):
    """One test and the healing after it: what a test breaks for good is its own failure."""
    seconds = getattr(module, "TIMEOUT", DEFAULT_TIMEOUT)
    problem = limited(lambda: getattr(module, test)(bed), seconds)
    if problem:
        print(problem + machines.logs(40), flush=True)
    unhealed = limited(bed.heal, 120)
    if unhealed:
        print("the cluster could not be healed after this test and is made anew:\n" + unhealed + machines.logs(40), flush=True)
        bed.reset()
    return not (problem or unhealed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", help="a file that gets the numbers of passed and failed tests")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    tests = discover(options.names)
    if not tests:
        sys.exit(f"no test has a name with {' or '.join(options.names)} in it")
    bed = Bed()
    passed, last_module = 0, None
    for module, test in tests:
        if getattr(module, "FRESH_CLUSTER", False) and module is not last_module:
            bed.reset()
        last_module = module
        begin = time.monotonic()
        good = run_test(bed, module, test)
        passed += good
        print(f"{'ok  ' if good else 'FAIL'} {module.__name__}.{test} ({time.monotonic() - begin:.1f} s)", flush=True)
    failed = len(tests) - passed
    if options.counts:
        Path(options.counts).write_text(f"{passed} {failed}\n")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
