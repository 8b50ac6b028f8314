# SPDX-License-Identifier: GPL-3.0-or-later
"""The upkeep of the store as administrators see it: pins, retention, packs that are rewritten, orphans and checks."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402
from store_tools import DENIED, FAULTS, clean, report, sckpt  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180


# ---- pins and retention
def test_pinned_checkpoints_stay(bed):
    job = Job(bed, "pinned").ready()
    first = job.create()
    assert sckpt(bed, "pin", f"{job.id}.{first}", user="user2").returncode == DENIED
    assert sckpt(bed, "pin", f"{job.id}.{first}").returncode == 0
    for _ in range(3):
        last = job.create()
    clean(bed, "run")
    job.wait_show(lambda show: [c["number"] for c in show["checkpoints"]] == [first, last - 1, last], "two stay, and the pinned one")
    assert "pinned" in job.text(), job.text()
    clean(bed, "run", "--keep", "1")
    assert set(job.checkpoints("COMPLETE")) == {first, last}, job.text()
    assert sckpt(bed, "unpin", f"{job.id}.{first}").returncode == 0
    job.create()
    job.wait_show(lambda show: [c["number"] for c in show["checkpoints"]] == [last, last + 1], "it goes when nothing holds it")
    job.finish()


def test_no_more_is_pinned_than_the_quota(bed):
    job, other = Job(bed, "pins", mib=8).ready(), Job(bed, "pins2", mib=8).ready()
    first, second = job.create(), other.create()
    room = job.checkpoints()[first]["new_bytes"] * 3 // 2
    with tools.node_config(bed, "ctl", {"retention.user_quota": f"{room >> 10}K"}):
        assert sckpt(bed, "pin", f"{job.id}.{first}").returncode == 0
        refused = sckpt(bed, "pin", f"{other.id}.{second}")
        assert refused.returncode and "user_quota" in refused.stderr and "unpin" in refused.stderr, refused
        assert not other.checkpoints()[second]["pinned"]
        assert sckpt(bed, "unpin", f"{job.id}.{first}").returncode == 0
        assert sckpt(bed, "pin", f"{other.id}.{second}").returncode == 0
        assert sckpt(bed, "unpin", f"{other.id}.{second}").returncode == 0
        job.finish()
        other.finish()


def test_a_pinned_checkpoint_stays_when_the_job_goes_on_from_an_older_one(bed):
    job = Job(bed, "passed", node="n1", mib=2).ready()
    older = job.create()
    job.wait_counting()
    newer = job.create()
    assert sckpt(bed, "pin", f"{job.id}.{newer}").returncode == 0
    manifest = tools.manifest_of(bed, job, newer)
    size = next(f["size"] for f in job.checkpoints()[newer]["images"][0]["files"] if f["path"].endswith("trail"))
    job.requeue_and_hold()
    with open(bed.path(f"{job.directory}/trail"), "r+b") as file:
        file.truncate(size - 1)
    job.release()
    job.ready(90)
    assert job.restored_from() == [older], job.text()
    assert newer in job.checkpoints("COMPLETE") and manifest.exists() and "went on from checkpoint" in job.text(), job.text()
    assert clean(bed, "check", job.id).returncode == 0
    job.requeue("n2")
    job.ready(90)
    assert job.restored_from() == [older, older], "the pinned one is of a course of events that did not happen\n" + job.text()
    assert sckpt(bed, "unpin", f"{job.id}.{newer}").returncode == 0
    job.wait_show(lambda show: newer not in [c["number"] for c in show["checkpoints"]], "it goes when nothing holds it")
    job.finish()


def test_report_and_run(bed):
    job = Job(bed, "report", mib=8).ready()
    older, newest = job.create(), job.create()
    for verb in (["report"], ["run"], ["run", "--dry-run"], ["orphans"], ["check"], ["rebuild-catalogue"]):
        denied = clean(bed, *verb, user="user2", code=DENIED)
        assert "report" not in denied.stdout, denied
    before = report(bed)
    mine = next(u for u in before["users"] if u["name"] == "user1")
    assert mine["checkpoints"] >= 2 and mine["bytes"] > 8 << 20 and before["store_free"] > 0, before
    text = clean(bed, "report").stdout
    assert "user1" in text, text
    planned = report(bed, "--keep", "1")["removals"]
    assert any(r["job_id"] == job.id and r["checkpoint"] == older and "keep" in r["why"] for r in planned), planned
    dry = clean(bed, "run", "--dry-run", "--keep", "1").stdout
    assert f"{job.id}.{older}" in dry and f"{job.id}.{newest}" not in dry, dry
    assert set(job.checkpoints("COMPLETE")) == {older, newest}, "a dry run has removed something"
    files = tools.store_files(bed, job)
    clean(bed, "run", "--keep", "1")
    assert set(job.checkpoints("COMPLETE")) == {newest}, job.text()
    assert len(tools.store_files(bed, job)) < len(files)
    assert clean(bed, "check", job.id).returncode == 0, "the newer one refers to what was removed"
    job.requeue()
    job.ready()
    job.finish()
    bed.wait(lambda: not tools.store_files(bed, job), 30, "a job that has succeeded leaves nothing")


def test_packs_with_much_dead_space_are_rewritten(bed):
    folder = bed.path("/shared/sckpt/catalogue")
    copies = set(folder.glob("*"))
    with tools.node_config(bed, "ctl", {"retention.interval": "1h"}):  # nobody but `run` rewrites anything
        bed.wait(lambda: set(folder.glob("*.sqlite")) - copies, 60, "the round that sckptctld begins with is over")
        job = Job(bed, "compact", node="n1", mib=32).ready()
        first = job.create()
        pack = tools.pack_of(bed, job, first)
        for _ in range(2):
            job.renew()
            job.create()
        newest = job.create()
        job.wait_show(lambda show: [c["number"] for c in show["checkpoints"]] == [newest - 1, newest], "the older ones go by retention")
        bed.wait(lambda: len(tools.store_files(bed, job, ".manifest")) == 2, 30, "so do their files")
        assert pack.stat().st_size > 32 << 20, "the newer ones need a quarter of it"
        manifest = tools.manifest_of(bed, job, newest)
        held = sum(file.stat().st_size for file in tools.store_files(bed, job))
        clean(bed, "run")
        assert not pack.exists() and not manifest.exists(), tools.store_files(bed, job)
        assert held - sum(file.stat().st_size for file in tools.store_files(bed, job)) > 20 << 20, tools.store_files(bed, job)
        assert set(job.checkpoints("COMPLETE")) == {newest - 1, newest}
        job.requeue("n2")  # which has nothing of it: every chunk is read from the store and verified
        job.ready()
        assert job.restored_from() == [newest], job.text()
        again = job.create()
        assert job.checkpoints()[again]["new_bytes"] < 4 << 20, "what was rewritten is not referred to\n" + job.text()
        job.finish()
    bed.wait(lambda: not tools.store_files(bed, job), 30, "a job that has succeeded leaves nothing")


def test_a_quota_takes_the_oldest(bed):
    job = Job(bed, "quota", mib=8).ready()
    older, newest = job.create(), job.create()
    said = report(bed, "--user-quota", "1M")
    assert any(r["checkpoint"] == older and r["job_id"] == job.id for r in said["removals"]), said
    assert not any(r["checkpoint"] == newest and r["job_id"] == job.id for r in said["removals"]), "the newest one of a live job would go"
    assert any("user1" in line for line in said["over"]), said
    job.finish()


def collector_notes(bed):
    notes = json.loads(bed.run("ctl", ["sckpt", "status", "--json"]).stdout).get("notes", [])
    return [note for note in notes if "collector" in note]


def test_a_file_that_cannot_be_removed_holds_up_no_other(bed):
    stuck, other = (Job(bed, name, node="n1", mib=2).ready() for name in ("stuck", "unstuck"))
    stuck.create()
    other.create()
    pack = tools.store_files(bed, stuck, ".pack")[0]
    path = f"/shared/sckpt/{pack.relative_to(bed.path('/shared/sckpt'))}"
    pack.unlink()
    bed.run("n1", ["mkdir", path], user="sckpt")  # in its place, what no remove of a file takes
    stuck.finish()
    other.finish()
    bed.wait(lambda: not tools.store_files(bed, other), 30, "the files of the other job go")
    bed.wait(lambda: tools.store_files(bed, stuck) == [pack], 30, "so do the others of this job")
    note = bed.wait(lambda: collector_notes(bed), 30, "`sckpt status` tells of it")
    assert len(note) == 1 and pack.name in note[0] and "tried again" in note[0], note
    assert pack.name in clean(bed, "run", code=None).stderr, "an administrator who asks for it is not told"
    assert bed.daemon("ctl", "sckptctld").log().count(pack.name) < 4, "the log repeats it"
    bed.run("n1", ["rmdir", path], user="sckpt")
    clean(bed, "run")
    assert not collector_notes(bed) and not pack.parent.exists()


# ---- orphans and checks
def plant(bed, path, text="nobody's\n"):
    bed.run("n1", ["sh", "-c", f"umask 077; mkdir -p $(dirname {path}) && cat > {path}"], user="sckpt", input=text)


def test_orphans(bed):
    job = Job(bed, "orphans", mib=4).ready()
    number = job.create()
    plant(bed, "/shared/sckpt/job-999999-9/ckpt-1-batch-0123456789abcdef.pack")
    plant(bed, f"/shared/sckpt/{tools.store_files(bed, job)[0].parent.name}/ckpt-9-batch-0123456789abcdef.pack")
    found = json.loads(clean(bed, "orphans", "--json").stdout)["orphans"]
    names = [o["what"] for o in found if o["kind"] == "FILE"]
    assert len([n for n in names if "0123456789abcdef" in n]) == 2, found
    clean(bed, "orphans", "--remove")
    bed.wait(lambda: not list(bed.path("/shared/sckpt").rglob("*0123456789abcdef*")), 20, "both are removed")
    assert len(tools.store_files(bed, job)) == 2 and number in job.checkpoints("COMPLETE")
    # a row whose files are missing
    tools.pack_of(bed, job, number).unlink()
    found = json.loads(clean(bed, "orphans", "--json").stdout)["orphans"]
    assert any(o["kind"] == "ROW" and f"{job.id}.{number}" in o["what"] for o in found), found
    clean(bed, "orphans", "--remove")
    assert number in job.checkpoints("BAD"), job.text()
    job.create()
    job.finish()


def test_check_finds_and_repairs(bed):
    job = Job(bed, "check", mib=4).ready()
    older, newest = job.create(), job.create()
    assert "whole" in clean(bed, "check", job.id).stdout
    tools.flip_a_bit(tools.pack_of(bed, job, newest), 40)
    name = f"{job.id}.{newest}"
    assert clean(bed, "check", "--quick", job.id).returncode == 0, "a quick check reads no chunks"
    found = json.loads(clean(bed, "check", job.id, "--json", code=FAULTS).stdout)
    assert [b["checkpoint"] for b in found["bad"]] == [newest] and found["bad"][0]["faults"], found
    assert newest in job.checkpoints("COMPLETE"), "a check without --repair has changed something"
    text = clean(bed, "check", "--repair", job.id, code=FAULTS)
    assert name in text.stdout, text
    assert newest in job.checkpoints("BAD") and older in job.checkpoints("COMPLETE"), job.text()
    assert list((bed.path("/shared/sckpt") / "quarantine").rglob(f"ckpt-{newest}-*")), "nothing was put aside"
    assert clean(bed, "check", job.id).returncode == 0
    third = job.create()  # all new: it must not refer to what is bad
    assert clean(bed, "check", job.id).returncode == 0 and third in job.checkpoints("COMPLETE")
    job.finish()
