# SPDX-License-Identifier: GPL-3.0-or-later
"""Slurm ends a run of a job, which takes it a while: what is dumped meanwhile is no moment to go on from, and what nodes tell of that run is not
taken for the next one."""
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from test_tasks import Steps, drivers, slow_node  # noqa: E402

TIMEOUT = 300


def goes_on_from(job, number):
    job.wait(lambda: job.bed.job(job.id)["Restarts"] == "1", "it is requeued")
    job.ready(120)
    assert job.restored_from() == [number], job.text()
    job.create()
    job.finish()


def test_a_job_is_dumped_while_slurm_ends_it(bed):
    with slow_node(bed):
        job = tools.Job(bed, "ending", node="n2", before="trap '' TERM").ready()  # so that it lives on, as with a handler, until it is killed
        first = job.create()
        bed.run("n2", ["touch", "/run/hold-dumps"])
        order = job.start_create()
        job.wait(lambda: drivers(bed, "n2"), "its dump is under way")
        bed.run("ctl", ["scontrol", "requeue", str(job.id)])
        job.wait(lambda: job.state() != "RUNNING", "Slurm ends it")
        bed.run("n2", ["rm", "/run/hold-dumps"])
        said = order.communicate(timeout=60)[0]
        assert order.returncode != 0, said
        goes_on_from(job, first)


def test_tasks_of_a_run_that_slurm_ends_are_reported_again(bed):
    job = Steps(bed, "stale").ready()
    newest = job.create()
    slurmd = bed.daemon("n1", "slurmd")
    slurmd.send(signal.SIGSTOP)  # the run is not over before it has ended on n1
    try:
        bed.run("ctl", ["scontrol", "requeue", str(job.id)])
        job.wait(lambda: not bed.run("n2", ["pgrep", "-u", "user1"], check=False).stdout, "its tasks on n2 have ended")
        bed.daemon("n2", "sckptd").kill()
        tools.restart_daemon(bed, "n2")
        assert job.state() != "RUNNING"
    finally:
        slurmd.send(signal.SIGCONT)
    goes_on_from(job, newest)
