# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that is full, gone or hangs, and daemons that are killed while images are drained into it: jobs run on, checkpoints wait and then
become complete, and what is complete stays whole."""
import contextlib
import json
import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import settings  # noqa: E402
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
    """What others have sealed it does not restore, what it seals the others do not: refused, never marked bad, and good again with the right key."""
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
        own = Job(bed, "key2", node="n2", mib=2).ready()
        sealed = own.create()
        own.requeue("n1")
        reason = own.wait_held()
        assert "key deadbeef" in reason, reason
        assert state_of(own, sealed)["state"] == "COMPLETE", own.text()
        own.check()
        own.release()
        own.only_on("n2")  # who has sealed it can read it
        own.ready(90)
        assert own.restored_from() == [sealed], own.text()
        own.finish()
    finally:
        bed.run("n2", ["tee", "/etc/sckpt/sckpt.key"], input=good)
        tools.restart_daemon(bed, "n2")
    job.release()
    job.ready(90)
    job.finish()


def test_what_another_node_says_of_a_checkpoint_does_not_count(bed):
    """Root of n2 tells of images that are made on n1, and of a restore that nobody told it to do."""
    with tools.node_config(bed, "n1", SLOW):
        job = Job(bed, "foreign", node="n1", mib=4).ready()
        complete = job.create()
        other = Job(bed, "foreign2", node="n1", mib=60).ready()
        order = other.start_create()
        wait_captured(other, 1)
        rows = dict(line.split("|") for line in bed.run("ctl", ["sqlite3", "/var/lib/sckpt/catalogue.sqlite",
                    "SELECT j.job_id, max(c.id) FROM checkpoints c JOIN jobs j ON j.id = c.job GROUP BY j.job_id"]).stdout.split())
        said = bed.run("n2", ["/build/out/rogue_rpc", "ctl", "6830", "foreign", "n2", rows[str(other.id)], rows[str(job.id)], "0"]).stdout
        assert said.startswith("said"), said
        bed.wait(lambda: "which does not run there: ignored" in bed.daemon("ctl", "sckptctld").log(), 30, "sckptctld has refused the last of it")
        assert order.wait(60) == 0, order.stdout.read()
        assert "a lie" not in job.text() + other.text(), job.text() + other.text()
    assert state_of(job, complete)["state"] == "COMPLETE" and state_of(other, 1)["state"] == "COMPLETE", job.text() + other.text()
    tools.restart_daemon(bed, "n2")  # the true one
    job.finish()
    other.finish()


def test_work_on_the_store_ends_with_who_asked_for_it(bed):
    """The command is interrupted, or sckptctld dies: what nodes do for it in a store that hangs does not pile up."""
    job = Job(bed, "asked", node="n1", mib=2).ready()
    job.create()
    servers = [bed.daemon(node, "squash_fs") for node in bed.compute]

    def workers():
        return [pid for node in bed.compute for pid in tools.drain_workers(bed, node)]

    def nothing_to_do():  # also for the collector, after the jobs of tests before
        report = bed.run("ctl", ["sckpt-clean", "report"]).stdout
        return "that no checkpoint needs any more" not in report and not workers()

    bed.wait(nothing_to_do, 60, "nothing is at work")
    for server in servers:
        server.send(signal.SIGSTOP)
    try:
        for end in (lambda command: os.killpg(command.pid, signal.SIGINT), lambda _: bed.daemon("ctl", "sckptctld").kill()):
            command = bed.spawn("ctl", ["sckpt-clean", "check", "--quick", str(job.id)])
            bed.wait(workers, 30, "a node is at work for it")
            end(command)
            bed.wait(lambda: not workers(), 30, "it is not any more")  # store.timeout is longer
    finally:
        for server in servers:
            server.send(signal.SIGCONT)
    bed.daemon("ctl", "sckptctld").start()
    for node in bed.compute:
        tools.wait_attached(bed, node)
    job.finish()


OTHER_STORE = '{"id": "00000000-0000-4000-8000-000000000002", "cluster": "another"}\n'


@contextlib.contextmanager
def wrong_store(bed, node, store_id):
    """Instead of the store the node sees an empty directory that somebody made by hand, or another cluster's store."""
    server, store = bed.daemon(node, "squash_fs"), settings.STORE
    server.stop()
    bed.run(node, ["sh", "-c", f"mount -t tmpfs -o mode=700 tmpfs {store} && chown {settings.STORE_USER}: {store}"])
    if store_id:
        bed.run(node, ["sh", "-c", f"umask 077; cat > {store}/store.id"], user="sckpt", input=store_id)
    try:
        yield
    finally:
        bed.wait(lambda: bed.run(node, ["umount", store], check=False).returncode == 0, 60, "nothing is at work there")
        server.start()


def test_a_node_that_sees_no_store_or_another_one_neither_stores_nor_judges(bed):
    for name, store_id, words in (("unmounted", "", "is the file system mounted"), ("another", OTHER_STORE, "the right file system mounted")):
        job = Job(bed, name, node="n1", mib=4).ready()
        number = job.create()
        before = {file.name for file in tools.store_files(bed, job)}
        with wrong_store(bed, "n1", store_id):
            tools.restart_daemon(bed, "n1")
            job.ready()
            bed.wait(lambda: "n1: store: the store at /shared/sckpt: there is no file store.id" in (text := bed.run("ctl", ["sckpt", "status"]).stdout)
                     or "n1: sees another store" in text, 60, "`sckpt status` names the node")
            order = job.start_create()
            wait_captured(job, number + 1)
            wait_drain(job, number + 1, "WAITING", words)
            for _ in range(4):  # whichever node is asked
                checked = clean(bed, "check", "--repair", "--json", job.id)
                assert checked.returncode == 0, checked
                assert clean(bed, "orphans", "--remove").returncode == 0
            assert number in job.checkpoints("COMPLETE"), job.text()
            assert bed.run("n1", ["ls", "-A", "/shared/sckpt"], user="sckpt").stdout == ("store.id\n" if store_id else ""), "it was written there"
            assert {file.name for file in tools.store_files(bed, job)} == before
        assert order.wait(90) == 0, order.stdout.read()
        goes_on_elsewhere(job, number + 1)


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
