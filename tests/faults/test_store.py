# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that is full, gone or hangs, and daemons that are killed while images are drained into it: jobs run on, checkpoints wait and then
become complete, and what is complete stays whole."""
import contextlib
import json
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 240
SLOW = {"drain.bandwidth": "15M"}  # a drain that lasts for seconds


def state_of(job, number):
    return job.checkpoints().get(number, {})


def wait_captured(job, number):
    job.wait_show(lambda show: any(c["number"] == number and c["state"] == "CAPTURED" for c in show.get("checkpoints", [])),
                  f"checkpoint {number} is captured")


def wait_drain(job, number, phase, words="", timeout=60):
    """Until `sckpt show` says so of the drain, also in the words for people."""
    def said(show):
        drain = next((c.get("drain", {}) for c in show["checkpoints"] if c["number"] == number), {})
        return drain.get("phase") == phase and words.lower() in drain.get("text", "").lower()
    job.wait_show(said, f"the drain of checkpoint {number} is {phase} and says: {words}", timeout)
    if words:
        assert words.lower() in job.text().lower(), job.text()


def goes_on_elsewhere(job, number, node="n2"):
    """The checkpoint is whole in the store: the job goes on from it on a node that has nothing of it."""
    job.requeue(node)
    job.ready(90)
    assert job.restored_from()[-1] == number, job.text()
    job.finish()


# ---- trouble of the store
def test_the_store_is_full(bed):
    job = Job(bed, "full", node="n1", mib=100).ready()
    first = job.create()
    with tools.small_store(bed, "n1", 40) as resize:
        other = Job(bed, "full2", node="n1", mib=100).ready()  # all new: nothing of it is in the store
        order = other.start_create()
        wait_captured(other, 1)
        wait_drain(other, 1, "WAITING", "no space left")
        other.wait_counting()
        job.wait_counting()
        assert order.poll() is None, "create did not wait for the store"
        assert bed.run("n1", ["sh", "-c", "find /shared/sckpt -size +1M -newer /run/bed.squash_fs.pid"], user="sckpt").stdout == "", \
            "what a failed drain has written stays"
        resize(600)
        assert order.wait(90) == 0, order.stdout.read()
        assert state_of(other, 1)["state"] == "COMPLETE" and not other.show().get("last_error"), other.text()
    assert job.create() > first
    job.finish()
    goes_on_elsewhere(other, 1)


def test_the_store_is_gone_for_a_while(bed):
    job = Job(bed, "gone", node="n1", mib=50).ready()
    first = job.create()
    server = bed.daemon("n1", "squash_fs")
    server.kill()
    order = job.start_create()
    wait_captured(job, first + 1)
    wait_drain(job, first + 1, "WAITING", "/shared/sckpt")
    job.wait_counting()
    assert tools.node_info(bed, "n1").get("connected")
    server.start()
    assert order.wait(90) == 0, order.stdout.read()
    goes_on_elsewhere(job, first + 1)


def test_the_store_hangs(bed):
    """Its server stops in the middle of a drain, as an unanswering NFS server does: nothing that matters to jobs waits for it."""
    with tools.node_config(bed, "n1", {**SLOW, "store.timeout": "3s"}):
        job = Job(bed, "hangs", node="n1", mib=100).ready()
        order = job.start_create()
        wait_captured(job, 1)
        wait_drain(job, 1, "COPYING")
        server = bed.daemon("n1", "squash_fs")
        server.send(signal.SIGSTOP)
        try:
            wait_drain(job, 1, "WAITING", "store", 90)
            job.wait_counting()
            assert tools.node_info(bed, "n1").get("connected")
            bed.run("ctl", ["srun", "--ckpt=manual", "--nodelist=n1", "true"], user="user1", timeout=30)
            assert order.poll() is None
        finally:
            server.send(signal.SIGCONT)
        assert order.wait(120) == 0, order.stdout.read()
    bed.wait(lambda: not tools.drain_workers(bed, "n1"), 60, "no worker is left")
    goes_on_elsewhere(job, 1)


def test_a_restart_while_the_store_hangs_is_no_new_beginning(bed):
    """The image is on another node; the one that is to restore it cannot read the store: the job is held or waits, and comes back."""
    job = Job(bed, "away", node="n1", mib=20).ready()
    number = job.create()
    server = bed.daemon("n2", "squash_fs")
    with tools.node_config(bed, "n2", {"store.timeout": "3s", "node.restore_timeout": "10s"}):
        server.send(signal.SIGSTOP)
        try:
            job.requeue("n2")
            assert "store" in job.wait_held(90), job.text()
            job.check()
        finally:
            server.send(signal.SIGCONT)
    assert state_of(job, number)["state"] == "COMPLETE", "a store that hangs says nothing against the checkpoint"
    job.release()
    job.ready(90)
    assert job.restored_from() == [number], job.text()
    job.finish()


def test_a_node_with_another_key(bed):
    """What it seals or is to restore does not verify elsewhere: refused, never used, and good again with the right key."""
    job = Job(bed, "key", node="n1", mib=2).ready()
    number = job.create()
    good = bed.run("n2", ["cat", "/etc/sckpt/sckpt.key"]).stdout
    bed.run("n2", ["tee", "/etc/sckpt/sckpt.key"], input="deadbeef " + "42" * 32 + "\n")
    tools.restart_daemon(bed, "n2")
    try:
        job.requeue("n2")
        reason = job.wait_held()
        assert "key" in reason, reason
        assert state_of(job, number)["state"] == "COMPLETE", "a key that is missing here says nothing against the image\n" + job.text()
        job.check()
    finally:
        bed.run("n2", ["tee", "/etc/sckpt/sckpt.key"], input=good)
        tools.restart_daemon(bed, "n2")
    job.release()
    job.ready(90)
    job.finish()


# ---- daemons that are killed during a drain
@contextlib.contextmanager
def slow_drain(bed, name, node="n1"):
    """A job with a complete checkpoint, and a second one that is being drained slowly; afterwards drains are fast again."""
    job = Job(bed, name, node=node, mib=100).ready()
    first = job.create()
    with tools.node_config(bed, node, SLOW):
        job.ready()
        fresh = Job(bed, name + "2", node=node, mib=100).ready()
        fresh.start_create()
        wait_captured(fresh, 1)
        wait_drain(fresh, 1, "COPYING")
        yield fresh
    assert job.newest() >= first
    job.finish()


def test_sckptd_is_killed_during_a_drain(bed):
    with slow_drain(bed, "drain") as job:
        sckptd = bed.daemon("n1", "sckptd")
        sckptd.kill()
        job.wait_counting()
        bed.wait(lambda: not tools.drain_workers(bed, "n1"), 20, "the worker ends with sckptd")
        sckptd.start()
        tools.wait_attached(bed, "n1")
        job.wait_newer(0, 90)
        assert state_of(job, 1)["state"] == "COMPLETE"
    goes_on_elsewhere(job, 1)


def test_sckptctld_is_killed_during_a_drain(bed):
    """The node goes on without it, and tells it when it is back."""
    with slow_drain(bed, "ctl") as job:
        bed.daemon("ctl", "sckptctld").kill()
        bed.wait(lambda: not tools.drain_workers(bed, "n1"), 60, "the drain ends without sckptctld")
        assert tools.store_files(bed, job, ".manifest"), "it was not stored"
        job.wait_counting()
        bed.daemon("ctl", "sckptctld").start()
        job.wait_newer(0, 90)
    goes_on_elsewhere(job, 1)


def test_the_worker_is_killed_during_a_drain(bed):
    with slow_drain(bed, "worker") as job:
        for pid in tools.drain_workers(bed, "n1"):
            bed.run("n1", ["kill", "-KILL", str(pid)], check=False)
        job.wait_newer(0, 90)
        packs = tools.store_files(bed, job, ".pack")
        bed.wait(lambda: clean(bed, "orphans", "--remove").returncode == 0, 30, "orphans can be looked for", pause=1)
        bed.wait(lambda: tools.store_files(bed, job, ".pack") == [tools.pack_of(bed, job, 1)], 30, f"what the killed one wrote goes: {packs}")
    goes_on_elsewhere(job, 1)


def test_the_node_dies_during_a_drain(bed):
    """What was captured there is lost with its memory; the older checkpoint is what it was."""
    with tools.node_config(bed, "n3", SLOW):
        job = Job(bed, "dies", node="n3", mib=4).ready()
        first = job.create()
        bulky = Job(bed, "dies2", node="n3", mib=200).ready()
        bulky.start_create()
        wait_captured(bulky, 1)
        wait_drain(bulky, 1, "COPYING")
        order = job.start_create()  # behind the other one
        wait_captured(job, first + 1)
        bed.kill_node("n3")
        job.wait_requeued()
        job.only_on(None)
        job.ready(90)
        assert order.wait(30) != 0, order.stdout.read()
        assert job.restored_from() == [first], job.text()
        tools.boot(bed, "n3")
    assert bulky.newest() == 0 and "FAILED" in [c["state"] for c in bulky.show()["checkpoints"]], bulky.text()
    bed.run("ctl", ["scancel", str(bulky.id)])
    job.finish()


# ---- the collector
def clean(bed, *argv, user=None):
    return bed.run("ctl", ["sckpt-clean", *map(str, argv)], user=user, check=False, timeout=120)


def test_sckptctld_is_killed_at_random_while_it_collects(bed):
    """Jobs that make checkpoints all the time, one of which two stay: whenever it is killed, what is complete is whole."""
    chance = random.Random(7)
    jobs = [Job(bed, f"random{n}", interval="2s", node=f"n{n}", mib=8).ready() for n in (1, 2, 3)]
    for job in jobs:
        job.wait_newer(2, 90)
    sckptctld = bed.daemon("ctl", "sckptctld")
    for _ in range(6):
        newest = {job: job.newest() for job in jobs}
        # until something has gone on: then at a moment that nobody chose
        bed.wait(lambda seen=newest: any(job.newest() > seen[job] for job in jobs), 60, "a newer checkpoint is complete", pause=chance.random())
        sckptctld.kill()
        sckptctld.start()
        bed.wait(lambda: bed.run("ctl", ["sckpt", "status"], check=False).returncode == 0, 30, "sckptctld answers again")
    for job in jobs:
        job.wait_newer(job.newest(), 90)
    checked = bed.wait(lambda: (r := clean(bed, "check", "--json")).returncode in (0, 7) and r, 60, "all are checked", pause=1)
    assert checked.returncode == 0 and json.loads(checked.stdout)["checked"] >= 3, checked
    for node, job in zip(("n2", "n3", "n1"), jobs):
        newest = job.newest()
        job.requeue(node)
        job.ready(90)
        assert job.restored_from()[-1] >= newest, job.text()
        job.finish()
    for job in jobs:
        bed.wait(lambda j=job: not tools.store_files(bed, j), 60, "ended jobs leave nothing in the store, whoever was killed when")
