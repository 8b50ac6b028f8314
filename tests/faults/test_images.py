# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and user files that do not fit any more, each job on its own: an older checkpoint is taken, or the job is held and says why."""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 150


def delete_the_pack(bed, job, number):
    tools.pack_of(bed, job, number).unlink()


def change_the_pack(bed, job, number):
    tools.flip_a_bit(tools.pack_of(bed, job, number), 40)  # in its first chunk


def change_the_manifest(bed, job, number):
    tools.flip_a_bit(tools.manifest_of(bed, job, number))


def cut_the_manifest(bed, job, number):
    manifest = tools.manifest_of(bed, job, number)
    with open(manifest, "r+b") as file:
        file.truncate(manifest.stat().st_size - 100)


def two_checkpoints(bed, name):
    """On n1; what is to be read from the store goes on elsewhere, as n1 has the images in its memory too."""
    job = Job(bed, name, node="n1", mib=2).ready()
    older = job.create()
    job.wait_counting()
    newest = job.create()
    assert newest == older + 1
    return job, older, newest


def goes_on_from_the_older(bed, damage, wanted):
    job, older, newest = two_checkpoints(bed, damage.__name__)
    manifest = tools.manifest_of(bed, job, newest)
    damage(bed, job, newest)
    job.requeue("n2")
    job.wait(lambda: job.restored_from(), "it goes on from the older checkpoint")
    assert job.restored_from() == [older], job.text()
    bad = job.checkpoints()[newest]
    assert bad["state"] == "BAD" and wanted in bad["reason"] and wanted in job.text(), job.text()
    bed.wait(lambda: list((bed.path("/shared/sckpt") / "quarantine").rglob(manifest.name + "*")), 30, "its manifest is put aside")
    job.ready()
    assert job.create() > newest
    job.finish()


def is_held_without_a_good_image(bed):
    """Both are damaged; an administrator takes one from his backup, and releases the job."""
    job, older, newest = two_checkpoints(bed, "both")
    change_the_pack(bed, job, newest)
    change_the_pack(bed, job, older)
    job.requeue("n2")
    reason = job.wait_held()
    assert "not match its hash" in reason and "no checkpoint" in reason, reason
    assert set(job.checkpoints("BAD")) == {older, newest}, job.text()
    job.check()
    held = bed.job(job.id)["Restarts"]
    job.release()  # nothing was repaired: held again, and not started from zero
    job.start_now()
    job.wait(lambda: bed.job(job.id)["Restarts"] != held, "the released job is tried and held once more")
    assert job.wait_held()
    job.check()
    bed.run("ctl", ["scancel", str(job.id)])


def spoil_file(job, how):
    file = job.bed.path(f"{job.directory}/trail")
    if how == "missing":
        file.rename(f"{file}.away")
    elif how == "replaced":
        text = file.read_bytes()
        file.rename(f"{file}.away")
        job.bed.write(f"{job.directory}/trail", text.decode())
    return file


def is_held_for_a_file(bed, how, wanted):
    job, _, _ = two_checkpoints(bed, how)
    job.requeue_and_hold()
    file = spoil_file(job, how)
    job.release()
    reason = job.wait_held()
    assert f"{job.directory}/trail {wanted}" in reason, reason
    assert len(job.checkpoints("COMPLETE")) == 2, job.text()  # the images are good
    Path(f"{file}.away").replace(file)
    job.release()
    job.ready(90)
    job.finish()


def goes_on_from_the_older_for_a_shorter_file(bed):
    job, older, newest = two_checkpoints(bed, "shrunk")
    sizes = {n: next(f["size"] for f in job.checkpoints()[n]["images"][0]["files"] if f["path"].endswith("trail")) for n in (older, newest)}
    assert sizes[older] < sizes[newest]
    job.requeue_and_hold()
    with open(bed.path(f"{job.directory}/trail"), "r+b") as file:
        file.truncate(sizes[newest] - 1)
    job.release()
    job.ready()
    assert job.restored_from() == [older] and f"trail shrank from {sizes[newest]} to" in job.text(), job.text()
    job.finish()


UNREADABLE = """#!/bin/bash
[ "$1" = restore ] || exec /usr/sbin/criu "$@"
echo "(00.000001) Error (criu/image.c:400): Magic doesn't match for core-1.img"
exit 1
"""


def test_a_backend_that_cannot_read_a_verified_image_says_nothing_against_it(bed):
    job, older, newest = two_checkpoints(bed, "unread")
    bed.run("n2", ["sh", "-c", "cat > /usr/local/bin/broken-criu && chmod 755 /usr/local/bin/broken-criu"], input=UNREADABLE)
    with tools.node_config(bed, "n2", {"node.criu": "/usr/local/bin/broken-criu"}):
        job.requeue("n2")
        job.wait_held(90)
        assert any(r["outcome"].startswith("failed") and "n2" == r["node"] for r in job.restarts()), job.text()
        assert set(job.checkpoints("COMPLETE")) == {older, newest}, job.text()
        assert not job.checkpoints("BAD"), job.text()
    job.release()
    job.ready(90)
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_a_node_that_reads_wrongly_condemns_no_checkpoint(bed):
    """The store as one node sees it has a flipped bit: the others find the image whole, and the job waits for a better node."""
    job, older, newest = two_checkpoints(bed, "flipped")
    pack = tools.pack_of(bed, job, newest)
    with tools.small_store(bed, "n2", 50):
        name = f"/shared/sckpt/{pack.parent.name}/{pack.name}"
        flip = f"import os; f = open('{name}', 'r+b'); f.seek(40); b = f.read(1); f.seek(40); f.write(bytes([b[0] ^ 1])); f.close()"
        bed.run("n2", ["python3", "-c", flip], user="sckpt")
        job.requeue("n2")
        reason = job.wait_held(90)
        assert "not match" in reason, reason
        assert "look at n2 itself" in job.text(), job.text()
        assert set(job.checkpoints("COMPLETE")) == {older, newest}, job.text()
    job.release()
    job.ready(90)
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_images_and_files_that_do_not_fit(bed):
    cases = [lambda: goes_on_from_the_older(bed, delete_the_pack, "is missing"),
             lambda: goes_on_from_the_older(bed, change_the_pack, "not match"),
             lambda: goes_on_from_the_older(bed, change_the_manifest, "is not what was stored"),
             lambda: goes_on_from_the_older(bed, cut_the_manifest, "is not what was stored"),
             lambda: is_held_without_a_good_image(bed),
             lambda: is_held_for_a_file(bed, "missing", "was removed"),
             lambda: is_held_for_a_file(bed, "replaced", "was replaced"),
             lambda: goes_on_from_the_older_for_a_shorter_file(bed)]
    with ThreadPoolExecutor(len(cases)) as pool:
        for done in [pool.submit(case) for case in cases]:
            done.result()
