# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a job is away when its node fails, from the moment at which Slurm notices (SlurmdTimeout is the site's choice) until the
program runs again elsewhere; and where that time goes. One job loses its node again and again on an otherwise idle cluster.

The parts, each from a log line with milliseconds (all nodes share one clock) or from the program's own file:
  noticed      slurmctld requeues the job because its node is down
  begin moved  sckptctld has moved the begin time of the requeued job to now
  started      slurmctld has given the job a node and sends the batch script there
  ordered      sckpt-run runs and has asked; sckptctld has told sckptd what to restore
  fetched      sckptd has the image, verified
  restored     sckptd says that the tree runs
  runs         the program writes its next time stamp"""
import datetime
import re

from figures import Figures, say
from lib import Bed

ROUNDS = 5
FILE = "/home/user1/restart/stamps"
PROGRAM = f"""#!/usr/bin/python3
import time
data = bytearray(100_000_000)
out = open("{FILE}", "a")
while True:
    out.write(f"{{time.time():.4f}}\\n"); out.flush()
    time.sleep(0.01)
"""
PARTS = ("noticed", "begin moved", "started", "ordered", "fetched", "restored", "runs")


def moments(text, pattern):
    """The times of the log lines that match: "[2026-01-31T12:00:00.123] …" of Slurm's, without the brackets in ours."""
    found = []
    for line in text.splitlines():
        stamp = re.match(r"\[?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})", line)
        if stamp and re.search(pattern, line):
            found.append(datetime.datetime.fromisoformat(stamp[1]).astimezone().timestamp())
    return found


def first_after(what, times, begin):
    later = sorted(t for t in times if t >= begin - 0.002)  # logs cut to the millisecond
    assert later, f"nothing tells when: {what}"
    return later[0]


def stamps(bed):
    return [float(line) for line in bed.read(FILE, missing="").splitlines() if re.fullmatch(r"\d+\.\d{4}", line)]


def checkpoint(bed, job):
    bed.wait(lambda: bed.run("ctl", ["sckpt", "create", str(job)], check=False).returncode == 0, 30, "a checkpoint", pause=0.3)


def one_restart(bed, job):
    checkpoint(bed, job)
    victim = bed.job(job)["BatchHost"]
    bed.kill_node(victim)
    cut = stamps(bed)[-1]
    bed.wait(lambda: (s := stamps(bed)) and s[-1] > cut + 1 and bed.job_state(job) == "RUNNING", 90, "the job runs again", pause=0.2)
    slurmctld, sckptctld = (bed.daemon("ctl", name).log() for name in ("slurmctld", "sckptctld"))
    sckptd = bed.daemon(bed.job(job)["BatchHost"], "sckptd").log()
    times, at = {}, cut  # what comes first after the cut, then after the notice
    for part, log, pattern in (("noticed", slurmctld, rf"[Rr]equeu(e|ing) .*JobId={job}\b.*"),
                               ("begin moved", sckptctld, rf"job {job}: begin time moved"),
                               ("started", slurmctld, rf"(Allocate|Started) JobId={job}\b"),
                               ("fetched", sckptd, rf"job {job}: checkpoint \d+ is here"),
                               ("restored", sckptd, rf"job {job} goes on from")):
        times[part] = first_after(part, moments(log, pattern), at)
        if part == "noticed":
            at = times[part]  # Slurm may start the job before sckptctld has written that it moved the time
    fetch = re.findall(rf"job {job}: checkpoint \d+ is here and verified after (\d+) ms", sckptd)[-1]
    times["ordered"] = times["fetched"] - int(fetch) / 1000
    times["runs"] = first_after("runs", stamps(bed), times["fetched"])
    bed.heal_node(victim)
    bed.wait(lambda: len(bed.slurm_nodes()) == len(bed.compute), 60, "all nodes are back", pause=0.2)
    return times


def main():
    bed, figures = Bed(), Figures("restart")
    bed.run("ctl", ["mkdir", "-p", FILE.rsplit("/", 1)[0]], user="user1")
    job = bed.sbatch(PROGRAM, "--ckpt=manual", "--output=/home/user1/restart/out.txt")
    bed.wait(lambda: len(stamps(bed)) > 10, 30, "the job runs")
    rounds = []
    for number in range(ROUNDS):
        say(f"restart {number + 1} of {ROUNDS}")
        rounds.append(one_restart(bed, job))
    for before, part in zip(PARTS, PARTS[1:]):
        figures.spread(f"{before} -> {part}", [r[part] - r[before] for r in rounds], "s")
    figures.spread("noticed -> runs, in all", [r["runs"] - r["noticed"] for r in rounds], "s", "< 10", lambda m: m < 10)
    bed.run("ctl", ["scancel", str(job)])
    figures.report()


main()
