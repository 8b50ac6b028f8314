# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps whose tasks are frozen on several nodes for a checkpoint, and what dies meanwhile: all of them go on, that checkpoint is dropped, and the
next one is good. And ranks that have ended before a checkpoint: they stay ended."""
import contextlib
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402

TIMEOUT = 240
NODES = ("n1", "n2")
RANKS = 4
WRAPPER = "/usr/local/sbin/slow-criu"

SCRIPT = """#!/bin/bash
cd {directory}
echo "$SLURM_JOB_ID" >> starts
srun -n{ranks} python3 count.py
echo "exit $?" >> exits
"""
COUNT = """
import os, sys, time
rank = os.environ["SLURM_PROCID"]
open("begun", "a").write(f"{rank}\\n")
trail, n = open(f"trail.{rank}", "a"), 0
while not os.path.exists("stop") and not os.path.exists(f"stop.{rank}"):
    trail.write(f"{n}\\n"); trail.flush()
    print(rank, n, flush=True)
    n += 1
    time.sleep(0.05)
sys.exit(int(rank))
"""


class Steps(tools.Job):
    """A step of RANKS tasks on two nodes, the first two on the script's. Each counts, and ends with its rank as its exit code."""

    def __init__(self, bed, name, *options):
        self.bed, self.name = bed, name
        bed.run("ctl", ["mkdir", "-p", "/home/user1/faults"], user="user1")
        self.directory = bed.run("ctl", ["mktemp", "-d", f"/home/user1/faults/{name}.XXXX"], user="user1").stdout.strip()
        bed.write(f"{self.directory}/count.py", COUNT)
        self.ended = set()
        self.id = bed.sbatch(SCRIPT.format(directory=self.directory, ranks=RANKS), "--ckpt=manual", f"--output={self.directory}/out",
                             f"--job-name={name}", f"--nodelist={','.join(NODES)}", "-N2", f"-n{RANKS}", f"--ntasks-per-node={RANKS // 2}",
                             *options)

    def trail(self, rank):
        return self.bed.read(f"{self.directory}/trail.{rank}", missing="").split()

    def running(self):
        return [rank for rank in range(RANKS) if rank not in self.ended]

    def wait_counting(self, timeout=60):
        before = {rank: len(self.trail(rank)) for rank in self.running()}
        self.wait(lambda: all(len(self.trail(rank)) > before[rank] for rank in before), f"all ranks count on from {before}", timeout)

    def end_rank(self, rank):
        self.bed.write(f"{self.directory}/stop.{rank}", "")
        self.ended.add(rank)

    def check(self, starts=1):
        begun = self.bed.read(f"{self.directory}/starts").count("\n")
        assert begun == starts, f"job {self.id} began {begun} times, not {starts}\n{self.text()}\n{self.output()}"
        exits = self.bed.read(f"{self.directory}/exits")
        assert exits == f"exit {RANKS - 1}\n", f"job {self.id}: the step's end reached the script as {exits!r}"
        printed = [line.split() for line in self.output().splitlines() if line and line[0].isdigit()]
        for rank in range(RANKS):
            numbers = self.trail(rank)
            wanted = [str(n) for n in range(len(numbers))]
            assert numbers == wanted, f"job {self.id}: the trail of rank {rank} has a gap or a repetition: {numbers}"
            seen = [n for r, n in printed if int(r) == rank]
            assert seen == wanted, f"job {self.id}: rank {rank} has counted to {len(numbers)} and printed {seen[-5:]} ({len(seen)} lines)"


def hooks(bed, node):
    """PIDs of criu's action scripts on the node: each holds a tree frozen."""
    return [int(pid) for pid in bed.run(node, ["pgrep", "-x", "sckpt-criu-hook"], check=False).stdout.split()]


def drivers(bed, node):
    return [int(pid) for pid in bed.run(node, ["pgrep", "-x", "sckpt-criu"], check=False).stdout.split()]


@contextlib.contextmanager
def slow_node(bed, node="n2"):
    """Dumps on this node do not begin while /run/hold-dumps is there."""
    bed.run(node, ["tee", WRAPPER], input='#!/bin/sh\nwhile [ "$1" = dump ] && [ -e /run/hold-dumps ]; do sleep 0.05; done\nexec /usr/sbin/criu "$@"\n')
    bed.run(node, ["chmod", "755", WRAPPER])
    with tools.node_config(bed, node, {"node.criu": WRAPPER}):
        try:
            yield
        finally:
            bed.run(node, ["rm", "-f", "/run/hold-dumps"])


def freeze(job, slow="n2"):
    """A checkpoint under way: the tasks on one node are frozen, and wait for those on the slow one. The order."""
    quick, = set(NODES) - {slow}
    job.bed.run(slow, ["touch", "/run/hold-dumps"])
    order = job.start_create()
    # criu calls its action script at other moments too
    job.wait(lambda: len(hooks(job.bed, quick)) == RANKS // 2 and len(tools.traced_or_stopped(job.bed, quick)) >= RANKS // 2,
             f"the tasks on {quick} are frozen")
    assert order.poll() is None, order.stdout.read()
    return order


def let_go(bed, slow="n2"):
    bed.run(slow, ["rm", "/run/hold-dumps"])
    bed.wait(lambda: not drivers(bed, slow), 60, f"no dump is under way on {slow}")


def goes_on(job, order, dropped):
    """All ranks count on, the order is answered, and nothing is left of it."""
    job.wait_counting()
    said = order.communicate(timeout=60)[0]
    assert order.returncode != 0 and "was dropped" in said, said
    job.wait_show(lambda show: any(c["number"] == dropped and c["state"] == "FAILED" for c in show["checkpoints"]), "it is dropped")
    for node in NODES:
        job.wait(lambda n=node: not tools.unstored(job.bed, n), f"nothing half stays in the fast tier of {node}")
        assert tools.traced_or_stopped(job.bed, node) == []


def restarts_from_the_next_one(job):
    newest = job.create()
    job.requeue()
    job.wait(lambda: job.bed.job(job.id)["Restarts"] == "1", "it is requeued")
    job.ready()
    assert job.restored_from() == [newest], job.text()
    job.create()
    job.finish()


def test_sckptd_dies_while_it_holds_tasks_frozen(bed):
    with slow_node(bed):
        job = Steps(bed, "frozen-sckptd").ready()
        first = job.create()
        order = freeze(job)
        bed.daemon("n1", "sckptd").kill()
        job.wait(lambda: not hooks(bed, "n1"), "they are let go")
        bed.daemon("n1", "sckptd").start()
        tools.wait_attached(bed, "n1")
        let_go(bed)
        goes_on(job, order, first + 1)
        job.wait_show(lambda show: show.get("node"), "its sckpt-run has found the new sckptd")
        restarts_from_the_next_one(job)


def killed_while_frozen(bed, name, victims):
    with slow_node(bed):
        job = Steps(bed, name).ready()
        first = job.create()
        order = freeze(job)
        bed.run("n1", ["kill", "-KILL", str(victims(bed, "n1")[0])])
        job.wait(lambda: not hooks(bed, "n1"), "all are let go")
        let_go(bed)
        goes_on(job, order, first + 1)
        restarts_from_the_next_one(job)


def test_a_driver_dies_while_it_holds_a_task_frozen(bed):
    killed_while_frozen(bed, "frozen-driver", drivers)


def test_an_action_script_dies_while_it_holds_a_task_frozen(bed):
    killed_while_frozen(bed, "frozen-hook", hooks)


def test_a_criu_dies_while_its_task_is_frozen(bed):
    killed_while_frozen(bed, "frozen-criu", tools.criu_pids)


def without_sckptctld(bed, name, slow, seconds):
    """sckptctld dies while tasks are frozen on the node that is not slow: they are let go within these seconds."""
    quick, = set(NODES) - {slow}
    with slow_node(bed, slow):
        job = Steps(bed, name).ready()
        first = job.create()
        order = freeze(job, slow)
        bed.daemon("ctl", "sckptctld").kill()
        job.wait(lambda: not hooks(bed, quick), f"they are let go without it within {seconds} s", seconds)
        let_go(bed, slow)
        job.wait_counting()
        assert order.wait(30) != 0
        bed.daemon("ctl", "sckptctld").start()
        job.wait_show(lambda show: any(c["number"] == first + 1 and c["state"] == "FAILED" for c in show["checkpoints"]), "it is dropped")
        job.wait_show(lambda show: show.get("node"), "it is known again")
        restarts_from_the_next_one(job)


def test_sckptctld_dies_before_all_is_frozen(bed):
    """The script's node has not reported all that it was asked for: nothing can come of it, and nobody is waited for."""
    without_sckptctld(bed, "frozen-half", slow="n2", seconds=30)


def test_nobody_says_that_frozen_tasks_may_go_on(bed):
    """All of this node is frozen and, most likely, reported: for a minute sckptctld may come back and say that all of it is captured."""
    without_sckptctld(bed, "frozen-silence", slow="n1", seconds=90)


def test_ranks_that_have_ended_stay_so(bed):
    job = Steps(bed, "ended").ready()
    job.end_rank(1)
    job.end_rank(2)
    job.wait(lambda: all(bed.run(node, ["pgrep", "-u", "user1", "-xc", "python3"]).stdout.strip() == "1" for node in NODES), "they have ended")
    for node in NODES:  # how they ended must outlive sckptd
        sckptd = bed.daemon(node, "sckptd")
        sckptd.kill(signal.SIGKILL)
        sckptd.start()
        tools.wait_attached(bed, node)
    job.wait_show(lambda show: show.get("node"), "it is known again")
    job.wait(lambda: bed.run("ctl", ["sckpt", "create", str(job.id)], user="user1", check=False).returncode == 0, "a checkpoint is complete")
    newest = job.newest()
    left = {rank: len(job.trail(rank)) for rank in job.ended}
    job.requeue()
    job.wait(lambda: bed.job(job.id)["Restarts"] == "1", "it is requeued")
    job.ready()
    assert job.restored_from() == [newest], job.text()
    job.create()
    job.finish()
    assert left == {rank: len(job.trail(rank)) for rank in job.ended}
