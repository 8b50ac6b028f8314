# SPDX-License-Identifier: GPL-3.0-or-later
"""Job arrays: each task is a job of its own here, and sckpt takes the names that Slurm has for them. Several jobs at once: a result for each, and an
exit code that tells whether all, some or none worked."""
import json
import re

from test_commands import sckpt

COUNTER = """#!/bin/bash
for ((i = 0; i < {steps}; ++i)); do echo "line $i"; sleep 0.1; done
echo end
"""
STEPS = "#!/bin/bash\nsrun -n2 sh -c 'while [ ! -e /home/user1/array.stop ]; do sleep 0.1; done'\n"


def numbers(bed, array):
    """The job numbers of the tasks that have started, by task."""
    lines = bed.run("ctl", ["squeue", "-h", "-t", "R,S", "-j", str(array), "-O", "ArrayTaskID:20,JobID:20"]).stdout.splitlines()
    return {int(task): int(job) for task, job in (line.split() for line in lines) if task.isdigit()}


def start(bed, tasks, script=None, count=None, *options):
    script = script or COUNTER.format(steps=3000)
    array = bed.sbatch(script, f"--array={tasks}", "--ckpt=manual", "--output=/home/user1/array.%A_%a", *options)
    bed.wait(lambda: len(numbers(bed, array)) == count, 30, f"{count} tasks of the array run")
    known = lambda job: json.loads(bed.run("ctl", ["sckpt", "show", str(job), "--json"], check=False).stdout or "{}").get("node")
    jobs = numbers(bed, array)
    # a number that is the array's too is asked for by the task's name
    for task, job in jobs.items():
        bed.wait(lambda t=task: json.loads(bed.run("ctl", ["sckpt", "show", f"{array}_{t}", "--json"], check=False).stdout or "{}").get("node"), 30,
                 f"sckptctld knows {array}_{task}")
    return array, jobs


def made(text):
    return dict(re.findall(r"^checkpoint (\d+) of job (\S+): complete", text, re.M)[i][::-1] for i in range(text.count(": complete")))


def test_tasks_of_an_array_are_named_as_slurm_does(bed):
    array, jobs = start(bed, "1-4", count=4)
    one = sckpt(bed, "create", f"{array}_2").stdout
    assert made(one) == {f"{array}_2": "1"}, one
    alone = json.loads(sckpt(bed, "show", f"{array}_2", "--json").stdout)
    assert alone["job_id"] == jobs[2] and alone["array_task"] == f"{array}_2"
    some = sckpt(bed, "create", f"{array}_[1,3-4]").stdout
    assert made(some) == {f"{array}_{task}": "1" for task in (1, 3, 4)}, some
    every = sckpt(bed, "create", array).stdout
    assert made(every) == {f"{array}_1": "2", f"{array}_2": "2", f"{array}_3": "2", f"{array}_4": "2"}, every
    two = json.loads(sckpt(bed, "create", f"{array}_[1-3:2]", "--json").stdout)["jobs"]
    assert [(j["name"], j["job_id"], j["checkpoint"], j["complete"]) for j in two] == \
        [(f"{array}_1", jobs[1], 3, True), (f"{array}_3", jobs[3], 3, True)], two
    # the others
    rows = sckpt(bed, "list", array).stdout
    assert all(f"{job} ({array}_{task})" in rows for task, job in jobs.items()), rows
    listed = json.loads(sckpt(bed, "list", f"{array}_[2,4]", "--json").stdout)["jobs"]
    assert [(j["name"], j["job_id"]) for j in listed] == [(f"{array}_2", jobs[2]), (f"{array}_4", jobs[4])]
    assert sckpt(bed, "list", f"{array}_1").stdout.splitlines()[0].startswith("N"), "the checkpoints of one"
    shown = sckpt(bed, "show", f"{array}_[1-2]").stdout
    assert re.findall(r"^job (\d+) \(", shown, re.M) == [str(jobs[1]), str(jobs[2])], shown
    assert "checkpoint 3 of job" in sckpt(bed, "show", f"{array}_1.3").stdout
    assert sckpt(bed, "pin", f"{array}_[1-2].2").stdout.count("is pinned") == 2
    assert sckpt(bed, "unpin", f"{array}_[1-2].2").stdout.count("is not pinned") == 2


def test_some_of_several_jobs_fail(bed):
    array, jobs = start(bed, "0-1", count=2)
    lone = bed.sbatch(COUNTER.format(steps=3000), "--output=/home/user1/array.lone")   # without --ckpt
    bed.wait_job(lone, "RUNNING")
    mixed = sckpt(bed, "create", f"{array}_[0-1],{lone}", code=8)
    assert made(mixed.stdout) == {f"{array}_0": "1", f"{array}_1": "1"}
    assert f"sckpt: checkpointing job {lone}: " in mixed.stderr and "no batch job" in mixed.stderr, mixed.stderr
    missing = sckpt(bed, "create", f"{array}_[1-2]", code=8)
    assert made(missing.stdout) == {f"{array}_1": "2"}
    assert f"sckpt: checkpointing job {array}_2: it has not started yet, or there is no such task" in missing.stderr, missing.stderr
    document = json.loads(sckpt(bed, "create", f"{array}_[1,7]", "--json", code=8).stdout)["jobs"]
    assert document[0]["checkpoint"] == 3 and document[1]["error"]["code"] == "not_found" and document[1]["name"] == f"{array}_7", document
    none = sckpt(bed, "create", f"{array}_[7-8]", code=3)
    assert none.stdout == "" and none.stderr.count("no such task") == 2
    assert "no such task" in sckpt(bed, "create", f"{array}_9", code=3).stderr
    assert "is not yours" in sckpt(bed, "create", f"{array}_[0-1]", user="user2", code=4).stderr
    assert "is not yours" in sckpt(bed, "show", array, user="user2", code=4).stderr
    assert made(sckpt(bed, "create", f"{array}_0", user="root").stdout) == {f"{array}_0": "2"}
    assert "knows no job array" in sckpt(bed, "create", "999999_1", code=3).stderr
    bed.run("ctl", ["scancel", str(array)])
    bed.wait(lambda: not numbers(bed, array), 30, "all are cancelled")
    assert "no task of job array" in sckpt(bed, "create", array, code=3).stderr


def test_tasks_that_wait_are_left_alone(bed):
    array, jobs = start(bed, "1-5%2", count=2)
    every = sckpt(bed, "create", array).stdout
    assert set(made(every)) == {f"{array}_{task}" for task in jobs} and len(jobs) == 2, every


def test_an_array_is_requeued_and_goes_on(bed):
    array, jobs = start(bed, "1-3", COUNTER.format(steps=150), 3)
    said = sckpt(bed, "requeue", array).stdout
    assert said.count("the job is requeued") == 3, said
    for task, job in jobs.items():
        assert bed.wait_job(f"{array}_{task}", "COMPLETED", timeout=90)["Restarts"] == "1"
        assert bed.read(f"/home/user1/array.{array}_{task}") == "".join(f"line {i}\n" for i in range(150)) + "end\n"


def test_steps_of_an_arrays_tasks(bed):
    array, jobs = start(bed, "1-2", STEPS, 2, "-n2")
    bed.wait(lambda: all(f"{job}.0" in bed.run("ctl", ["squeue", "-hs", "-j", str(job), "-O", "StepID:30"]).stdout or
                         f"{array}_{task}.0" in bed.run("ctl", ["squeue", "-hs", "-j", str(job)]).stdout for task, job in jobs.items()), 30, "their steps run")
    said = bed.wait(lambda: (r := bed.run("ctl", ["sckpt", "create", f"{array}_[1-2].0"], user="user1", check=False)).returncode == 0 and r, 30, "checkpoints",
                    pause=0.3).stdout
    for task, job in jobs.items():
        assert re.search(rf"of step {array}_{task}\.0: complete.*srun --ckpt-restart={job}\.0\.\d+`", said), said
    bed.write("/home/user1/array.stop", "")
    for task in jobs:
        bed.wait_job(f"{array}_{task}", "COMPLETED")
    bed.path("/home/user1/array.stop").unlink()


def test_watch_follows_tasks_of_an_array(bed):
    array, _ = start(bed, "1-2", count=2)
    watch = bed.spawn("ctl", ["sckpt", "watch", str(array), "--json"], user="user1")
    sckpt(bed, "create", array)
    out, _ = watch.communicate(timeout=30)
    seen = {job["array_task"] for line in out.splitlines() for job in json.loads(line)["jobs"]}
    assert watch.returncode == 0 and seen == {f"{array}_1", f"{array}_2"}, out[-2000:]
