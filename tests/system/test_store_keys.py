# SPDX-License-Identifier: GPL-3.0-or-later
"""The key that seals images: made, rotated, missing on a node."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402, F401
from store_tools import FAULTS, clean  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180


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
