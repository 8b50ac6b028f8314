# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint of 16 tasks on one node: how long they are frozen, and how long it takes in all, against 16 dumps one after another.

Two jobs on one node, with 16 tasks of the same size each: one step of 16, and 16 steps of one. Three ways, in turns:
  together   the step of 16, as configured: as many dumps at a time as the node has cores
  one by one the same step with node.dump_streams 1: its dumps one after another; the tasks agree with each other as before
  apart      the 16 steps of one task, each checkpointed alone by `sckpt create JOB.STEP`, one after another: nothing agrees
Frozen is the longest of a task, from its freeze to its release: by criu's clock, and by the task's own. The times in all are those of the
command, until its checkpoint is captured (the dumps) and until it is complete (also in the store); of those apart the sum."""
import json
import time

from figures import Figures, say
from lib import Bed
import tools

TASKS, MIB, ROUNDS, NODE = 16, 40, 5, "n1"
FOLDER = "/home/user1/tasks"
# Writes down when it could not run for a while, and rests otherwise: 33 of them must not be a load.
PROGRAM = f"""
import os, time
ballast = os.urandom({MIB} << 20)
out = open("gaps." + os.environ["SLURM_JOB_ID"] + "." + os.environ["SLURM_STEP_ID"] + "." + os.environ["SLURM_PROCID"], "a")
last = time.monotonic()
while True:
    time.sleep(0.01)
    now = time.monotonic()
    if now - last > 0.03:
        out.write(f"{{last:.4f}} {{now:.4f}}\\n"); out.flush()
    last = now
"""
TOGETHER = f"#!/bin/bash\ncd {FOLDER}\nsrun -n{TASKS} --overcommit python3 task.py\n"
APART = f"#!/bin/bash\ncd {FOLDER}\nfor i in {{1..{TASKS}}}; do srun -n1 --overlap python3 task.py & done\nwait\n"


def start(bed, script):
    job = bed.sbatch(script, "--ckpt=manual", "-N1", "-n4", f"--nodelist={NODE}", f"--output={FOLDER}/out.%j")
    bed.wait(lambda: len(gap_files(bed, job)) == TASKS, 120, f"all tasks of job {job} run", pause=0.5)
    wait_known(bed, job)
    return job


def wait_known(bed, job):
    """Until checkpoints of each step can be made; they are what the next ones refer to in the store."""
    for step in steps(bed, job):
        bed.wait(lambda s=step: bed.run("ctl", ["sckpt", "create", f"{job}.{s}"], check=False).returncode == 0, 60,
                 f"sckptd knows step {step} of job {job}", pause=0.3)


def gap_files(bed, job):
    return list(bed.path(FOLDER).glob(f"gaps.{job}.*"))


def steps(bed, job):
    return sorted({int(file.name.split(".")[2]) for file in gap_files(bed, job)})


def longest_gap(bed, job, begin, end):
    """Of a task, by its own clock."""
    gaps = [[float(t) for t in line.split()] for file in gap_files(bed, job) for line in file.read_text().splitlines()]
    return max(to - since for since, to in gaps if to > begin and since < end)


def checkpoint(bed, job, step):
    begin = time.monotonic()
    order = bed.spawn("ctl", ["sckpt", "create", f"{job}.{step}", "--json"], stderr=-1)
    captured = next((time.monotonic() for line in order.stderr if "captured" in line), None)
    said = order.communicate(timeout=120)[0]
    end = time.monotonic()
    assert order.returncode == 0, said
    return {"captured": (captured or end) - begin, "complete": end - begin, "frozen": json.loads(said)["frozen_ms"] / 1000,
            "own clock": longest_gap(bed, job, begin, end)}


def apart(bed, job):
    each = [checkpoint(bed, job, step) for step in steps(bed, job)]
    assert len(each) == TASKS
    return {name: (max if name in ("frozen", "own clock") else sum)(e[name] for e in each) for name in each[0]}


def one_by_one(bed, jobs):
    with tools.node_config(bed, NODE, {"node.dump_streams": 1}):
        wait_known(bed, jobs[0])
        figures = checkpoint(bed, jobs[0], 0)
    for job in jobs:
        wait_known(bed, job)
    return figures


def main():
    bed, figures = Bed(), Figures("tasks")
    bed.run("ctl", ["mkdir", "-p", FOLDER], user="user1")
    bed.write(f"{FOLDER}/task.py", PROGRAM)
    jobs = [start(bed, TOGETHER), start(bed, APART)]
    ways = {"together": lambda: checkpoint(bed, jobs[0], 0), "one by one": lambda: one_by_one(bed, jobs), "apart": lambda: apart(bed, jobs[1])}
    rounds = []
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        rounds.append({way: ways[way]() for way in order})
    for way in ways:
        for name in rounds[0][way]:
            figures.spread(f"{TASKS} tasks of {MIB} MiB {way}, {name}", [r[way][name] for r in rounds], "s")
    for other, name in (("one by one", "frozen"), ("one by one", "captured"), ("apart", "captured"), ("apart", "complete")):
        figures.spread(f"together to {other}, {name}: ratio in a round", [r["together"][name] / r[other][name] for r in rounds], "", "< 1",
                       lambda m: m < 1)
    bed.run("ctl", ["scancel", *map(str, jobs)])
    figures.report()


main()
