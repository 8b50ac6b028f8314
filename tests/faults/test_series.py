# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of three nodes, with serial work and two steps of four tasks side by side, loses nodes at a random moment: whatever is lost and whenever,
it ends with the files of an undisturbed run, byte for byte, and every step's exit code reaches its script once.

Each round has such a job. Killed is in turn any node, all of them, the one with the script, one without it; in turn anywhere in the job's life, after
it has a complete checkpoint, in a checkpoint, in a drain, and once more in the restart. The second test does the same while sckptd of any node and
sckptctld are killed and started again all the time.

`check` has a few rounds of each. SERIES_ROUNDS=20 ./dev check system test_series runs twenty, SERIES_SEED (which is printed) the same ones again."""
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
import machines  # noqa: E402
from lib import CommandFailed  # noqa: E402
from test_old_scripts import W, install  # noqa: E402
from test_survive import results  # noqa: E402

ROUNDS = int(os.environ.get("SERIES_ROUNDS", "2"))
TIMEOUT = 400 * ROUNDS + 120
BASE = "/home/user1/series"
LIFE = 20        # about so many seconds a run takes that nobody disturbs or holds
PACE = 0.2
HOLDS = ("before", "beside", "step", "after")  # a job goes no further than one of these before its last node is killed

SCRIPT = """#!/bin/bash
cd {directory}
echo begin
echo begin >> begun
exec 5> serial 6> exits
x=1
held() {{ while [ -e hold.$1 ]; do sleep {pace}; done; }}
export -f held
serial() {{
    for ((i = 0; i < 15; ++i)); do
        x=$(((x * 48271 + i) % 2147483647))
        echo "$1 $i $x" >&5
        sleep {pace}
    done
    held $1
    echo "serial work $1 the steps is done"
}}
serial before
srun -N3 -n4 --exact {count} left 50 {pace_ms} 3 > left 2> errors & left=$!
srun -N3 -n4 --exact bash -c '{{ {count} right 30 {pace_ms}; held step; {count} more 30 {pace_ms} 4; }} > right.$SLURM_PROCID' 2>> errors & right=$!
serial beside
wait $left; echo "left ended with $?" >&6
wait $right; echo "right ended with $?" >&6
serial after
cat exits
"""

KINDS = ("a node", "all nodes", "the script's node", "a node without the script")
MOMENTS = ("any", "checkpoint", "drain", "restart", "later")


class SeriesJob(tools.Job):
    def __init__(self, bed, name, pace, *options):
        self.bed, self.name, self.directory = bed, name, f"{BASE}/{name}"
        bed.run("ctl", ["mkdir", "-p", self.directory], user="user1")
        script = SCRIPT.format(directory=self.directory, count=f"{W}/ticker count", pace=pace, pace_ms=int(pace * 1000))
        self.id = bed.sbatch(script, "-N3", "--ntasks-per-node=4", f"--output={self.directory}/out", f"--job-name=series-{name}", *options)

    def rows(self):
        """Its checkpoints; none while sckptctld is away, or does not know it yet."""
        try:
            return self.checkpoints()
        except (CommandFailed, subprocess.TimeoutExpired):
            return {}

    def has(self, *states):
        return any(row["state"] in states for row in self.rows().values())

    def hold(self, where):
        self.bed.write(f"{self.directory}/hold.{where}", "")

    def release(self, where):
        self.bed.path(f"{self.directory}/hold.{where}").unlink()

    def begun(self):
        return self.bed.read(f"{self.directory}/begun", missing="").count("\n")

    def outcome(self):
        """What a run has to show: its files, the one that four tasks write with its lines sorted; of what its output says, that of the last
        beginning. Without the words of srun and sckpt about what happened, which come when they like."""
        files = {name: data for name, data in results(self.bed, self.directory).items() if name not in ("begun", "errors")}
        files["left"] = sorted(files["left"].splitlines())
        lines = files["out"].decode(errors="replace").rpartition("begin\n")[2].splitlines()
        files["out"] = [line for line in lines if not line.startswith(("srun: ", "sckpt: "))]
        return files


class Daemons(threading.Thread):
    """Kills sckptctld, or sckptd of some node, and starts it again, as long as the block lasts."""

    def __init__(self, bed, seed):
        super().__init__(daemon=True)
        self.bed, self.chance, self.ends, self.killed, self.problem = bed, random.Random(seed), threading.Event(), [], None

    def run(self):
        try:
            while not self.ends.wait(self.chance.uniform(2, 10)):
                self.kill_one()
        except Exception as error:  # raised where the block ends
            self.problem = error

    def kill_one(self):
        node = self.chance.choice(("ctl", *self.bed.compute))
        daemon = self.bed.daemon(node, "sckptctld" if node == "ctl" else "sckptd")
        power = machines.init_pid(node)
        try:
            if power and daemon.pid:
                daemon.kill()
                self.killed.append(node)
                self.ends.wait(self.chance.uniform(0, 3))
                if machines.init_pid(node) == power:
                    daemon.start()
        except (machines.BedError, subprocess.CalledProcessError):
            if machines.init_pid(node) == power:  # else its node has died meanwhile, and a node that boots starts it by itself
                raise

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.join(60)
        if self.problem:
            raise self.problem


class Round:
    """A job, and what becomes of it."""

    def __init__(self, bed, number, chance):
        self.bed, self.chance, self.number = bed, chance, number
        self.kind, self.moment, self.hold = KINDS[number % len(KINDS)], MOMENTS[number % len(MOMENTS)], chance.choice(HOLDS)
        self.job = SeriesJob(bed, str(number), PACE, f"--ckpt={chance.choice((2, 3, 4))}s")
        self.job.hold(self.hold)
        self.begun = None  # how often it had begun when it first had a complete checkpoint: it must never begin again
        self.told = [f"round {number}: {self.kind}, {self.moment}, held {self.hold}"]

    def run(self):
        self.wait_moment()
        self.lose_nodes()
        if self.moment == "restart":
            self.job.wait(lambda: self.job.state() == "RUNNING", "it runs again", 300)
            self.sleep(self.chance.uniform(0, 4))
            self.lose_nodes()
        self.job.release(self.hold)

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        self.bed.wait(lambda: time.monotonic() > end, seconds + 10, "a moment")

    def wait_moment(self):
        self.job.wait(lambda: self.job.state() == "RUNNING", "it runs")
        begin = time.monotonic()
        if self.moment != "any":
            self.job.wait(lambda: self.job.has("COMPLETE"), "it has a complete checkpoint", 240)
        self.sleep(self.chance.uniform(0, LIFE))
        state = {"checkpoint": "PREPARING", "drain": "CAPTURED"}.get(self.moment)
        if state:
            self.job.wait(lambda: self.job.has(state), f"a checkpoint is {state}", 120)
            self.sleep(self.chance.uniform(0, 1))
        self.told.append(f"{time.monotonic() - begin:.1f} s after its start")

    def victims(self, host):
        others = [node for node in self.bed.compute if node != host]
        some = {"a node": self.bed.compute, "the script's node": [host], "a node without the script": others}.get(self.kind)
        return [self.chance.choice(some)] if some else list(self.bed.compute)

    def lose_nodes(self):
        """Kills, waits until Slurm has noticed, and boots again."""
        before = self.bed.job(self.job.id)
        victims = self.victims(before["BatchHost"])
        if self.begun is None and self.job.has("COMPLETE"):
            self.begun = self.job.begun()
        for node in victims:
            self.bed.kill_node(node)
        self.told.append(f"{' '.join(victims)} killed")
        self.job.wait(lambda: self.bed.job(self.job.id)["Restarts"] != before["Restarts"], "Slurm notices that its nodes are lost", 120)
        for node in victims:
            self.bed.heal_node(node)

    def judge(self, wanted):
        """What is wrong with the job, once it has ended."""
        fields = self.bed.wait_job(self.job.id, timeout=360)
        got, begun = self.job.outcome(), self.job.begun()
        self.told.append(f"{fields['JobState']} after {fields['Restarts']} restarts, began {begun}")
        differs = {file: (wanted.get(file), got.get(file)) for file in wanted.keys() | got.keys() if wanted.get(file) != got.get(file)}
        if fields["JobState"] == "COMPLETED" and not differs and begun == (self.begun or begun):
            return []
        return [f"{'; '.join(self.told)}; had begun {self.begun} when it had a checkpoint\nwanted, got: {differs}\n{self.job.text()}\n"
                f"{self.job.output()[-2000:]}"]


def series(bed, with_daemons):
    seed = int(os.environ.get("SERIES_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"SERIES_SEED={seed} SERIES_ROUNDS={ROUNDS}", flush=True)
    install(bed)
    bed.run("ctl", ["rm", "-rf", BASE])
    plain = SeriesJob(bed, "plain", 0)
    assert bed.wait_job(plain.id)["JobState"] == "COMPLETED", plain.output()
    wanted = plain.outcome()
    assert wanted["exits"] == b"left ended with 3\nright ended with 4\n", wanted
    chance, wrong = random.Random(seed), []
    first = 2 if with_daemons else 0  # so the few rounds of check have each kind of loss once
    for number in range(first, first + ROUNDS):
        wrong += one_round(bed, number, chance, wanted, Daemons(bed, seed + number) if with_daemons else contextlib.nullcontext())
    assert not wrong, "\n\n".join(wrong)


def one_round(bed, number, chance, wanted, daemons):
    """What went wrong in it."""
    this = Round(bed, number, chance)
    try:
        with daemons:
            this.run()
            wrong = this.judge(wanted)
    except (AssertionError, machines.BedError) as error:
        wrong = [f"{'; '.join(this.told)}: {error}"]
        bed.heal()
    if isinstance(daemons, Daemons):
        this.told.append(f"killed and started again: {' '.join(daemons.killed)}")
    print("; ".join(this.told), flush=True)
    return wrong


def test_nodes_are_lost(bed):
    series(bed, False)


def test_daemons_die_and_nodes_are_lost(bed):
    series(bed, True)
