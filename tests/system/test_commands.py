# SPDX-License-Identifier: GPL-3.0-or-later
"""sckpt's commands on a real job: create, requeue, list, show, status; what they print, their exit codes, and their effect."""
import json
import re

COUNTER = """#!/bin/bash
for ((i = 0; i < {steps}; ++i)); do echo "line $i"; sleep 0.1; done
echo end
"""


def sckpt(bed, *words, user="user1", code=0):
    result = bed.run("ctl", ["sckpt", *map(str, words)], user=user, check=False)
    assert result.returncode == code, f"sckpt {words}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def start(bed, steps, *options):
    job = bed.sbatch(COUNTER.format(steps=steps), "--ckpt=manual", *options)
    bed.wait(lambda: "line 5" in bed.output(job), 30, "the job writes")
    bed.wait(lambda: bed.run("ctl", ["sckpt", "list", str(job)], check=False).returncode == 0, 10, "sckptctld knows the job")
    return job


def test_create_list_show(bed):
    job = start(bed, 3000)
    first = sckpt(bed, "create", job)
    assert re.search(rf"checkpoint 1 of job {job}: complete, \d", first.stdout), first.stdout
    assert "captured" in first.stderr, "progress belongs on standard error"
    second = json.loads(sckpt(bed, "create", job, "--json").stdout)
    assert second["checkpoint"] == 2 and second["phase"] == "COMPLETE" and second["bytes"] > 100000
    third = sckpt(bed, "create", job)
    assert "checkpoint 3" in third.stdout
    rows = json.loads(sckpt(bed, "list", job, "--json").stdout)["jobs"][0]["checkpoints"]
    # retention.keep is 2: the oldest goes, and numbers are not used again
    bed.wait(lambda: [c["number"] for c in json.loads(sckpt(bed, "list", job, "--json").stdout)["jobs"][0]["checkpoints"]] == [2, 3],
             20, f"checkpoint 1 is removed; listed at first: {rows}")
    shown = json.loads(sckpt(bed, "show", f"{job}.3", "--json").stdout)
    files = shown["images"][0]["files"]
    assert any(f["path"].endswith(f"slurm-{job}.out") and f["stdio"] and f["size"] > 0 for f in files), files
    text = sckpt(bed, "show", job).stdout
    assert "checkpoint 3 complete" in text and str(job) in text
    assert str(job) in sckpt(bed, "list").stdout
    bed.run("ctl", ["scancel", str(job)])
    bed.wait_job(job, "CANCELLED")
    bed.wait(lambda: not any(f.name.startswith(f"job-{job}-") for f in bed.path("/shared/sckpt").iterdir()), 30,
             "a cancelled job leaves nothing in the store")


def test_requeue_goes_on_where_it_was_and_soon(bed):
    job = start(bed, 120)
    sckpt(bed, "requeue", job)
    fields = bed.wait_job(job, "COMPLETED", timeout=60)   # Slurm alone would let it wait for 121 s
    assert fields["Restarts"] == "1"
    assert bed.output(job) == "".join(f"line {i}\n" for i in range(120)) + "end\n"


def test_requeue_by_scontrol_goes_on_from_the_checkpoint_too(bed):
    job = start(bed, 120)
    sckpt(bed, "create", job)
    bed.run("ctl", ["scontrol", "requeue", str(job)], user="user1")
    bed.wait_job(job, "COMPLETED", timeout=60)
    assert bed.output(job) == "".join(f"line {i}\n" for i in range(120)) + "end\n"


def test_several_orders_at_once_make_one_checkpoint_or_one_after_the_other(bed):
    job = start(bed, 3000)
    orders = [bed.spawn("ctl", ["sckpt", "create", str(job), "--json"], user="user1") for _ in range(6)]
    numbers = set()
    for order in orders:
        out, _ = order.communicate(timeout=60)
        assert order.returncode == 0, out
        numbers.add(json.loads(out[out.index("{"):])["checkpoint"])
    assert numbers <= set(range(1, 7)) and len(numbers) == max(numbers), numbers


def test_what_is_wrong_is_said(bed):
    assert "no batch job" in sckpt(bed, "show", 999999, code=3).stderr
    assert "no batch job" in sckpt(bed, "create", 999999, code=3).stderr
    assert "12_x" in sckpt(bed, "create", "12_x", code=2).stderr
    assert "no job array 999999" in sckpt(bed, "create", "999999_3", code=3).stderr
    sckpt(bed, "frobnicate", code=2)
    job = start(bed, 3000)
    assert "no checkpoint 7" in sckpt(bed, "show", f"{job}.7", code=3).stderr
    assert json.loads(sckpt(bed, "show", 999999, "--json", code=3).stdout)["error"]["code"] == "not_found"
    bed.daemon("ctl", "sckptctld").stop()
    gone = sckpt(bed, "list", code=5)
    assert "ctl:6830" in gone.stderr, gone.stderr
    bed.daemon("ctl", "sckptctld").start()
    bed.wait(lambda: bed.run("ctl", ["sckpt", "create", str(job)], check=False).returncode == 0, 30, "all is well again")


def test_status(bed):
    bed.wait(lambda: all(n["connected"] for n in json.loads(sckpt(bed, "status", "--json").stdout)["nodes"]), 20, "all nodes are connected")
    status = json.loads(sckpt(bed, "status", "--json").stdout)
    assert {n["name"] for n in status["nodes"]} == set(bed.compute)
    assert all(n["backend_usable"] and n["backend"].startswith("criu ") for n in status["nodes"])
    assert status["slurm_reachable"] and status["slurm_version"].startswith("24.11")
    bed.kill_node("n3")
    bed.wait(lambda: not {n["name"]: n["connected"] for n in json.loads(sckpt(bed, "status", "--json").stdout)["nodes"]}["n3"], 30,
             "a lost node is shown as such")


def test_a_wrong_configuration_is_refused_with_its_line(bed):
    bed.run("n1", ["sh", "-c", "printf 'controller:\\n  host: ctl\\nstore:\\n  directory: /x\\n  colour: red\\n' > /tmp/wrong.yaml"])
    for daemon in ("sckptctld", "sckptd"):
        result = bed.run("n1", [daemon, "--check-config", "--config", "/tmp/wrong.yaml"], check=False)
        assert result.returncode == 2 and "/tmp/wrong.yaml:5: store.colour" in result.stderr, result.stderr
        assert bed.run("n1", [daemon, "--check-config"]).returncode == 0
