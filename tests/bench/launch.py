# SPDX-License-Identifier: GPL-3.0-or-later
"""What --ckpt costs a job that takes no checkpoint: the start of a step, and the run time of a job that computes.

Bare and with --ckpt in turns (A B, B A, A B …), so that a machine that becomes slower or faster meanwhile does not count for either.
The step's wall time is taken beside srun on ctl; the computing job takes its own wall and CPU time (the latter suffers less from a machine that is shared). `Within noise` for the computing job: the median ratio
of its pairs is not further from 1 than the bare runs are from each other ((max - min) / median)."""
import json
import statistics

from figures import Figures, say
from lib import Bed

STEP_PAIRS, JOB_PAIRS = 21, 5
STEPS = """
import json, subprocess, time
def once(options):
    begin = time.monotonic()
    subprocess.run(["srun", *options, "--nodelist=n1", "true"], check=True)
    return time.monotonic() - begin
variants = [[], ["--ckpt"]]
for options in variants:
    once(options)
pairs = []
for number in range(%d):
    order = variants if number %% 2 == 0 else variants[::-1]
    times = {len(options): once(options) for options in order}
    pairs.append([times[0], times[1]])
print(json.dumps(pairs))
""" % STEP_PAIRS
COMPUTE = """#!/usr/bin/python3
import time
begin, x = time.monotonic(), 1
for i in range(%d):
    x = (x * 48271 + i) %% 2147483647
print(time.monotonic() - begin, time.process_time(), x)
"""
CALIBRATE = "import time\nbegin, x = time.monotonic(), 1\nfor i in range(3000000):\n    x = (x * 48271 + i) % 2147483647\nprint(time.monotonic() - begin)"


def job_time(bed, rounds, *options):
    job = bed.sbatch(COMPUTE % rounds, "--nodelist=n1", *options)
    fields = bed.wait_job(job, timeout=120)
    assert fields["JobState"] == "COMPLETED", fields
    return [float(text) for text in bed.output(job).split()[:2]]


def in_turns(number, bare, wrapped):
    if number % 2 == 0:
        return bare(), wrapped()
    late = wrapped()
    return bare(), late


def add_jobs(figures, what, pairs):
    bare = [p[0] for p in pairs]
    noise = (max(bare) - min(bare)) / statistics.median(bare)
    figures.spread(f"{what}, bare", bare, "s")
    figures.spread(f"{what}, --ckpt=manual", [p[1] for p in pairs], "s")
    figures.add(f"{what}, noise: spread of the bare runs", noise, "")
    figures.spread(f"{what}, ratio of each pair", [p[1] / p[0] for p in pairs], "", f"1 ± {noise:.3f}", lambda m: abs(m - 1) <= noise)


def main():
    bed, figures = Bed(), Figures("launch")
    say(f"{STEP_PAIRS} pairs of srun true")
    pairs = json.loads(bed.run("ctl", ["python3", "-c", STEPS], user="user1", timeout=300).stdout)
    figures.spread("srun true, bare", [p[0] for p in pairs], "s")
    figures.spread("srun true, --ckpt", [p[1] for p in pairs], "s")
    medians = [statistics.median(p[i] for p in pairs) for i in (0, 1)]
    figures.add("srun true, ratio of the medians", medians[1] / medians[0], "", "<= 1.10", medians[1] / medians[0] <= 1.10)
    figures.spread("srun true, ratio of each pair", [p[1] / p[0] for p in pairs], "")

    rounds = int(3_000_000 * 8 / float(bed.run("n1", ["python3", "-c", CALIBRATE]).stdout))
    jobs = []
    for number in range(JOB_PAIRS):
        say(f"pair {number + 1} of {JOB_PAIRS} of computing jobs")
        jobs.append(in_turns(number, lambda: job_time(bed, rounds), lambda: job_time(bed, rounds, "--ckpt=manual")))
    for what, column in (("wall time", 0), ("CPU time", 1)):
        add_jobs(figures, f"computing job, {what}", [[p[0][column], p[1][column]] for p in jobs])
    figures.report()


main()
