# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of other shapes: suspended ones, and interactive steps."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from test_step_restart import Ranks, sckpt  # noqa: E402
from test_tasks import Steps  # noqa: E402

TIMEOUT = 240


def wait_still(job):
    """It counts no more."""
    def still():
        before = job.count()
        job.bed.run("ctl", ["sleep", "0.3"])
        return job.count() == before
    job.wait(still, "it stands still")


def resume(job):
    """Until none of its processes stands still any more: what is dumped while Slurm still goes from one to the next is restored so (doc/limits.md)."""
    job.bed.run("ctl", ["scontrol", "resume", str(job.id)])
    job.wait(lambda: all(tools.traced_or_stopped(job.bed, node) == [] for node in job.bed.compute), "all of it goes on")


# ---- suspended
def test_a_suspended_job_is_refused_a_checkpoint(bed):
    job = tools.Job(bed, "suspended").ready()
    newest = job.create()
    bed.run("ctl", ["scontrol", "suspend", str(job.id)])
    bed.wait_job(job.id, "SUSPENDED")
    for verb in ("create", "requeue"):
        said = sckpt(bed, verb, job.id, code=1).stderr
        assert f"job {job.id} is suspended" in said and f"scontrol resume {job.id}" in said, said
    assert job.state() == "SUSPENDED" and job.newest() == newest and not job.checkpoints("FAILED"), job.text()
    resume(job)
    job.wait_counting()
    assert job.create() == newest + 1
    job.requeue()
    job.wait(lambda: bed.job(job.id)["Restarts"] == "1", "it is requeued")
    job.ready()
    assert job.restored_from() == [newest + 1]
    job.finish()


def test_periodic_checkpoints_leave_a_suspended_job_alone(bed):
    job = tools.Job(bed, "suspended-periodic", interval="3s").ready()
    job.wait_newer(0)
    bed.run("ctl", ["scontrol", "suspend", str(job.id)])
    bed.wait_job(job.id, "SUSPENDED")
    wait_still(job)
    job.wait_show(lambda show: all(c["state"] in ("COMPLETE", "FAILED") for c in show["checkpoints"]), "nothing is under way")
    before = job.show()
    bed.run("ctl", ["sleep", "7"])  # two are due
    after = job.show()
    assert after["checkpoints"] == before["checkpoints"] and after["last_error"] == before["last_error"] and after["events"] == before["events"], job.text()
    newest = job.newest()
    bed.run("ctl", ["scontrol", "resume", str(job.id)])
    job.wait_newer(newest, timeout=20)
    job.finish()


def test_a_job_is_suspended_and_resumed_in_the_middle_of_its_dump(bed):
    """criu is stopped in the middle of a dump, the job is suspended and resumed, criu goes on."""
    job = tools.Job(bed, "suspended-shortly", node="n1", mib=64).ready()
    first = job.create()
    order = job.start_create()
    criu = tools.stop_criu(bed, "n1", "dump")
    bed.run("ctl", ["scontrol", "suspend", str(job.id)])
    bed.wait_job(job.id, "SUSPENDED")
    wait_still(job)
    bed.run("ctl", ["scontrol", "resume", str(job.id)])
    bed.run("n1", ["kill", "-CONT", str(criu)])
    job.wait_counting()
    order.communicate(timeout=60)
    job.wait(lambda: not tools.criu_pids(bed, "n1"), "no criu is left")
    assert tools.traced_or_stopped(bed, "n1") == []
    newest = job.create()
    assert newest > first
    job.requeue()
    job.wait(lambda: bed.job(job.id)["Restarts"] == "1", "it is requeued")
    job.ready()
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_steps_are_suspended_while_they_are_held_frozen(bed):
    """All tasks are frozen for a checkpoint when the job is suspended; the checkpoint is made or dropped, and the job stays suspended, then goes on."""
    from test_tasks import freeze, let_go, restarts_from_the_next_one, slow_node
    with slow_node(bed):
        job = Steps(bed, "suspended-steps").ready()
        job.create()
        order = freeze(job)
        bed.run("ctl", ["scontrol", "suspend", str(job.id)])
        bed.wait_job(job.id, "SUSPENDED")
        let_go(bed)
        order.communicate(timeout=90)
        before = [len(job.trail(rank)) for rank in range(4)]
        bed.run("ctl", ["sleep", "2"])
        assert before == [len(job.trail(rank)) for rank in range(4)] and job.state() == "SUSPENDED", "it stays suspended"
        resume(job)
        job.wait_counting()
        restarts_from_the_next_one(job)


# ---- interactive steps
def test_an_interactive_step_holds_up_checkpoints_and_nothing_else(bed):
    """srun --pty in a script: refused while it runs, and the job is as it was."""
    ranks = Ranks(bed, "pty")
    job = ranks.sbatch("script -qec 'srun -n1 --pty sh -c \"until [ -e go ]; do sleep 0.1; done; test -t 0 && echo terminal\"' /dev/null < /dev/null\n"
                       "srun python3 count.py; echo end $?", "--ckpt=manual", "-N1")
    bed.wait(lambda: f"{job}.0" in bed.run("ctl", ["squeue", "-hs", "-j", str(job)]).stdout, 30, "the step runs")
    bed.wait(lambda: bed.run("ctl", ["sckpt", "show", str(job)], check=False).returncode == 0, 30, "sckptctld knows the job")
    said = sckpt(bed, "create", job, code=1).stderr
    assert "was dropped" in said and "1 of 1 tasks are not known" in said, said
    assert bed.job_state(job) == "RUNNING"
    ranks.touch("go")
    ranks.wait_counting(about=lambda: ranks.output(job))
    assert "terminal" in ranks.output(job)
    sckpt(bed, "create", job)
    ranks.touch("stop")
    assert bed.wait_job(job)["JobState"] == "COMPLETED"
    ranks.check()
