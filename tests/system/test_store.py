# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store as users see it: what is written, where it is kept, who may read it, which store it is, and how a drain is watched."""
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402
from store_tools import DENIED, lose_the_catalogue  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180


# ---- what is written, and where it is
def test_a_checkpoint_lies_in_a_store_where_root_has_no_rights(bed):
    job = Job(bed, "squashed", node="n1", mib=20).ready()
    number = job.create()
    assert bed.run("n1", ["ls", "/shared/sckpt"], check=False).returncode, "root may list the store: nothing is shown by this test"
    files = tools.store_files(bed, job)
    assert {file.suffix for file in files} == {".pack", ".manifest"} and len(files) == 2, files
    for file in files:
        status = file.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (990, 990, 0o600), (file, status)
        assert file.parent.stat().st_mode & 0o7777 == 0o700
    job.requeue("n2")
    job.ready()
    assert job.restored_from() == [number], job.text()
    job.finish()


def test_a_second_checkpoint_writes_what_has_changed(bed):
    job = Job(bed, "second", node="n1", mib=256).ready()
    first = job.create()
    second = job.create()
    rows = job.checkpoints()
    assert rows[first]["new_bytes"] > 256 << 20 and rows[second]["new_bytes"] < rows[first]["new_bytes"] / 50, rows
    assert f"({100 * rows[second]['new_bytes'] / rows[second]['bytes']:.0f} %)" in job.text(), job.text()
    manifest = tools.manifest_of(bed, job, second).read_bytes()
    assert tools.pack_of(bed, job, first).name.encode() in manifest, "the second image does not refer to the first one's pack"
    job.requeue("n3")
    job.ready()
    assert job.restored_from() == [second], job.text()
    job.finish()


def test_a_restart_on_the_same_node_needs_no_pack(bed):
    """The node still has the image in its memory; and what is wrong there is found, and fetched from the store."""
    job = Job(bed, "same", node="n1", mib=30).ready()
    number = job.create()
    row = job.checkpoints()[number]
    assert row["images"][0]["fast_node"] == "n1", row
    pack = tools.pack_of(bed, job, number)
    aside = pack.rename(pack.with_suffix(".aside"))
    job.requeue("n1")
    job.ready()
    assert job.restored_from() == [number], job.text()
    aside.rename(pack)

    number = job.create()
    spoil = f"for f in {tools.FAST_TIER}/{cached_image(bed, job, number)}/batch/pages-*.img; do printf XXXX | dd of=$f bs=1 seek=8192 conv=notrunc; done"
    bed.run("n1", ["bash", "-c", spoil])
    job.requeue("n1")
    job.ready()
    assert job.restored_from()[-1] == number, job.text()
    assert "does not verify, the image is fetched from the store" in bed.daemon("n1", "sckptd").log()
    job.finish()


def cached_image(bed, job, number):
    """Its name in the memory of n1."""
    def is_it(name):
        identity = json.loads(bed.run("n1", ["cat", f"{tools.FAST_TIER}/{name}.json"]).stdout)["images"][0]["head"]["identity"]
        return (identity["job_id"], identity["checkpoint"]) == (job.id, number)
    return next(name for name in tools.cached(bed, "n1") if is_it(name))


def test_nobody_else_reads_images(bed):
    """Neither the store nor the memory of the node: images hold what others have trusted a job with."""
    job = Job(bed, "private", node="n1", mib=4).ready()
    job.create()
    place = f"/shared/sckpt/{tools.store_files(bed, job)[0].relative_to(bed.path('/shared/sckpt'))}"
    for user in ("user1", "user2", None):
        assert bed.run("n1", ["cat", place], user=user, check=False).returncode, user
    image = f"{tools.FAST_TIER}/{tools.cached(bed, 'n1')[0]}"
    for user in ("user1", "user2", "sckpt"):
        for path in (tools.FAST_TIER, image, f"{image}/inventory.img", "/etc/sckpt/sckpt.key"):
            assert bed.run("n1", ["cat" if path.endswith(("img", "key")) else "ls", path], user=user, check=False).returncode, (user, path)
    job.finish()


def test_the_worker_has_no_privilege(bed):
    """What reads and writes the store is the service user without any capability, alone in its PID namespace."""
    with tools.node_config(bed, "n1", {"drain.bandwidth": "10M"}):
        job = Job(bed, "worker", node="n1", mib=60).ready()
        order = job.start_create()
        pid = bed.wait(lambda: tools.drain_workers(bed, "n1"), 30, "the drain is at work")[0]
        fields = dict(line.split(":", 1) for line in bed.run("n1", ["cat", f"/proc/{pid}/status"]).stdout.splitlines())
        for name in ("Uid", "Gid"):
            assert set(fields[name].split()) == {"990"}, fields[name]
        for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(fields[name], 16) == 0, (name, fields[name])
        assert fields["NoNewPrivs"].strip() == "1" and not fields["Groups"].split(), fields
        assert len(fields["NSpid"].split()) > 1, fields["NSpid"]
        chrt = bed.run("n1", ["chrt", "--pid", str(pid)]).stdout
        assert "SCHED_IDLE" in chrt, chrt
        assert order.wait(60) == 0, order.stdout.read()
    job.finish()


def test_a_store_is_made_once(bed):
    bed.wait(lambda: json.loads(bed.run("ctl", ["sckpt", "status", "--json"]).stdout).get("store_id"), 30, "the store is known")
    store = bed.path("/shared/sckpt")
    known = json.loads((store / "store.id").read_text())["id"]
    said = bed.run("n1", ["sckpt-clean", "make-store"]).stdout
    assert f"already store {known} of cluster bed" in said, said
    (store / "store.id").rename(store / "store.aside")
    refused = bed.run("n1", ["sckpt-clean", "make-store"], check=False)
    assert refused.returncode == DENIED and known in refused.stderr and "mounted" in refused.stderr, refused
    assert bed.run("n1", ["sckpt-clean", "make-store"], user="user1", check=False).returncode == DENIED

    for node in bed.compute:
        tools.restart_daemon(bed, node)
        bed.wait(lambda n=node: not tools.node_info(bed, n).get("store_id"), 30, f"{node} sees no store")
    lose_the_catalogue(bed)  # as at an installation: nobody knows of a store
    bed.wait(lambda: "make-store" in bed.run("ctl", ["sckpt", "status"]).stdout, 30, "`sckpt status` says what to do")
    bed.wait(lambda: json.loads(bed.run("ctl", ["sckpt", "status", "--json"]).stdout).get("cluster"), 30, "sckptctld knows the cluster's name")
    made = json.loads(bed.run("n2", ["sckpt-clean", "--json", "make-store"]).stdout)
    assert made["new"] and made["store_id"] != known and made["cluster"] == "bed", made
    status = (store / "store.id").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (990, 0o600)
    bed.wait(lambda: json.loads(bed.run("ctl", ["sckpt", "status", "--json"]).stdout).get("store_id") == made["store_id"], 90, "it is known")
    job = Job(bed, "fresh", node="n1", mib=2).ready()
    number = job.create(120)
    job.requeue("n3")
    job.ready(90)
    assert job.restored_from() == [number], job.text()
    job.finish()
    (store / "store.aside").unlink()


# ---- watching
def test_a_drain_can_be_watched(bed):
    with tools.node_config(bed, "n1", {"drain.bandwidth": "10M"}):
        job = Job(bed, "watched", node="n1", mib=60).ready()
        order = job.start_create()
        seen = []

        def progress(show):
            drain = show["checkpoints"][-1].get("drain", {}) if show.get("checkpoints") else {}
            seen.append(int(drain.get("bytes_done", 0)))
            return drain.get("phase") == "COPYING" and int(drain.get("bytes_done", 0)) > 1 << 20
        job.wait_show(progress, "`sckpt show` tells how far the drain is")
        assert "storing" in job.text(), job.text()
        watch = bed.spawn("ctl", ["sckpt", "watch", str(job.id)], user="user1")
        assert order.wait(60) == 0, order.stdout.read()
        said, _ = watch.communicate(timeout=60)  # it ends when nothing of the job is under way any more
        assert watch.returncode == 0, said
        assert re.search(rf"{job.id}\.1: storing, .* of ", said) and re.search(rf"{job.id}\.1: complete, .* written", said), said
    job.finish()
