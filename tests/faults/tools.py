# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault tests share: a job that counts and can prove that it never began again, sckpt's view of it, and a node's configuration.

A counting job appends to `starts` when its script begins, and one number after another to `trail`. At the end there must be as many
starts as the test expects, and no number may be missing, doubled or out of order, whatever was done to the system meanwhile."""
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))
import machines  # noqa: E402
import settings  # noqa: E402

COUNT = """#!/bin/bash
cd {directory}
echo "$SLURM_JOB_ID" >> starts
{before}
python3 - <<'END'
import os, time
ballast = bytearray(b"x") * ({mib} << 20)
trail, n = open("trail", "a"), 0
while not os.path.exists("stop"):
    trail.write(f"{{n}}\\n"); trail.flush()
    if os.path.exists("fail.exit"):
        os._exit(3)
    if os.path.exists("fail.signal"):
        os.kill(os.getpid(), 11)
    n += 1
    time.sleep(0.05)
print("counted to", n)
END
rc=$?
[ $rc -lt 128 ] || kill -$((rc - 128)) $$
exit $rc
"""


class Job:
    """A counting job. interval: of --ckpt; node: where it first runs (later anywhere)."""

    def __init__(self, bed, name, *options, interval="manual", node=None, mib=0, before=""):
        self.bed, self.name = bed, name
        bed.run("ctl", ["mkdir", "-p", "/home/user1/faults"], user="user1")
        self.directory = bed.run("ctl", ["mktemp", "-d", f"/home/user1/faults/{name}.XXXX"], user="user1").stdout.strip()
        self.id = bed.sbatch(COUNT.format(directory=self.directory, mib=mib, before=before), f"--ckpt={interval}",
                             f"--output={self.directory}/out", f"--job-name={name}", f"--exclude={self.others(node)}", *options)

    def others(self, node):
        return ",".join(n for n in self.bed.compute if node and n != node)

    def wait(self, condition, what, timeout=60):
        try:
            return self.bed.wait(condition, timeout, what, pause=0.1)
        except machines.BedError as error:
            raise AssertionError(f"job {self.id} ({self.name}): {error}; {self.bed.job(self.id)}\n{self.text()}\n"
                                 f"{self.output()[-2000:]}") from error

    # ---- the program
    def count(self):
        return self.bed.read(f"{self.directory}/trail", missing="").count("\n")

    def output(self):
        return self.bed.read(f"{self.directory}/out", missing="")

    def wait_counting(self, timeout=60):
        """It counts on from here, whatever it had counted before."""
        before = self.count()
        self.wait(lambda: self.count() > before, f"it counts on from {before}", timeout)

    def finish(self, starts=1, timeout=60):
        """Lets it end, and checks that nothing was lost or done twice."""
        self.bed.write(f"{self.directory}/stop", "")
        fields = self.bed.wait_job(self.id, timeout=timeout)
        assert fields["JobState"] == "COMPLETED", f"job {self.id} ({self.name}) is {fields['JobState']}\n{self.text()}\n{self.output()}"
        self.check(starts)
        return fields

    def check(self, starts=1):
        begun = self.bed.read(f"{self.directory}/starts").count("\n")
        assert begun == starts, f"job {self.id} ({self.name}) began {begun} times, not {starts}\n{self.text()}\n{self.output()}"
        numbers = [int(line) for line in self.bed.read(f"{self.directory}/trail").split()]
        assert numbers == list(range(len(numbers))), f"job {self.id} ({self.name}): the trail has a gap or a repetition: {numbers}"

    # ---- sckpt's view
    def show(self):
        return json.loads(self.bed.run("ctl", ["sckpt", "show", str(self.id), "--json"], user="user1").stdout)

    def text(self):
        """What the user reads of it."""
        return self.bed.run("ctl", ["sckpt", "show", str(self.id)], user="user1", check=False).stdout

    def checkpoints(self, state=None):
        rows = {c["number"]: c for c in self.show().get("checkpoints", [])}
        return {n: c for n, c in rows.items() if state in (None, c["state"])}

    def newest(self):
        return max(self.checkpoints("COMPLETE"), default=0)

    def wait_show(self, condition, what, timeout=60):
        """Until condition(show()) is true; also while sckptctld is away."""
        def reached():
            reply = self.bed.run("ctl", ["sckpt", "show", str(self.id), "--json"], user="user1", check=False)
            return reply.returncode == 0 and condition(json.loads(reply.stdout))
        self.wait(reached, what, timeout)

    def wait_newer(self, number, timeout=60):
        """Until a complete checkpoint is newer than this one."""
        self.wait_show(lambda job: any(c["number"] > number and c["state"] == "COMPLETE" for c in job.get("checkpoints", [])),
                       f"a complete checkpoint newer than {number}", timeout)
        return self.newest()

    def events(self):
        return "\n".join(e["text"] for e in self.show().get("events", []))

    def restarts(self):
        return self.show().get("restarts_done", [])

    def restored_from(self):
        return [r["checkpoint"] for r in self.restarts() if r["outcome"] == "restored"]

    # ---- what is done to it
    def state(self):
        return self.bed.job_state(self.id)

    def ready(self, timeout=60):
        """It runs, and sckptctld knows where."""
        self.wait_show(lambda job: job.get("node"), "it runs under sckpt", timeout)
        self.wait_counting()
        return self

    def create(self, timeout=60):
        """A complete checkpoint, on request; its number."""
        self.bed.run("ctl", ["sckpt", "create", str(self.id)], user="user1", timeout=timeout)
        return self.newest()

    def start_create(self):
        """Orders a checkpoint and does not wait for it."""
        return self.bed.spawn("ctl", ["sckpt", "create", str(self.id)], user="user1")

    def requeue(self, node=None):
        """Slurm stops it and puts it back into the queue; sckptctld has it started at once. node: the only one that it may run on."""
        self.bed.run("ctl", ["scontrol", "requeue", str(self.id)])
        self.only_on(node)

    def start_now(self):
        """As an administrator, who leaves a requeued job alone for a moment: its nodes revoke credentials of the second in which it ended."""
        late = f'[ $(date +%s) -gt $(( $(date -d {self.bed.job(self.id)["SubmitTime"]} +%s) + 2 )) ]'
        self.wait(lambda: self.bed.run("ctl", ["bash", "-c", late], check=False).returncode == 0, "some seconds pass after its requeue")
        self.bed.start_now(self.id)

    def requeue_and_hold(self):
        """Slurm stops it and keeps it, until release(): its files are in nobody's hands."""
        self.bed.run("ctl", ["scontrol", "requeuehold", str(self.id)])
        self.bed.wait_job(self.id, "PENDING")

    def release(self):
        self.only_on(None)
        self.bed.run("ctl", ["scontrol", "release", str(self.id)])

    def only_on(self, node):
        """Of a pending job: where it may start. None: anywhere."""
        self.bed.run("ctl", ["scontrol", "update", f"jobid={self.id}", f"excnodelist={self.others(node)}"])

    def wait_requeued(self):
        """Slurm has given it up on its dead node, the only one that it was allowed to run on so far."""
        self.wait(lambda: self.bed.job(self.id)["Restarts"] == "1", "Slurm requeues it")

    def wait_held(self, timeout=60):
        """Until Slurm holds it and sckpt says why; its reason."""
        self.wait(self.is_held, "it is held", timeout)
        reason = self.show()["held_reason"]
        assert reason and reason[:60] in self.text(), self.text()
        comment = self.bed.run("ctl", ["scontrol", "show", "job", str(self.id)]).stdout
        assert "AdminComment=sckpt: held" in comment, comment
        return reason

    def is_held(self):
        fields = self.bed.job(self.id)
        return fields["JobState"] == "PENDING" and fields["Priority"] == "0"


# ---- processes of a node
def criu_pids(bed, node):
    return [int(pid) for pid in bed.run(node, ["pgrep", "-x", "criu"], check=False).stdout.split()]


def stop_criu(bed, node, verb):
    """Waits for a criu that does this and stops it there; its PID on the node. What is slow only by chance would be no test."""
    script = 'until pid=$(pgrep -x -o criu) && tr "\\0" " " < /proc/$pid/cmdline | grep -q " $0 " && kill -STOP $pid; do :; done; echo $pid'
    return int(bed.run(node, ["bash", "-c", script, verb], timeout=60).stdout)


def traced_or_stopped(bed, node):
    """Processes of users that stand still."""
    out = bed.run(node, ["ps", "-eo", "pid=,stat=,user=,comm="]).stdout
    return [line for line in out.splitlines() if line.split()[1][0] in "tT" and line.split()[2] != "root"]


def images(bed, node):
    """The images in the node's fast tier, whole or half."""
    return bed.run(node, ["find", "/run/sckpt/images", "-mindepth", "1", "-type", "d"]).stdout.split()


def boot(bed, node):
    """A dead node, until its daemons are at work again."""
    bed.heal_node(node)
    for service in ("slurmd", "sckptd"):
        bed.wait(lambda s=service: bed.daemon(node, s).pid, 30, f"{service} of {node} runs")
    wait_attached(bed, node)


# ---- configuration
@contextlib.contextmanager
def node_config(bed, node, **values):
    """A node whose sckptd runs with other values of `node:` in sckpt.yaml; afterwards all is as before."""
    text = settings.SCKPT_YAML + "node:\n" + "".join(f"  {key}: {value}\n" for key, value in values.items())
    write_config(bed, node, text)
    try:
        yield
    finally:
        write_config(bed, node, settings.SCKPT_YAML)


def write_config(bed, node, text):
    bed.run(node, ["tee", "/etc/sckpt/sckpt.yaml"], input=text)
    bed.daemon(node, "sckptd").restart()
    wait_attached(bed, node)


def node_info(bed, node):
    nodes = json.loads(bed.run("ctl", ["sckpt", "status", "--json"]).stdout)["nodes"]
    return next((n for n in nodes if n["name"] == node), {})


def wait_attached(bed, node, timeout=60):
    """Until the sckptd that runs now is connected, not the one before it."""
    def attached():
        log = bed.daemon(node, "sckptd").log()
        return "connected to sckptctld" in log[log.rfind("backend"):] and node_info(bed, node).get("connected")
    bed.wait(attached, timeout, f"sckptd of {node} is connected")
