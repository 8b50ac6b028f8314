# SPDX-License-Identifier: GPL-3.0-or-later
"""Unmodified batch jobs lose their node at random moments, at least three times each, and end with the output of an undisturbed run.

Four different programs run at once on one node; that node is killed, the jobs come back on others, and so on. SURVIVE_ROUNDS rounds
of four runs (2 by default, 5 make twenty runs). However slow the machine is, no program ends before its last node is killed."""
import json
import os
import random

ROUNDS = int(os.environ.get("SURVIVE_ROUNDS", "2"))
KILLS = 3
STEPS = 220
PACE = 0.15
TIMEOUT = 600 * ROUNDS
LIMIT = 180      # for one thing that happens in seconds when the machine is not busy
W = "/shared/workloads"

PROGRAMS = {
    "python": f"python3 {W}/threads_children.py {{steps}} {{pace}}",
    "memory": f"{W}/memory 512 {{steps}} {{pace_ms}}",
    "pipes": f"bash {W}/pipes.sh {{steps}} {{pace}}",
    "files": f"python3 {W}/many_files.py {{steps}} {{pace}}",
}


def install_workloads(bed):
    bed.run("ctl", ["mkdir", "-p", W])
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "workloads")
    for name in ("threads_children.py", "many_files.py", "pipes.sh", "memory.c"):
        with open(os.path.join(source, name), encoding="utf-8") as file:
            bed.write(f"{W}/{name}", file.read(), user="root")
    bed.run("ctl", ["gcc", "-O2", "-o", f"{W}/memory", f"{W}/memory.c"])


def command(name, pace):
    return PROGRAMS[name].format(steps=STEPS, pace=pace, pace_ms=int(pace * 1000))


def script(directory, name, pace):
    return f"#!/bin/bash\ncd {directory}\n{command(name, pace)}\necho \"exit $?\"\n"


def results(bed, directory):
    """Every file below the directory: name and contents."""
    top = bed.path(directory)
    return {str(f.relative_to(top)): f.read_bytes() for f in sorted(top.rglob("*")) if f.is_file()}


def checkpoints(bed, job):
    reply = bed.run("ctl", ["sckpt", "list", str(job), "--json"], check=False)
    return json.loads(reply.stdout)["jobs"][0]["checkpoints"] if reply.returncode == 0 else []  # not known before its first start


def newest_complete(bed, job):
    return max((c["number"] for c in checkpoints(bed, job) if c["state"] == "COMPLETE"), default=0)


def start_jobs(bed, base, node):
    """All on one node, which they may leave later: the others take no jobs for a moment."""
    others = ",".join(n for n in bed.compute if n != node)
    bed.run("ctl", ["scontrol", "update", f"nodename={others}", "state=drain", "reason=test"])
    jobs = {}
    for name in PROGRAMS:
        directory = f"{base}/{name}"
        bed.run("ctl", ["mkdir", "-p", directory], user="user1")
        bed.write(f"{directory}/hold", "")
        jobs[name] = bed.sbatch(script(directory, name, PACE), "--ckpt=3s", f"--output={directory}/out.txt", f"--job-name={name}")
    bed.wait(lambda: all(bed.job_state(job) == "RUNNING" for job in jobs.values()), LIMIT, "all jobs run", pause=0.2)
    bed.run("ctl", ["scontrol", "update", f"nodename={others}", "state=resume"])
    return jobs


def reference(bed, base):
    """The undisturbed runs: no checkpoint, no pauses."""
    wanted = {}
    for name in PROGRAMS:
        directory = f"{base}/reference-{name}"
        bed.run("ctl", ["mkdir", "-p", directory], user="user1")
        job = bed.sbatch(script(directory, name, 0), f"--output={directory}/out.txt")
        bed.wait_job(job, "COMPLETED", timeout=LIMIT)
        wanted[name] = results(bed, directory)
    return wanted


def one_round(bed, base, wanted, chance):
    victim = chance.choice(bed.compute)
    jobs = start_jobs(bed, base, victim)
    for _ in range(KILLS):
        before = {name: newest_complete(bed, job) if bed.job(job)["Restarts"] != "0" else 0 for name, job in jobs.items()}
        bed.wait(lambda: all(newest_complete(bed, job) > before[name] for name, job in jobs.items()), LIMIT,
                 "each job has a complete checkpoint newer than its last restart", pause=0.3)
        last = chance.random() * 3
        moment = bed.run("ctl", ["date", "+%s.%N"]).stdout
        bed.wait(lambda: float(bed.run("ctl", ["date", "+%s.%N"]).stdout) > float(moment) + last, 10, "a random moment")
        victims = {bed.job(job)["BatchHost"] for job in jobs.values()}
        restarts = {name: int(bed.job(job)["Restarts"]) for name, job in jobs.items()}
        assert all(bed.job_state(job) == "RUNNING" for job in jobs.values()), {name: bed.job(job) for name, job in jobs.items()}
        for node in victims:
            bed.kill_node(node)
        bed.wait(lambda: all(int(bed.job(job)["Restarts"]) > restarts[name] and bed.job_state(job) == "RUNNING" for name, job in jobs.items()),
                 LIMIT, "all jobs run again elsewhere", pause=0.3)
        for node in victims:
            bed.heal_node(node)
    for name, job in jobs.items():
        bed.path(f"{base}/{name}/hold").unlink()
    for name, job in jobs.items():
        fields = bed.wait_job(job, timeout=LIMIT)
        assert fields["JobState"] == "COMPLETED", f"{name}: {fields['JobState']}\n{bed.output(job)[-2000:]}"
        assert int(fields["Restarts"]) >= KILLS
        got = results(bed, f"{base}/{name}")
        assert got.keys() == wanted[name].keys(), f"{name}: files {sorted(got)} instead of {sorted(wanted[name])}"
        for file, contents in wanted[name].items():
            assert got[file] == contents, f"{name}: {file} differs from the undisturbed run's"
        show = json.loads(bed.run("ctl", ["sckpt", "show", str(job), "--json"]).stdout)
        restored = [r for r in show["restarts_done"] if r["outcome"] == "restored"]
        assert len(restored) >= KILLS, f"{name}: restored only {len(restored)} times: {show['job']['restarts_done']}"


def test_jobs_survive_their_nodes(bed):
    install_workloads(bed)
    seed = int(os.environ.get("SURVIVE_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"SURVIVE_SEED={seed}")
    chance = random.Random(seed)
    base = "/home/user1/survive"
    bed.run("ctl", ["rm", "-rf", base])
    wanted = reference(bed, base)
    for number in range(ROUNDS):
        one_round(bed, f"{base}/{number}", wanted, chance)
        print(f"round {number + 1} of {ROUNDS}: {len(PROGRAMS)} jobs, each killed {KILLS} times, identical output", flush=True)
