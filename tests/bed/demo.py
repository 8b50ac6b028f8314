# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration behind `./dev demo`: a job computes, its node loses power, the job ends elsewhere as if nothing had happened.

Prints a live time line. Exit code 0 only if the output and the file of the disturbed run are those of an undisturbed one, byte for byte."""
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))
from lib import Bed  # noqa: E402

HOME = "/home/user1/demo"
STEPS = 120
JOB = """#!/bin/bash
# An ordinary job script: nothing in it knows of checkpoints.
cd {directory}
python3 - <<'END'
import time
x, trail = 1, open("trail.txt", "a")
for step in range({steps}):
    for i in range(20000):                     # something that can be checked
        x = (x * 48271 + step) % 2147483647
    trail.write(f"{{step}} {{x}}\\n"); trail.flush()
    print("step", step, x, flush=True)
    time.sleep({pace})
print("result", x)
END
"""


class TimeLine:
    def __init__(self):
        self.begin, self.last = time.monotonic(), None

    def say(self, text):
        if text != self.last:
            print(f"  {time.monotonic() - self.begin:6.1f} s  {text}", flush=True)
            self.last = text


def run_job(bed, name, *options, pace):
    directory = f"{HOME}/{name}"
    bed.run("ctl", ["mkdir", "-p", directory], user="user1")
    return bed.sbatch(JOB.format(directory=directory, steps=STEPS, pace=pace), f"--output={directory}/output.txt", *options)


def steps_done(bed, name):
    return bed.read(f"{HOME}/{name}/trail.txt", missing="").count("\n")


def complete(bed, job):
    reply = json.loads(bed.run("ctl", ["sckpt", "list", str(job), "--json"], check=False).stdout or "{}")
    rows = (reply.get("jobs") or [{}])[0].get("checkpoints", [])
    return max((c["number"] for c in rows if c["state"] == "COMPLETE"), default=0)


def show_progress(bed, job, line):
    fields = bed.job(job)
    where = fields.get("BatchHost") or fields.get("Reason", "")
    line.say(f"job {job}: {fields['JobState']:<10} {where:<12} step {steps_done(bed, 'disturbed'):>3} of {STEPS}, "
             f"complete checkpoints up to number {complete(bed, job)}")
    return fields


def main():
    bed, line = Bed(), TimeLine()
    line.say("an undisturbed run of the same script, for comparison later")
    plain = run_job(bed, "undisturbed", pace=0)
    bed.wait_job(plain, "COMPLETED", timeout=60)

    job = run_job(bed, "disturbed", "--ckpt=4s", pace=0.25)
    line.say(f"sbatch --ckpt=4s: job {job}")
    while complete(bed, job) < 2 or steps_done(bed, "disturbed") < STEPS // 3:
        show_progress(bed, job, line)
        time.sleep(0.5)
    victim = bed.job(job)["BatchHost"]
    at_kill = steps_done(bed, "disturbed")
    bed.kill_node(victim)
    line.say(f"*** {victim} loses its power at step {at_kill}: every process and all memory of it are gone ***")
    while (fields := show_progress(bed, job, line))["JobState"] not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
        time.sleep(0.5)

    print()
    print(bed.run("ctl", ["sckpt", "show", str(job)]).stdout)
    same = True
    for file in ("output.txt", "trail.txt"):
        a = bed.path(f"{HOME}/disturbed/{file}").read_bytes()
        b = bed.path(f"{HOME}/undisturbed/{file}").read_bytes()
        print(f"{file}: {len(a)} bytes, {'identical to the undisturbed run, byte for byte' if a == b else 'DIFFERENT from the undisturbed run'}")
        same = same and a == b
    if not same or fields["JobState"] != "COMPLETED" or fields["Restarts"] == "0":
        sys.exit(f"the demonstration failed: job {job} is {fields['JobState']} after {fields['Restarts']} restarts")
    print(f"job {job} lost {victim} at step {at_kill}, went on on {fields['BatchHost']}, and is COMPLETED.")


main()
