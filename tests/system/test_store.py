# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store as users and administrators see it: what is written, what is kept where, pins, and sckpt-clean."""
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180
DENIED, FAULTS = 4, 7   # exit codes


def clean(bed, *argv, user=None, code=0):
    result = bed.run("ctl", ["sckpt-clean", *map(str, argv)], user=user, check=False, timeout=120)
    assert code is None or result.returncode == code, f"sckpt-clean {argv}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def report(bed, *argv):
    return json.loads(clean(bed, "report", "--json", *argv).stdout)


def sckpt(bed, *argv, user="user1"):
    return bed.run("ctl", ["sckpt", *map(str, argv)], user=user, check=False)


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


# ---- orphans, check, rebuild
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


def lose_the_catalogue(bed):
    daemon = bed.daemon("ctl", "sckptctld")
    daemon.stop()
    bed.run("ctl", ["sh", "-c", "rm /var/lib/sckpt/catalogue.sqlite*"])
    daemon.start()
    bed.wait(lambda: bed.run("ctl", ["sckpt", "status"], check=False).returncode == 0, 30, "sckptctld answers again")


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


def key_lines(bed):
    return [line for line in bed.run("n3", ["cat", "/root/new.key"]).stdout.splitlines() if not line.startswith("#")]


def test_the_key_is_made_and_rotated(bed):
    config = "controller:\n  host: ctl\nstore:\n  directory: /shared/sckpt\n  key: /root/new.key\n"
    bed.run("n3", ["sh", "-c", "rm -f /root/new.key; cat > /root/key.yaml"], input=config)
    first = bed.run("n3", ["sckpt-clean", "--config", "/root/key.yaml", "make-key"])
    assert "/root/new.key" in first.stdout, first
    assert bed.run("n3", ["stat", "-c", "%U %a", "/root/new.key"]).stdout == "root 600\n"
    keys = key_lines(bed)
    assert len(keys) == 1
    assert bed.run("n3", ["sckpt-clean", "--config", "/root/key.yaml", "make-key"], check=False).returncode, "a key was overwritten"
    bed.run("n3", ["sckpt-clean", "--config", "/root/key.yaml", "make-key", "--rotate"])
    rotated = key_lines(bed)
    assert len(rotated) == 2 and rotated[1:] == keys, rotated


def test_images_outlive_a_rotation_of_the_key(bed):
    job = Job(bed, "rotated", node="n1", mib=2).ready()
    older = job.create()
    old = bed.run("n1", ["cat", "/etc/sckpt/sckpt.key"]).stdout
    new = "0a1b2c3d " + "7e" * 32 + "\n" + old
    try:
        for node in bed.compute:
            bed.run(node, ["tee", "/etc/sckpt/sckpt.key"], input=new)
        newer = job.create()
        job.requeue("n2")
        job.ready()
        assert job.restored_from() == [newer], job.text()
        assert clean(bed, "check", job.id).returncode == 0
        assert older in job.checkpoints("COMPLETE")
        job.finish()
    finally:
        for node in bed.compute:
            bed.run(node, ["tee", "/etc/sckpt/sckpt.key"], input=old)


def test_images_under_a_key_that_became_known_are_put_aside(bed):
    """The procedure of sckpt-clean(8): a new key everywhere, the old line out, and one command."""
    job = Job(bed, "leaked", node="n1", mib=2).ready()
    older = job.create()
    old = bed.run("n1", ["cat", "/etc/sckpt/sckpt.key"]).stdout
    try:
        for node in bed.compute:
            bed.run(node, ["tee", "/etc/sckpt/sckpt.key"], input="1b2c3d4e " + "6d" * 32 + "\n")
        assert clean(bed, "check", "--quick", job.id, code=FAULTS) and older in job.checkpoints("COMPLETE"), "without --repair something was changed"
        text = clean(bed, "check", "--quick", "--repair", code=FAULTS).stdout
        assert f"{job.id}.{older}" in text and "key" in text, text
        assert older in job.checkpoints("BAD"), job.text()
        assert list((bed.path("/shared/sckpt") / "quarantine").rglob(f"ckpt-{older}-*.manifest")), "nothing was put aside"
        newer = job.create()  # it builds on nothing that was under the old key
        assert clean(bed, "check", job.id).returncode == 0
        job.requeue("n2")
        job.ready()
        assert job.restored_from() == [newer], job.text()
        job.finish()
    finally:
        for node in bed.compute:
            bed.run(node, ["tee", "/etc/sckpt/sckpt.key"], input=old)


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
