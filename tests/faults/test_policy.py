# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of jobs that fail, end or are cancelled, and of those that have no checkpoint or cannot have one."""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 150


def at_once(*cases):
    with ThreadPoolExecutor(len(cases)) as pool:
        for done in [pool.submit(case) for case in cases]:
            done.result()


def stored_images(bed, job):
    return list((bed.path("/shared/sckpt")).glob(f"job-{job.id}-*"))


# ---- failures of the program
def fails_again_and_again(bed, how, reason):
    """The reason for its end comes back with its files: so does the end, until --ckpt-max-restarts is reached."""
    job = Job(bed, how, "--ckpt-max-restarts=2").ready()
    checkpoint = job.create()
    bed.write(f"{job.directory}/fail.{how}", "")
    job.wait_show(lambda show: "restarted 2 times already" in show.get("held_reason", ""), "it is given up after two restarts", 90)
    fields = bed.job(job.id)
    assert fields["JobState"] == "FAILED" and fields["Restarts"] == "2", fields
    show = job.show()
    assert show["restarts"] == 2 and job.restored_from() == [checkpoint] * 2, job.text()
    assert reason in show["held_reason"] and show["held_reason"][:60] in job.text(), job.text()
    assert job.newest() == checkpoint and stored_images(bed, job), "the checkpoint of a failed job stays"
    job.check()


def test_failing_jobs_are_restarted_so_often_and_no_more(bed):
    at_once(lambda: fails_again_and_again(bed, "exit", "exit code 3"), lambda: fails_again_and_again(bed, "signal", "signal 11"))


# ---- the end of a job
def cancel_is_final(bed):
    job = Job(bed, "cancelled", interval="2s", node="n1").ready()
    job.wait_newer(1)
    assert stored_images(bed, job)
    bed.run("ctl", ["scancel", str(job.id)], user="user1")
    bed.wait_job(job.id, "CANCELLED")
    bed.wait(lambda: not stored_images(bed, job), 30, "the images of the cancelled job are removed")
    assert bed.job(job.id)["Restarts"] == "0"


def completion_cleans_up(bed):
    job = Job(bed, "completed", node="n1").ready()
    job.create()
    job.create()
    job.finish()
    bed.wait(lambda: not stored_images(bed, job), 30, "the images of the completed job are removed")


def cancel_of_a_requeued_job_is_final(bed):
    job = Job(bed, "pending", node="n2").ready()
    job.create()
    bed.run("ctl", ["scontrol", "requeuehold", str(job.id)])
    bed.wait_job(job.id, "PENDING")
    bed.run("ctl", ["scancel", str(job.id)], user="user1")
    bed.wait(lambda: not stored_images(bed, job), 30, "the images of the cancelled job are removed")


def cancel_during_a_restore_is_final(bed):
    """Slurm kills the driver of the restore with the job: that is no failure of the checkpoint, and no reason to hold the job."""
    job = Job(bed, "restoring", node="n3", mib=50).ready()
    job.create()
    job.requeue("n3")
    criu = tools.stop_criu(bed, "n3", "restore")
    bed.run("ctl", ["scancel", str(job.id)], user="user1")
    bed.wait(lambda: criu not in tools.criu_pids(bed, "n3"), 30, "Slurm ends the restore with the job")
    bed.wait_job(job.id, "CANCELLED")
    bed.wait(lambda: not stored_images(bed, job), 30, "the images of the cancelled job are removed")
    bed.wait(lambda: tools.unstored(bed, "n3") == [], 30, "nothing of the restore stays in the fast tier")
    assert bed.job_state(job.id) == "CANCELLED" and not job.show().get("held_reason"), job.text()


def test_ended_jobs_leave_no_images(bed):
    at_once(lambda: cancel_is_final(bed), lambda: completion_cleans_up(bed), lambda: cancel_of_a_requeued_job_is_final(bed),
            lambda: cancel_during_a_restore_is_final(bed))


# ---- slurmctld and nodes
def test_slurmctld_is_restarted_while_a_restart_is_pending(bed):
    """And beside it, a job without a checkpoint whose node dies: the only one that may start from the beginning, and it says so."""
    job = Job(bed, "restart", node="n2").ready()
    bare = Job(bed, "bare", node="n2").ready()
    newest = job.create()
    bed.kill_node("n2")
    job.wait_requeued()
    bare.wait_requeued()
    assert job.state() == "PENDING"
    bed.restart_slurmctld()
    job.only_on(None)
    bare.only_on(None)
    job.ready()
    assert job.restored_from() == [newest], job.text()
    job.finish()

    bare.start_now()
    bare.wait_show(lambda show: show.get("restarts_done"), "it is started again")
    said = f"job {bare.id} has no complete checkpoint: it starts from the beginning"
    bed.wait(lambda: said in bare.output(), 30, f"its output says so: {bare.output()}")
    assert "from the beginning" in bare.events() and bare.restarts()[0]["outcome"].startswith("from the beginning"), bare.text()
    bare.wait_counting()
    assert bed.read(f"{bare.directory}/starts").count("\n") == 2
    tools.boot(bed, "n2")


# ---- what cannot be checkpointed
IO_URING = """python3 -c '
import ctypes, time
assert ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0
open("ready", "w").close()
time.sleep(600)' &
until [ -e ready ]; do sleep 0.1; done"""
LIBRARY = """python3 -c '
import ctypes, time
ctypes.CDLL("libslurm.so")
open("ready", "w").close()
time.sleep(600)' &
until [ -e ready ]; do sleep 0.1; done"""
REFUSED = {
    "orphan": ("(setsid sleep 600 &)", "is a daemon: it left the process tree of its task"),
    "srun": ("env -u SCKPT_SUPERVISOR srun --overlap sleep 600 &\nsleep 1", "is an srun that sckpt does not run"),
    "library": (LIBRARY, "may have started steps by it"),
    "ring": (IO_URING, "uses io_uring"),
}


def is_refused(bed, name):
    before, sentence = REFUSED[name]
    job = Job(bed, name, interval="2s", before=before)
    job.wait_show(lambda show: sentence in show.get("last_error", ""), f"the refusal says: {sentence}")
    assert not job.checkpoints("COMPLETE") and not job.checkpoints("CAPTURED"), job.text()
    job.wait_counting()
    assert sentence.split()[-1] in job.text(), job.text()
    count = job.count()
    job.wait_show(lambda show: len([e for e in show["events"] if "dropped" in e["text"]]) > 1, "it is tried again")
    bed.wait(lambda: job.count() > count, 30, "the job goes on")
    job.check()


def test_what_cannot_be_checkpointed_is_refused_and_goes_on(bed):
    at_once(*(lambda n=n: is_refused(bed, n) for n in REFUSED))
