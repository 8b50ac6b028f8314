# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps alone: `sckpt create JOB.STEP` takes a checkpoint of the tasks of one step, `srun --ckpt-restart=JOB.STEP[.N]` starts a step from it, in the
same job or in another one, on other nodes, by a batch script, in an allocation of salloc's or by itself. What cannot be is refused before anything
runs; a task that cannot be restored takes its step along."""
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import machines  # noqa: E402  (tools puts it in reach)
import tools  # noqa: E402
from test_tasks import COUNT, RANKS  # noqa: E402

TIMEOUT = 240


class Ranks:
    """A folder in which tasks count: `begun` has a line for each one that began from the beginning, `trail.RANK` what it has counted."""

    def __init__(self, bed, name):
        self.bed = bed
        bed.run("ctl", ["mkdir", "-p", "/home/user1/faults"], user="user1")
        self.directory = bed.run("ctl", ["mktemp", "-d", f"/home/user1/faults/{name}.XXXX"], user="user1").stdout.strip()
        bed.write(f"{self.directory}/count.py", COUNT)
        for node in bed.compute:  # a script that starts before sckptd does runs its srun as it is
            tools.wait_attached(bed, node)

    def file(self, name):
        return f"{self.directory}/{name}"

    def read(self, name):
        return self.bed.read(self.file(name), missing="")

    def touch(self, name):
        self.bed.write(self.file(name), "")

    def remove(self, name):
        self.bed.path(self.file(name)).unlink(missing_ok=True)

    def counted(self, ranks=range(RANKS)):
        return {rank: len(self.read(f"trail.{rank}").split()) for rank in ranks}

    def wait_counting(self, ranks=range(RANKS), timeout=60, about=lambda: ""):
        before = self.counted(ranks)
        try:
            self.bed.wait(lambda: all(n > before[rank] for rank, n in self.counted(ranks).items()), timeout, f"all ranks count on from {before}")
        except machines.BedError as error:
            raise AssertionError(f"{error}\n{about()}") from error

    def check(self, ranks=range(RANKS)):
        """Each began once, and its trail has no gap and no repetition."""
        assert sorted(self.read("begun").split()) == [str(rank) for rank in range(RANKS)], self.read("begun")
        for rank in ranks:
            numbers = self.read(f"trail.{rank}").split()
            assert numbers == [str(n) for n in range(len(numbers))], f"the trail of rank {rank}: {numbers}"

    # ---- jobs
    def sbatch(self, body, *options):
        text = f"#!/bin/bash\ncd {self.directory}\n{body}\n"
        return self.bed.sbatch(text, f"--output={self.directory}/out.%j", f"-n{RANKS}", *options)

    def spawn(self, argv):
        return self.bed.spawn("ctl", ["sh", "-c", 'cd "$0"; exec "$@"', self.directory, *argv], user="user1")

    def output(self, job):
        return self.read(f"out.{job}")


def sckpt(bed, *words, code=0, user="user1"):
    result = bed.run("ctl", ["sckpt", *map(str, words)], user=user, check=False)
    assert result.returncode == code, f"sckpt {words}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def create(bed, step):
    """A complete checkpoint of the step alone; the name that srun takes."""
    made = bed.wait(lambda: (r := bed.run("ctl", ["sckpt", "create", step, "--json"], user="user1", check=False)).returncode == 0 and r, 60,
                    f"a checkpoint of step {step}", pause=0.2)
    return json.loads(made.stdout[made.stdout.index("{"):])["restart"]


def end_step(bed, ranks, step):
    bed.run("ctl", ["scancel", step])
    job, number = step.split(".")
    bed.wait(lambda: "." not in bed.run("ctl", ["squeue", "-hs", "-j", job, "-o", "%i"], check=False).stdout.replace(f"{job}.batch", "")
             .replace(f"{job}.extern", "").replace(f"{job}.interactive", "").replace(" ", "").strip() or number not in
             re.findall(rf"{job}\.(\d+)", bed.run("ctl", ["squeue", "-hs", "-j", job, "-o", "%i"], check=False).stdout), 60, f"step {step} is over", pause=0.2)
    bed.wait(lambda: all(bed.run(n, ["pgrep", "-u", "user1", "-f", "count.py"], check=False).returncode == 1 for n in bed.compute), 30,
             "none of its tasks is left")


def srun(ranks, *words, timeout=60):
    """Runs srun to its end, in the folder; its exit code and what it said."""
    step = ranks.spawn(["srun", *words])
    said = step.communicate(timeout=timeout)[0]
    return step.returncode, said


# A script that runs a step, and whatever the test puts into the file `next` once that step has ended.
WITH_NEXT = """srun -n{n} -l {options} python3 count.py; echo first $?
until [ -e next ]; do sleep 0.1; done
. ./next"""


def test_in_the_same_script(bed):
    ranks = Ranks(bed, "again")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options="-N2"), "--ckpt=manual", "-N2", "--ntasks-per-node=2")
    ranks.wait_counting(about=lambda: ranks.output(job))
    name = create(bed, f"{job}.0")
    assert name == f"{job}.0.1", name
    assert "1: " not in sckpt(bed, "find-step", f"{job}.0", code=1).stdout, "it still runs"
    ranks.wait_counting()
    end_step(bed, ranks, f"{job}.0")
    assert sckpt(bed, "find-step", f"{job}.0").stdout == f"{name}: {RANKS} tasks\n"
    # fewer nodes than before, and a step that the script's stub starts
    bed.write(ranks.file("next"), f"srun -N1 -n{RANKS} --overcommit --ckpt-restart={job}.0 python3 count.py; echo second $?\n")
    ranks.wait_counting(about=lambda: ranks.output(job))
    # the restarted step is the script's, and in its checkpoints as any other
    sckpt(bed, "create", job)
    bed.run("ctl", ["scontrol", "requeue", str(job)])
    bed.wait(lambda: bed.job(job)["Restarts"] == "1", 60, "it is requeued")
    ranks.wait_counting(timeout=90, about=lambda: sckpt(bed, "show", job).stdout + ranks.output(job))
    ranks.touch("stop")
    assert bed.wait_job(job, timeout=90)["JobState"] == "COMPLETED", ranks.output(job)
    ranks.check()
    assert ranks.output(job).splitlines()[-1] == f"second {RANKS - 1}", ranks.output(job)
    assert f"started from checkpoint 1 of job {job}, goes on" in sckpt(bed, "show", job).stdout


def test_in_another_job(bed):
    """One without --ckpt, on other nodes, while the first job goes on; and its step can be checkpointed itself."""
    ranks = Ranks(bed, "other")
    first = ranks.sbatch(WITH_NEXT.format(n=RANKS, options=""), "--ckpt=manual", "-N2", "-w", "n1,n2")
    ranks.wait_counting(about=lambda: ranks.output(first))
    create(bed, f"{first}.0")
    ranks.wait_counting()
    older = create(bed, f"{first}.0")
    ranks.wait_counting()
    newest = create(bed, f"{first}.0")
    end_step(bed, ranks, f"{first}.0")
    older_than = ranks.counted()
    second = ranks.sbatch(f"srun --ckpt-restart={older} true; echo second $?", "-N1", "-w", "n3")
    ranks.wait_counting(about=lambda: ranks.output(second))
    assert ranks.counted() != older_than
    assert bed.run("n3", ["pgrep", "-u", "user1", "-cf", "count.py"]).stdout.strip() == str(RANKS), "they run on n3"
    assert (older, newest) == (f"{first}.0.2", f"{first}.0.3")
    mine = create(bed, f"{second}.0")
    assert mine == f"{second}.s0.1", mine
    end_step(bed, ranks, f"{second}.0")
    bed.wait_job(second)
    # that job is over, and what it has is removed; the first job's is there
    third = ranks.sbatch(f"srun --ckpt-restart={newest} true; echo third $?", "--ckpt=manual", "-N2", "-w", "n2,n3")
    ranks.wait_counting(about=lambda: ranks.output(third))
    ranks.touch("stop")
    assert bed.wait_job(third)["JobState"] == "COMPLETED"
    ranks.check()
    assert ranks.output(third).splitlines()[-1] == f"third {RANKS - 1}", ranks.output(third)
    bed.write(ranks.file("next"), "true\n")
    bed.wait_job(first)


def test_in_allocations_without_a_script(bed):
    """salloc with srun, and srun by itself: their steps are called after Slurm's numbers."""
    ranks = Ranks(bed, "salloc")
    shell = ranks.spawn(["salloc", "-N2", f"-n{RANKS}", "--ckpt=manual", "bash", "-c",
                         'echo "$SLURM_JOB_ID" > job; srun python3 count.py; until [ -e go ]; do sleep 0.1; done; '
                         'srun --ckpt-restart=$SLURM_JOB_ID.0 true; echo again $?; until [ -e over ]; do sleep 0.1; done'])
    ranks.wait_counting(about=lambda: ranks.read("job"))
    job = ranks.read("job").strip()
    assert "no batch script" in sckpt(bed, "create", job, code=1).stderr
    assert create(bed, f"{job}.0") == f"{job}.s0.1"
    ranks.wait_counting()
    end_step(bed, ranks, f"{job}.0")
    ranks.touch("go")
    ranks.wait_counting()
    name = create(bed, f"{job}.1")
    sckpt(bed, "pin", f"{job}.2")
    assert name == f"{job}.s1.2"
    end_step(bed, ranks, f"{job}.1")
    ranks.touch("over")
    said = shell.communicate(timeout=60)[0]
    assert "again 0" not in said and "again" in said, said
    # the job is over; what was pinned of it is there
    step = ranks.spawn(["srun", "-N1", f"-n{RANKS}", "-w", "n3", f"--ckpt-restart={job}.1", "true"])
    ranks.wait_counting()
    ranks.touch("stop")
    said = step.communicate(timeout=60)[0]
    assert step.returncode == RANKS - 1, said
    ranks.check()
    sckpt(bed, "unpin", f"{job}.2")


def test_ranks_that_had_ended_end_likewise(bed):
    ranks = Ranks(bed, "ended")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options=""), "--ckpt=manual", "-N2")
    ranks.wait_counting(about=lambda: ranks.output(job))
    ranks.touch("stop.1")
    live = [0, 2, 3]
    bed.wait(lambda: sum(int(bed.run(n, ["pgrep", "-u", "user1", "-xc", "python3"], check=False).stdout) for n in ("n1", "n2", "n3")) == 3, 30, "it has ended")
    create(bed, f"{job}.0")
    end_step(bed, ranks, f"{job}.0")
    left = ranks.counted([1])
    assert sckpt(bed, "find-step", f"{job}.0").stdout == f"{job}.0.1: {RANKS} tasks, of which 1 had ended\n"
    bed.write(ranks.file("next"), f"srun -n{RANKS} -l --ckpt-restart={job}.0 true; echo second $?\n")
    ranks.wait_counting(live, about=lambda: ranks.output(job))
    assert ranks.counted([1]) == left
    ranks.touch("stop")
    bed.wait_job(job)
    ranks.check()
    assert ranks.output(job).splitlines()[-1] == f"second {RANKS - 1}", ranks.output(job)
    assert "task 1: Exited with exit code 1" in ranks.output(job)


def test_what_cannot_be_is_refused_before_anything_runs(bed):
    ranks = Ranks(bed, "refused")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options=""), "--ckpt=manual", "-N1", "-w", "n1")
    ranks.wait_counting(about=lambda: ranks.output(job))
    marker = ["sh", "-c", "touch ran"]

    def refused(expected, *words):
        code, said = srun(ranks, "-w", "n3", *words, *marker)
        assert code != 0 and re.search(expected, said), (words, code, said)
        assert said.count("sckpt: step ") <= 1, f"said more than once: {said}"
        assert not ranks.read("ran") and not bed.path(ranks.file("ran")).exists(), words

    n = f"-n{RANKS}"
    refused(f"job {job} has no complete checkpoint of step 0 alone", n, f"--ckpt-restart={job}.0")
    create(bed, f"{job}.0")
    refused(r"task 0 of that step still runs on n1.*scancel", n, f"--ckpt-restart={job}.0")
    end_step(bed, ranks, f"{job}.0")
    refused(f"had {RANKS} tasks at checkpoint 1, and this one has 3: give `--ntasks={RANKS}`", "-n3", f"--ckpt-restart={job}.0")
    refused(f"has no checkpoint 9", n, f"--ckpt-restart={job}.0.9")
    refused(f"has no complete checkpoint of step 5 alone", n, f"--ckpt-restart={job}.5")
    refused(f"has no task of step 5", n, f"--ckpt-restart={job}.5.1")
    refused(r"job 999999 is not known", n, "--ckpt-restart=999999.0")
    for wrong in ("12", "12.", "x.0", "12.0.0", "12.0.1.2", "0.1", "-1.0", f"{job}.batch"):
        refused(r"give JOB.STEP", n, f"--ckpt-restart={wrong}")
    refused("one component", n, f"--ckpt-restart={job}.0", "true", ":", n, f"--ckpt-restart={job}.0")
    other = bed.run("ctl", ["srun", n, f"--ckpt-restart={job}.0", "true"], user="user2", check=False)
    assert other.returncode != 0 and "is not yours" in other.stderr, other.stderr
    root = bed.run("ctl", ["srun", n, f"--ckpt-restart={job}.0", "true"], check=False)
    assert root.returncode != 0 and "is not yours" in root.stderr, "not root either: the processes would be another's"
    bed.daemon("ctl", "sckptctld").stop()
    refused("sckptctld cannot be reached", n, f"--ckpt-restart={job}.0")
    bed.daemon("ctl", "sckptctld").start()
    left = ranks.counted()
    bed.write(ranks.file("next"), "true\n")
    bed.wait_job(job)
    assert left == ranks.counted()


def test_a_lie_of_a_task_is_refused(bed):
    """srun's word is not believed: each task is asked about anew."""
    ranks = Ranks(bed, "lie")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options=""), "--ckpt=manual", "-N1")
    ranks.wait_counting(about=lambda: ranks.output(job))
    create(bed, f"{job}.0")
    end_step(bed, ranks, f"{job}.0")
    run = ["srun", "-N1", "-n1", "--overlap", "/usr/libexec/sckpt/sckpt-run", "--socket=/run/sckpt/sckptd.sock", "--step=0", "--restart-count=0", "--interval=0",
           "--max-restarts=0", "--step-key=2147483648", "--resume-from=1", f"--origin-job={job}", "--origin-key=0"]
    tail = ["--", "sh", "-c", "echo ran"]

    def said_by(user, *words):
        script = " ".join([*run, "--job=$SLURM_JOB_ID", *words, *tail[:-1], f"'{tail[-1]}'"])
        mine = bed.sbatch(f"#!/bin/sh\n{script}\necho code $?\n", "-n1", f"--output=/home/{user}/lie.%j", user=user)
        bed.wait_job(mine, timeout=90)
        text = bed.read(f"/home/{user}/lie.{mine}")
        assert "code 75" in text and "ran" not in text.split(), text
        return text

    left = ranks.counted()
    assert "is not yours" in said_by("user2", "--task=0", f"--tasks={RANKS}")
    assert "is not of 3 tasks" in said_by("user1", "--task=0", "--tasks=3")
    assert "is not of 4 tasks" in said_by("user1", "--task=4", "--tasks=4")
    assert ranks.counted() == left
    bed.write(ranks.file("next"), "true\n")
    bed.wait_job(job)


def test_one_task_that_cannot_be_restored_ends_the_step(bed):
    ranks = Ranks(bed, "half")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options="-N2"), "--ckpt=manual", "-N2")
    ranks.wait_counting(about=lambda: ranks.output(job))
    create(bed, f"{job}.0")
    end_step(bed, ranks, f"{job}.0")
    saved = ranks.read("trail.2")
    bed.write(ranks.file("trail.2"), "")  # shorter than at the checkpoint: it does not fit any more
    code, said = srun(ranks, f"-n{RANKS}", f"--ckpt-restart={job}.0", "true")
    assert code != 0 and "task 2 cannot be restored from checkpoint 1" in said and "trail.2" in said, (code, said)
    bed.wait(lambda: all(bed.run(n, ["pgrep", "-u", "user1", "-f", "count.py"], check=False).returncode == 1 for n in bed.compute), 30,
             "none of its tasks is left")
    text = sckpt(bed, "show", job).stdout
    assert "task 2 could not be restored" in text and "COMPLETE" in text.upper(), text
    # nothing is held against the checkpoint: with the file it is restored
    bed.write(ranks.file("trail.2"), saved)
    step = ranks.spawn(["srun", f"-n{RANKS}", f"--ckpt-restart={job}.0", "true"])
    bed.wait(lambda: ranks.counted([0, 1, 3]) and bed.job(job), 5, "")
    bed.write(ranks.file("next"), "true\n")
    ranks.touch("stop")
    step.communicate(timeout=60)
    bed.wait_job(job)


def test_what_srun_has_found_stays_when_its_job_ends(bed):
    """Found a moment before its job is cancelled, whose checkpoints go at once: this one is lent."""
    ranks = Ranks(bed, "lent")
    job = ranks.sbatch(WITH_NEXT.format(n=RANKS, options=""), "--ckpt=manual", "-N1")
    ranks.wait_counting(about=lambda: ranks.output(job))
    create(bed, f"{job}.0")
    other = ranks.sbatch("sleep 600", "--ckpt=manual", "-N1")
    bed.wait(lambda: bed.run("ctl", ["sckpt", "create", str(other)], user="user1", check=False).returncode == 0, 30, "a checkpoint")
    end_step(bed, ranks, f"{job}.0")
    sckpt(bed, "find-step", f"{job}.0")
    bed.run("ctl", ["scancel", str(job), str(other)])
    bed.wait_job(job, "CANCELLED")
    bed.wait(lambda: not any(f.name.startswith(f"job-{other}-") for f in bed.path("/shared/sckpt").iterdir()), 60, "what was not lent is removed")
    step = ranks.spawn(["srun", "-N1", f"-n{RANKS}", f"--ckpt-restart={job}.0", "true"])
    ranks.wait_counting()
    ranks.touch("stop")
    assert step.wait(60) == RANKS - 1
    ranks.check()
