# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue is lost, damaged, copied to the store, and put back from there."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402
from store_tools import clean, lose_the_catalogue  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180


def test_the_catalogue_is_rebuilt_from_the_store(bed):
    job = Job(bed, "rebuild", node="n1", mib=4).ready()
    older, newest = job.create(), job.create()
    lose_the_catalogue(bed)
    job.wait_show(lambda show: {c["number"] for c in show.get("checkpoints", []) if c["state"] == "COMPLETE"} == {older, newest},
                  "both checkpoints are known again")
    again = clean(bed, "rebuild-catalogue").stdout
    assert "0 taken into the catalogue" in again, again
    bed.kill_node("n1")
    job.wait_requeued()
    job.only_on(None)
    job.ready(90)
    assert job.restored_from() == [newest], job.text()
    assert job.create() > newest, "numbers are used again"
    job.finish()
    tools.boot(bed, "n1")


def test_a_job_that_restarts_while_the_catalogue_is_lost_waits_for_it(bed):
    job = Job(bed, "lost", node="n1", mib=4).ready()
    newest = job.create()
    bed.daemon("ctl", "sckptctld").stop()
    bed.run("ctl", ["sh", "-c", "rm /var/lib/sckpt/catalogue.sqlite*"])
    job.requeue("n2")
    start = ["scontrol", "update", f"jobid={job.id}", "starttime=now"]
    bed.wait(lambda: bed.run("ctl", start, check=False) and job.state() == "RUNNING", 60, "Slurm starts it again", pause=0.5)
    bed.daemon("ctl", "sckptctld").start()
    job.ready(90)
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_a_damaged_catalogue_is_put_aside(bed):
    job = Job(bed, "damaged", node="n1", mib=4).ready()
    newest = job.create()
    daemon = bed.daemon("ctl", "sckptctld")
    daemon.stop()
    spoil = "cd /var/lib/sckpt; rm -f catalogue.sqlite-*; dd if=/dev/urandom of=catalogue.sqlite bs=512 seek=9 count=40 conv=notrunc"
    bed.run("ctl", ["sh", "-c", spoil])
    daemon.start()
    job.wait_show(lambda show: newest in [c["number"] for c in show.get("checkpoints", [])], "the checkpoint is known again")
    aside = bed.run("ctl", ["find", "/var/lib/sckpt", "-name", "catalogue.sqlite.damaged-*"]).stdout.split()
    assert len([name for name in aside if not name.endswith(("-wal", "-shm"))]) == 1, aside
    damaged = bed.run("ctl", ["sqlite3", aside[0], "PRAGMA integrity_check"], check=False)
    assert damaged.stdout.strip() != "ok", "what was put aside is not the damaged one"
    bed.run("ctl", ["rm", *aside])
    job.requeue("n2")
    job.ready(90)
    assert job.restored_from() == [newest], job.text()
    job.finish()


def test_the_catalogue_is_copied_to_the_store(bed):
    with tools.node_config(bed, "ctl", {"retention.backup_interval": "1s"}):
        folder = bed.path("/shared/sckpt/catalogue")
        copy = bed.wait(lambda: folder.exists() and sorted(folder.iterdir()), 30, "a copy is in the store")[-1]
        bed.wait(lambda: len(list(folder.iterdir())) >= 3, 40, "three of them")
        newer = bed.wait(lambda: (last := sorted(folder.iterdir())[-1]) != copy and last, 30, "newer ones follow")
        bed.wait(lambda: not copy.exists(), 60, "older ones go")
        assert newer
    last = sorted(folder.iterdir())[-1]
    assert (last.stat().st_uid, last.stat().st_mode & 0o777) == (990, 0o600)
    inside = bed.run("n1", ["sqlite3", f"/shared/sckpt/catalogue/{last.name}", "PRAGMA integrity_check; SELECT count(*) FROM jobs"], user="sckpt")
    assert inside.stdout.split()[0] == "ok", inside


def test_a_catalogue_that_was_put_back_from_the_store_restarts_jobs(bed):
    """An old copy: it knows one checkpoint, and the rebuild finds the newer one and the job that began later."""
    job = Job(bed, "putback", node="n1", mib=4).ready()
    older = job.create()
    folder = bed.path("/shared/sckpt/catalogue")
    with tools.node_config(bed, "ctl", {"retention.backup_interval": "1s"}):
        before = {path.name for path in folder.iterdir()} if folder.exists() else set()
        copy = bed.wait(lambda: folder.exists() and next((p for p in sorted(folder.iterdir()) if p.name not in before and p.suffix == ".sqlite"), None),
                        60, "a copy is in the store")
        kept = copy.read_bytes()  # before it makes way for newer ones
    newer = job.ready().create()
    late = Job(bed, "putback2", node="n2", mib=4).ready()
    of_late = late.create()
    daemon = bed.daemon("ctl", "sckptctld")
    daemon.stop()
    (bed.path("/shared") / "putback.sqlite").write_bytes(kept)
    bed.run("ctl", ["sh", "-c", "cd /var/lib/sckpt; rm catalogue.sqlite*; install -o slurm -g slurm -m 0600 /shared/putback.sqlite catalogue.sqlite"])
    daemon.start()
    job.wait_show(lambda show: {c["number"] for c in show.get("checkpoints", []) if c["state"] == "COMPLETE"} >= {older, newer},
                  "the newer checkpoint is known again")
    for each, number, node in ((job, newer, "n3"), (late, of_late, "n1")):
        each.requeue(node)
        each.ready(90)
        assert each.restored_from() == [number], each.text()
        assert each.create() > number, "numbers are used again"
        each.finish()
    (bed.path("/shared") / "putback.sqlite").unlink()
