# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fault tests share: a job that counts and can prove that it never began again, sckpt's view of it, and a node's configuration.

A counting job appends to `starts` when its script begins, and one number after another to `trail`. At the end there must be as many
starts as the test expects, no number may be missing, doubled or out of order, and its memory must be what it was, whatever was done to
the system meanwhile."""
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
import os, time, zlib
ballast = bytearray(os.urandom({mib} << 20))  # which nobody can compress
kept = zlib.crc32(ballast)
trail, n = open("trail", "a"), 0
while not os.path.exists("stop"):
    trail.write(f"{{n}}\\n"); trail.flush()
    if os.path.exists("renew"):
        part = len(ballast) * 3 // 4
        ballast[:part] = os.urandom(part)
        kept = zlib.crc32(ballast)
        os.unlink("renew")
    if os.path.exists("fail.exit"):
        os._exit(3)
    if os.path.exists("fail.signal"):
        os.kill(os.getpid(), 11)
    n += 1
    time.sleep(0.05)
print("counted to", n)
if zlib.crc32(ballast) != kept:
    os._exit(4)
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

    def renew(self):
        """Three quarters of its ballast become others."""
        flag = f"{self.directory}/renew"
        self.bed.run("ctl", ["touch", flag], user="user1")
        self.wait(lambda: not self.bed.path(flag).exists(), "its ballast is renewed")

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


STOP_CRIU = """
import os, signal, sys
def found():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == b"criu" and sys.argv[1].encode() in words[1:]:
            return int(pid)
while not (pid := found()):
    pass
os.kill(pid, signal.SIGSTOP)
print(pid)
"""


def stop_criu(bed, node, verb):
    """Waits for a criu that does this and stops it there; its PID on the node. What is slow only by chance would be no test."""
    return int(bed.run(node, ["python3", "-c", STOP_CRIU, verb], timeout=60).stdout)


def traced_or_stopped(bed, node):
    """Processes of users that stand still."""
    out = bed.run(node, ["ps", "-eo", "pid=,stat=,user=,comm="]).stdout
    return [line for line in out.splitlines() if line.split()[1][0] in "tT" and line.split()[2] != "root"]


FAST_TIER = "/run/sckpt/images"
UNSTORED = """
import glob, json, os
for path in glob.glob("/run/sckpt/images/*/"):
    try:
        stored = json.load(open(path.rstrip("/") + ".json"))["acknowledged"]
    except FileNotFoundError:
        stored = False
    if not stored:
        print(os.path.basename(path.rstrip("/")))
"""


def unstored(bed, node):
    """The images in the node's fast tier that are not (yet) in the store: half ones, captured ones, and what restores have there."""
    return bed.run(node, ["python3", "-c", UNSTORED]).stdout.split()


def cached(bed, node):
    """All images in the node's fast tier: whole ones and half ones, stored ones and others."""
    return bed.run(node, ["find", FAST_TIER, "-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", "%f\\n"]).stdout.split()


def drain_workers(bed, node):
    """PIDs of sckpt-store on the node."""
    return [int(pid) for pid in bed.run(node, ["pgrep", "-x", "sckpt-store"], check=False).stdout.split()]


# ---- the store
def store_files(bed, job, suffix=""):
    """The job's files in the store, seen from outside of the nodes."""
    return sorted(path for folder in bed.path("/shared/sckpt").glob(f"job-{job.id}-*") for path in folder.iterdir() if path.name.endswith(suffix))


def manifest_of(bed, job, number):
    return bed.path("/shared/sckpt") / job.checkpoints()[number]["images"][0]["path"]


def pack_of(bed, job, number):
    """The pack that was written for this checkpoint."""
    pack, = (file for file in store_files(bed, job, ".pack") if file.name.startswith(f"ckpt-{number}-"))
    return pack


def flip_a_bit(file, offset=None):
    """One bit, in the middle unless it is said where."""
    with open(file, "r+b") as stream:
        stream.seek(file.stat().st_size // 2 if offset is None else offset)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))


@contextlib.contextmanager
def small_store(bed, node, megabytes):
    """The store as this node sees it lies on a file system that has this many megabytes free; yields a function that changes that."""
    server, store = bed.daemon(node, "squash_fs"), settings.STORE
    server.stop()
    used = sum(f.stat().st_size for f in bed.path(store).rglob("*") if f.is_file()) >> 20
    bed.run(node, ["mount", "-t", "tmpfs", "-o", f"size={used + megabytes}m,mode=700", "tmpfs", "/mnt"])
    bed.run(node, ["sh", "-c", f"chown {settings.STORE_USER}: /mnt && cp -a {store}/. /mnt && mount --bind /mnt {store}"])
    server.start()
    try:
        yield lambda more: bed.run(node, ["mount", "-o", f"remount,size={used + more}m", "/mnt"])
    finally:
        bed.wait(lambda: not drain_workers(bed, node), 60, "the drains have ended")
        server.stop()
        bed.run(node, ["sh", "-c", f"umount {store} && cp -an /mnt/. {store} && umount /mnt"])
        server.start()


def boot(bed, node):
    """A dead node, until its daemons are at work again."""
    bed.heal_node(node)
    for service in ("slurmd", "sckptd"):
        bed.wait(lambda s=service: bed.daemon(node, s).pid, 30, f"{service} of {node} runs")
    wait_attached(bed, node)


# ---- configuration
@contextlib.contextmanager
def node_config(bed, node, values):
    """A node whose daemon runs with other values in sckpt.yaml ({"node.criu": "/bin/false"}); afterwards all is as before."""
    write_config(bed, node, settings.sckpt_yaml(values))
    try:
        yield
    finally:
        write_config(bed, node, settings.SCKPT_YAML)


def write_config(bed, node, text):
    bed.run(node, ["tee", "/etc/sckpt/sckpt.yaml"], input=text)
    restart_daemon(bed, node)


def restart_daemon(bed, node):
    """sckptd, or sckptctld on ctl, until it is at work again; also one that was killed."""
    if node == "ctl":
        bed.daemon("ctl", "sckptctld").restart()
        bed.wait(lambda: bed.run("ctl", ["sckpt", "status"], check=False).returncode == 0, 30, "sckptctld answers again")
    else:
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
