# SPDX-License-Identifier: GPL-3.0-or-later
"""sckptd and sckptctld are killed at the worst moments: the job goes on, or comes back from its newest complete checkpoint."""
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 150


def let_go(bed, node, pid):
    bed.run(node, ["kill", "-CONT", str(pid)])
    bed.wait(lambda: pid not in tools.criu_pids(bed, node), 60, f"criu on {node} ends")


def test_sckptd_is_killed_during_a_dump(bed):
    job = Job(bed, "dump", node="n1", mib=200).ready()
    first = job.create()
    order = job.start_create()
    criu = tools.stop_criu(bed, "n1", "dump")
    sckptd = bed.daemon("n1", "sckptd")
    sckptd.kill()
    assert criu in tools.criu_pids(bed, "n1"), "criu ended with sckptd"
    dropped = first + 1
    job.wait_show(lambda show: any(c["number"] == dropped and c["state"] == "FAILED" for c in show["checkpoints"]),
                  "the dump's checkpoint is dropped")
    reason = job.checkpoints()[dropped]["reason"]
    assert "the connection to n1 was lost" in reason and reason in job.show()["last_error"], job.text()
    assert order.wait(30) != 0 and "earlier complete checkpoints" in order.stdout.read()
    sckptd.start()
    tools.wait_attached(bed, "n1")

    job.wait_show(lambda show: show.get("node"), "sckpt-run has found the new sckptd")
    again = job.start_create()  # while the old criu still holds the job
    let_go(bed, "n1", criu)
    job.wait_counting()
    said = again.communicate(timeout=60)[0]
    assert again.returncode == 0, said
    assert job.newest() > dropped
    bed.wait(lambda: tools.unstored(bed, "n1") == [], 30, "no half image stays in the fast tier")
    assert tools.traced_or_stopped(bed, "n1") == []
    job.requeue()
    job.wait_show(lambda show: any(r["outcome"] == "restored" for r in show.get("restarts_done", [])), "it is restored")
    job.finish()


def test_the_older_checkpoint_is_kept_when_sckptd_is_killed_during_a_dump(bed):
    job = Job(bed, "older", node="n1", mib=50).ready()
    first = job.create()
    job.start_create()
    criu = tools.stop_criu(bed, "n1", "dump")
    bed.daemon("n1", "sckptd").kill()
    bed.kill_node("n1")  # with criu, and all that it had
    assert criu
    job.wait_requeued()
    job.only_on(None)
    job.ready()
    assert job.restored_from() == [first], job.text()
    job.finish()
    tools.boot(bed, "n1")


def restore_interrupted(bed, name, first, node, verb):
    """Kills sckptd of `node` once criu restores (verb), or while the image is fetched (None); afterwards the job has to come back by itself."""
    job = Job(bed, name, node=first, mib=300).ready()
    older, newest = job.create(), job.create()
    assert newest > older
    sckptd, store = bed.daemon(node, "sckptd"), bed.daemon(node, "squash_fs")
    if not verb:
        store.send(signal.SIGSTOP)  # the fetch cannot end before it is looked at
    job.requeue(node)
    if verb:
        criu = tools.stop_criu(bed, node, verb)
        sckptd.kill()
        assert criu in tools.criu_pids(bed, node), "criu ended with sckptd"
    else:
        bed.wait(lambda: bed.run(node, ["pgrep", "-x", "sckpt-run"], check=False).stdout and tools.drain_workers(bed, node), 60, "it is fetched")
        sckptd.kill()
        store.send(signal.SIGCONT)
    sckptd.start()
    tools.wait_attached(bed, node)
    if verb:
        let_go(bed, node, criu)
    job.ready()
    job.wait_show(lambda show: [r["checkpoint"] for r in show.get("restarts_done", []) if r["outcome"] == "restored"] == [newest],
                  f"it is known to have gone on from {newest}", 20)
    assert job.bed.job(job.id)["Restarts"] == "1" and "COMPLETE" == job.checkpoints()[newest]["state"], job.text()
    bed.wait(lambda: tools.unstored(bed, node) == [], 30, "nothing of the restore stays in the fast tier")
    job.create()
    job.finish()


def test_sckptd_is_killed_while_criu_restores(bed):
    restore_interrupted(bed, "restore", "n2", "n2", "restore")


def test_sckptd_is_killed_while_an_image_is_fetched(bed):
    restore_interrupted(bed, "fetch", "n1", "n2", None)


def test_sckptctld_is_killed_before_a_captured_checkpoint_is_complete(bed):
    job = Job(bed, "captured", node="n3", mib=600).ready()
    first = job.create()
    sckptctld = bed.daemon("ctl", "sckptctld")
    job.start_create()
    job.wait_show(lambda show: any(c["state"] == "CAPTURED" for c in show["checkpoints"]), "a checkpoint is captured")
    sckptctld.kill()
    assert len(tools.unstored(bed, "n3")) == 1, "it was stored already"
    job.wait_counting()  # nobody misses sckptctld
    sckptctld.start()
    job.wait_newer(first)
    bed.wait(lambda: tools.unstored(bed, "n3") == [], 30, "its node knows that it is stored")
    assert set(job.checkpoints("COMPLETE")) == {first, first + 1}, job.text()

    # no sckptctld while the job is restarted: it waits for it, and goes on
    newest = job.newest()
    sckptctld.kill()
    job.requeue()
    start = ["scontrol", "update", f"jobid={job.id}", "starttime=now"]
    job.wait(lambda: bed.run("ctl", start, check=False) and job.state() == "RUNNING", "Slurm starts it again")
    node = bed.job(job.id)["BatchHost"]
    bed.wait(lambda: bed.run(node, ["pgrep", "-x", "sckpt-run"], check=False).stdout, 30, "sckpt-run waits")
    assert bed.job_state(job.id) == "RUNNING" and job.bed.read(f"{job.directory}/starts").count("\n") == 1
    sckptctld.start()
    job.ready()
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_both_daemons_are_killed_and_the_node_dies(bed):
    job = Job(bed, "all", node="n3", mib=50).ready()
    newest = job.create()
    order = job.start_create()
    tools.stop_criu(bed, "n3", "dump")
    bed.daemon("ctl", "sckptctld").kill()
    bed.daemon("n3", "sckptd").kill()
    bed.kill_node("n3")
    assert order.wait(30) != 0
    job.wait_requeued()
    job.only_on(None)
    bed.daemon("ctl", "sckptctld").start()
    job.ready()
    assert job.restored_from() == [newest], job.text()
    tools.boot(bed, "n3")
    job.create()
    job.finish()
