# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch scripts with srun as sites teach them, unmodified: with --ckpt and a lost node they give what they give without.

They run in batches, as many at once as two nodes can hold. When each has a complete checkpoint, the node that most of them run on is
killed, so that every script loses a node or sees others lose theirs.
The lines that several tasks write into one file come in any order, so files are compared line by line, sorted, unless a script runs one
task at a time."""
import json
import os

from lib import ENDED, SAID_BY_CHANCE

TIMEOUT = 420
W = "/shared/workloads"
BASE = "/home/user1/scripts"
LINES = 40    # of each step, at PACE milliseconds each
PACE = 500
BATCH = 14    # CPUs of the scripts that run at once: two nodes of eight are left when one is dead

# name: (sbatch options, whether the order of lines counts, script)
SCRIPTS = {
    "loop": ("-n1", True, """
for i in 1 2 3; do
    srun -n1 {count} loop$i 14 {pace}
    echo "step $i: exit $?"
done
"""),
    "background": ("-n4", False, """
srun -n2 --exact {count} left {lines} {pace} &
srun -n2 --exact {count} right {lines} {pace} &
wait
echo done
"""),
    "wait_each": ("-n2", False, """
srun -n1 --exact {count} first {lines} {pace} 3 & first=$!
srun -n1 --exact {count} second {lines} {pace} 0 & second=$!
wait $first; echo "first ended with $?"
wait $second; echo "second ended with $?"
"""),
    "pipeline": ("-n1", True, """
srun -n1 {count} pipe {lines} {pace} | awk '{{ total += $3; print "seen", $3, total; fflush() }}' | tee tee.txt
echo "exits ${{PIPESTATUS[*]}}"
"""),
    "substitution": ("-n1", True, """
text=$(srun -n1 {count} inner {lines} {pace})
echo "$text" | wc -l
echo "$text" | tail -n 1
"""),
    "here_document": ("-n1", True, """
srun -n1 {ticker} sum here {pace} <<END
$(seq 1 {lines})
END
echo "exit $?"
"""),
    "stdin_file": ("-n1", True, """
seq 1 {lines} > numbers
srun -n1 {ticker} sum file {pace} < numbers
echo "exit $?"
"""),
    "stdin_pipe": ("-n1", True, """
seq 1 {lines} | srun -n1 {ticker} sum pipe {pace}
echo "exits ${{PIPESTATUS[*]}}"
"""),
    "read_loop": ("-n1", True, """
printf '%s\\n' a b c > names
while read -r name; do
    srun -n1 --input=none {count} "$name" 14 {pace}
done < names
"""),
    "multi_prog": ("-n2", False, """
printf '0 {count} zero {lines} {pace}\\n1 {count} one {lines} {pace}\\n' > programs
srun -n2 --multi-prog programs
echo "exit $?"
"""),
    "per_task_output": ("-n3", True, """
srun -n3 --output=task.%t {count} own {lines} {pace}
echo "exit $?"
"""),
    "one_output": ("-n2", False, """
srun -n2 --output=steps.txt {count} shared {lines} {pace}
echo "exit $?"
"""),
    "label": ("-n2", False, """
srun -n2 --label {count} labelled {lines} {pace}
echo "exit $?"
"""),
    "many_nodes": ("-N2 -n4", False, """
srun {count} wide {lines} {pace}
echo "exit $?"
"""),
    "trap": ("-n1", True, """
trap 'echo "USR1 came"' USR1
srun -n1 {count} trapped {lines} {pace} &
step=$!
until [ -e signalled ]; do sleep 0.2; done
kill -USR1 $$
wait $step; wait $step
echo "exit $?"
"""),
    "functions": ("-n1", True, """
inner() {{ srun -n1 "$@"; }}
outer() {{ local name=$1; shift; inner {count} "$name" {lines} {pace} 5; }}
outer nested || echo "nested ended with $?"
"""),
    "set_e": ("-n1", True, """
set -e
srun -n1 {count} good 20 {pace}
srun -n1 {count} also 20 {pace}
if srun -n1 {count} bad 2 {pace} 4; then echo no; else echo "bad ended with $?"; fi
echo end
"""),
    "xargs": ("-n2", False, """
seq 1 4 | xargs -P 2 -I X srun -n1 --exact --input=none {count} xargsX 16 {pace}
echo "exit $?"
"""),
    "export_none": ("-n1", True, """
export SECRET=yes
/usr/bin/srun -n1 --export=NONE /bin/bash -c 'echo "secret: $SECRET"; exec {count} bare {lines} {pace}'
"""),
    "serial_and_steps": ("-n2", False, """
exec 5> serial.txt
for i in 1 2 3 4 5 6; do echo "before $i" >&5; sleep 0.2; done
srun -n2 {count} both {lines} {pace}
for i in 1 2 3 4 5 6; do echo "after $i" >&5; sleep 0.2; done
"""),
}


def script_text(directory, body, pace):
    count = f"{W}/ticker count"
    body = body.format(count=count, ticker=f"{W}/ticker", lines=LINES, pace=pace)
    return f"#!/bin/bash\ncd {directory}\n{body}"


def install(bed):
    bed.run("ctl", ["mkdir", "-p", W])
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "workloads", "ticker.c")
    with open(source, encoding="utf-8") as file:
        bed.write(f"{W}/ticker.c", file.read(), user="root")
    bed.run("ctl", ["gcc", "-O2", "-o", f"{W}/ticker", f"{W}/ticker.c"])
    bed.run("ctl", ["rm", "-rf", BASE])


def submit(bed, kind, names, pace, *options):
    """Name → (job id, directory)."""
    jobs = {}
    for name in names:
        directory = f"{BASE}/{kind}/{name}"
        bed.run("ctl", ["mkdir", "-p", directory], user="user1")
        if name == "trap":
            bed.write(f"{directory}/signalled", "")
        job = bed.sbatch(script_text(directory, SCRIPTS[name][2], pace), *SCRIPTS[name][0].split(), *options, f"--output={directory}/out.txt",
                         f"--job-name={name}")
        jobs[name] = (job, directory)
    return jobs


def batches():
    """The scripts, so many at once as fit."""
    batch, cpus = [], 0
    for name, (options, _, _) in SCRIPTS.items():
        wanted = int(options.split("-n")[-1])
        if cpus + wanted > BATCH:
            yield batch
            batch, cpus = [], 0
        batch.append(name)
        cpus += wanted
    yield batch


def results(bed, directory, exact):
    top = bed.path(directory)
    found = {}
    for file in sorted(top.rglob("*")):
        if file.is_file() and file.name != "programs":
            # what srun says of its tasks comes with the node's name, and when it likes
            text = SAID_BY_CHANCE.sub("", file.read_text(errors="replace"))
            lines = [line for line in text.splitlines() if not line.startswith("srun: error: n")]
            found[str(file.relative_to(top))] = lines if exact else sorted(lines)
    return found


def newest_complete(bed, job):
    reply = bed.run("ctl", ["sckpt", "list", str(job), "--json"], check=False)
    rows = json.loads(reply.stdout)["jobs"][0].get("checkpoints", []) if reply.returncode == 0 else []
    return max((c["number"] for c in rows if c["state"] == "COMPLETE"), default=0)


def why(bed, name, job):
    show = bed.run("ctl", ["sckpt", "show", str(job)], check=False).stdout
    return f"{name} (job {job}): {bed.job(job)}\n{show}\n{bed.output(job)[-2000:]}"


def is_off(bed, job, node):
    """It runs elsewhere, or has ended."""
    fields = bed.job(job)  # asked once: it may end between two questions
    return fields["JobState"] in ENDED or (fields["JobState"] == "RUNNING" and fields.get("BatchHost", node) != node)


def lose_node(bed, jobs):
    """Kills the node that most scripts run on, once each has a checkpoint, and waits until they run again."""
    for name, (job, _) in jobs.items():
        try:
            bed.wait(lambda j=job: newest_complete(bed, j) > 0, 90, f"{name} has a checkpoint", pause=0.3)
        except Exception as error:
            raise AssertionError(why(bed, name, job)) from error
    hosts = [bed.job(job).get("BatchHost") for job, _ in jobs.values()]
    victim = max(bed.compute, key=hosts.count)
    bed.kill_node(victim)
    try:
        bed.wait(lambda: all(is_off(bed, job, victim) for job, _ in jobs.values()), 120, "the jobs of the dead node run again", pause=0.5)
    finally:
        bed.heal_node(victim)


def one_batch(bed, names):
    """What went wrong with these scripts."""
    plain = submit(bed, "plain", names, 0)
    for name, (job, _) in plain.items():
        fields = bed.wait_job(job, timeout=90)
        assert fields["JobState"] in ("COMPLETED", "FAILED"), why(bed, name, job)
    jobs = submit(bed, "ckpt", names, PACE, "--ckpt=5s")
    bed.wait(lambda: all(bed.job_state(job) == "RUNNING" for job, _ in jobs.values()), 60, "all jobs run", pause=0.5)
    lose_node(bed, jobs)
    wrong = []
    for name, (job, directory) in jobs.items():
        fields = bed.wait_job(job, timeout=180)
        exact = SCRIPTS[name][1]
        wanted, got = results(bed, plain[name][1], exact), results(bed, directory, exact)
        if fields["JobState"] != bed.job(plain[name][0])["JobState"] or got != wanted:
            differs = {file: (wanted.get(file), got.get(file)) for file in wanted.keys() | got.keys() if wanted.get(file) != got.get(file)}
            wrong.append(f"{name}: {bed.job(plain[name][0])['JobState']} without, {fields['JobState']} with --ckpt; "
                         f"lines (without, with): {differs}\n{why(bed, name, job)}")
    return wrong


def test_old_scripts_survive_lost_nodes(bed):
    install(bed)
    wrong = [problem for names in batches() for problem in one_batch(bed, names)]
    assert not wrong, "\n\n".join(wrong)
