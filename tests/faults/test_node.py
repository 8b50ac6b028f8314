# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes where checkpoints cannot be made, or not now: no room in the fast tier, no CRIU, a CRIU that is old, fails or hangs."""
import contextlib
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
import settings  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 150
WRAPPER = "/usr/local/sbin/criu-of-the-test"


@contextlib.contextmanager
def small_fast_tier(bed, node, size):
    """A node whose fast tier is empty and has this size."""
    sckptd = bed.daemon(node, "sckptd")

    def with_empty_tier(text):
        sckptd.stop()
        bed.run(node, ["umount", tools.FAST_TIER])
        tools.write_config(bed, node, text)

    with_empty_tier(settings.sckpt_yaml({"node.fast_tier_size": size, "node.dump_timeout": "10s"}))
    try:
        yield
    finally:
        with_empty_tier(settings.SCKPT_YAML)


def refused_create(job):
    """A checkpoint that does not succeed; what the user is told."""
    order = job.start_create()
    said = order.communicate(timeout=60)[0]
    assert order.returncode != 0, said
    return said


def test_the_fast_tier_is_too_small(bed):
    job = Job(bed, "fast", node="n1", mib=100).ready()
    first = job.create()
    with small_fast_tier(bed, "n1", "40M"):
        job.ready()
        said = refused_create(job)
        assert "no space left" in said and "node.fast_tier_size" in said and "earlier complete checkpoints" in said, said
        assert "no space left" in job.show()["last_error"], job.text()
        assert tools.cached(bed, "n1") == [] and tools.traced_or_stopped(bed, "n1") == []
        assert set(job.checkpoints("COMPLETE")) == {first}
        job.wait_counting()
        # nor is there room to fetch an image: held, and not started from the beginning
        job.requeue("n1")
        assert "no space left" in job.wait_held(), job.text()
        job.check()
    job.release()
    job.ready(90)
    assert job.restored_from() == [first], job.text()
    assert job.create() > first
    assert not job.show().get("last_error"), job.text()
    job.finish()


def test_stored_images_make_room_and_captured_ones_do_not(bed):
    job = Job(bed, "room", node="n1", mib=100).ready()
    with small_fast_tier(bed, "n1", "260M"):
        job.ready()
        numbers = [job.create() for _ in range(3)]
        rows = job.checkpoints("COMPLETE")
        here = [n for n in rows if rows[n]["images"][0].get("fast_node") == "n1"]
        assert numbers[-1] in here and len(tools.cached(bed, "n1")) == 2, (here, tools.cached(bed, "n1"))
        assert "has left the fast tier to make room" in bed.daemon("n1", "sckptd").log()
        # two that are not stored yet fill it: the third is refused after a while, and the job is not harmed
        bed.daemon("n1", "squash_fs").send(signal.SIGSTOP)
        try:
            other = Job(bed, "other", node="n1", mib=100).ready()
            for waiting in (job, other):
                waiting.start_create()
                waiting.wait_show(lambda show: any(c["state"] == "CAPTURED" for c in show["checkpoints"]), "its checkpoint is captured")
            third = Job(bed, "third", node="n1", mib=100).ready()
            said = refused_create(third)
            assert "no space left" in said and "not yet stored" in said, said
            third.wait_counting()
        finally:
            bed.daemon("n1", "squash_fs").send(signal.SIGCONT)
        for waiting in (job, other):
            waiting.wait_newer(numbers[-1] if waiting is job else 0, 120)
        assert third.create()
        for each in (job, other, third):
            each.finish()


def wrapper(bed, node, text):
    bed.run(node, ["sh", "-c", f"cat > {WRAPPER}; chmod 755 {WRAPPER}"], input="#!/bin/bash\n" + text)


def test_a_node_without_criu(bed):
    old = "if [ \"$1\" = --version ]; then echo 'Version: 3.17'; exit; fi\necho 'Error (criu/kerndat.c:1): kerndat_init failed'; exit 1\n"
    wrapper(bed, "n3", old)
    moved = Job(bed, "moved", node="n1").ready()
    newest = moved.create()
    with tools.node_config(bed, "n2", {"node.criu": "/usr/sbin/no-such-criu"}), tools.node_config(bed, "n3", {"node.criu": WRAPPER}):
        missing, outdated = tools.node_info(bed, "n2"), tools.node_info(bed, "n3")
        assert not missing.get("backend_usable") and "/usr/sbin/no-such-criu cannot be run" in missing["backend_reason"], missing
        assert not outdated.get("backend_usable") and "3.17" in outdated["backend_reason"], outdated
        assert "install CRIU 4.2" in outdated["backend_reason"], outdated
        status = bed.run("ctl", ["sckpt", "status"]).stdout
        assert "n2: cannot checkpoint or restart jobs" in status and "n3: cannot checkpoint or restart jobs" in status, status
        jobs = [Job(bed, f"bare-{node}", node=node, interval="2s") for node in ("n2", "n3")]
        for job, words in zip(jobs, ("cannot be run", "3.17")):
            job.wait_show(lambda show, w=words: w in show.get("last_error", ""), "the user is told why there are no checkpoints")
            job.wait_counting()
            assert words in job.text(), job.text()
            job.finish()
        moved.requeue("n2")
        assert "cannot restore" in moved.wait_held(), moved.text()
        moved.check()
    moved.release()
    moved.ready(90)
    assert moved.restored_from() == [newest], moved.text()
    moved.finish()


def test_a_criu_that_fails_or_hangs(bed):
    """A program in front of the real one, which the sckptd of n2 takes for CRIU."""
    fails = "if [ \"$1\" = dump ] && [ -e /run/fails ]; then echo 'Error (criu/x.c:1): the test wants it so'; exit 1; fi\n"
    hangs = "if [ \"$1\" = dump ] && [ -e /run/hangs ]; then exec sleep 600; fi\n"
    wrapper(bed, "n2", fails + hangs + 'exec /usr/sbin/criu "$@"\n')
    with tools.node_config(bed, "n2", {"node.criu": WRAPPER, "node.dump_timeout": "3s"}):
        job = Job(bed, "wrapped", node="n2", mib=100).ready()
        first = job.create()
        bed.run("n2", ["touch", "/run/fails"])
        assert "the test wants it so" in refused_create(job)
        bed.run("n2", ["mv", "/run/fails", "/run/hangs"])
        assert "did not end in time" in refused_create(job)
        assert bed.run("n2", ["pgrep", "-fx", "sleep 600"], check=False).stdout == "", "the hanging program is still there"
        bed.run("n2", ["rm", "/run/hangs"])

        # and the real one, stopped while the job is frozen: the watchdog ends it, and the job runs on as if nothing had happened
        order = job.start_create()
        criu = tools.stop_criu(bed, "n2", "dump")
        said = order.communicate(timeout=60)[0]
        assert order.returncode != 0 and "did not end in time" in said and criu not in tools.criu_pids(bed, "n2"), said
        job.wait_counting()
        assert tools.traced_or_stopped(bed, "n2") == [] and tools.unstored(bed, "n2") == []
        assert set(job.checkpoints("COMPLETE")) == {first} and "did not end in time" in job.show()["last_error"], job.text()
        assert job.create() > first
    job.ready()
    job.requeue()
    job.ready()
    job.finish()
