# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drain costs others: the slow-down of a job that computes while its image drains, and the memory of the one that drains. And how
soon the catalogue finds a checkpoint when it holds a million images."""
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

from figures import say
from store_images import NODE
import tools

WINDOW = 6          # seconds of computing that are looked at, with a drain and without
BIG_IMAGE = 8 << 30
MOST_MEMORY = 256   # MiB
STORE_TOOL, CATALOGUE_BENCH = "/build/out/store_tool", "/build/out/catalogue_bench"


@contextlib.contextmanager
def big_fast_tier(bed):
    """Room for all images of a program at once, and no checkpoint removed meanwhile."""
    with tools.node_config(bed, NODE, {"node.fast_tier_size": "10G"}), tools.node_config(bed, "ctl", {"retention.keep": 50}):
        yield


def memory_of(pid):
    """Bytes that a process has had at most, with the copies of manifests that it has now: they are files in memory, which it reads and does
    not map, so that no figure of the process has them."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    copies = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        if os.readlink(entry.path).startswith("/memfd:sckpt-manifest"):
            file = os.stat(entry.path)
            copies[file.st_ino] = file.st_blocks * 512
    return int(status.get("VmHWM", "0 kB").split()[0]) * 1024, sum(copies.values())


class DrainWatch:
    """Looks for sckpt-store processes of the idle class: when there are some, and how much memory they take, by themselves and for copies of
    manifests."""

    def __init__(self):
        self.running, self.peak, self.copies, self.stop = False, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def watch(self):
        while not self.stop.wait(0.05):
            self.running = self.look()

    def look(self):
        found = False
        for pid in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            try:
                if Path(f"/proc/{pid}/comm").read_text() == "sckpt-store\n" and os.sched_getscheduler(int(pid)) == os.SCHED_IDLE:
                    found = True
                    own, copies = memory_of(pid)
                    self.peak, self.copies = max(self.peak, own + copies), max(self.copies, copies)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
        return found


# ---- slow-down
class Computing:
    """A job of several processes that compute for ever, and say when they have done each of their pieces."""

    def __init__(self, bed, processes):
        self.bed, self.directory = bed, f"/home/user1/bench/computing-{processes}"
        self.processes = range(processes)
        edge = {1: 512, 2: 400}[processes]  # a gigabyte in all
        bed.run("ctl", ["rm", "-rf", self.directory])
        bed.run("ctl", ["mkdir", "-p", self.directory], user="user1")
        script = "".join(f"/shared/stencil compute {edge} times-{n} &\n" for n in self.processes)
        self.id = bed.sbatch(f"#!/bin/bash\ncd {self.directory}\n{script}wait\n", "--ckpt=manual", "--mem=4000", f"--nodelist={NODE}",
                             f"--output={self.directory}/out")
        bed.wait(lambda: all(len(self.times(n)) > 100 for n in self.processes), 60, "the job computes")

    def times(self, number):
        """Ends of the pieces; those of the last seconds."""
        with contextlib.suppress(FileNotFoundError), open(self.bed.path(f"{self.directory}/times-{number}"), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400_000))
            return [float(line) for line in file.read().split()[1:-1]]
        return []

    def pace(self, begin, end):
        """Seconds for a piece, the mean of all processes between two moments."""
        paces = []
        for number in self.processes:
            inside = [t for t in self.times(number) if begin <= t <= end]
            assert len(inside) > 20, f"only {len(inside)} pieces were done in {end - begin:.1f} s"
            paces.append((inside[-1] - inside[0]) / (len(inside) - 1))
        return statistics.mean(paces)

    def signal(self, name):
        self.bed.run(NODE, ["pkill", f"-{name}", "-u", "user1", "-x", "stencil"])

    def end(self):
        self.bed.run("ctl", ["scancel", str(self.id)])
        self.bed.wait_job(self.id)


def one_window(bed, job, watch):
    """How many times as long a piece takes while the image drains as right before the checkpoint."""
    begin = time.monotonic()
    time.sleep(WINDOW)  # this is the measurement, not a wait for something
    without = job.pace(begin, time.monotonic())
    order = bed.spawn("ctl", ["sckpt", "create", str(job.id)])
    bed.wait(lambda: watch.running, 60, "the drain begins", pause=0.02)
    begin = time.monotonic() + 0.2
    while watch.running and time.monotonic() < begin + WINDOW:
        time.sleep(0.02)
    ratio = job.pace(begin, time.monotonic() - 0.1) / without
    job.signal("STOP")  # where no core is free, an idle drain would take for ever
    said = order.communicate(timeout=300)[0]
    job.signal("CONT")
    assert order.returncode == 0, said
    bed.wait(lambda: not watch.running, 60, "the drain has ended")
    return ratio - 1


@contextlib.contextmanager
def idle_server(bed):
    """The store's server would be another machine, so its part of the work does not count: it is given as little weight as a drain."""
    pid = bed.daemon(NODE, "squash_fs").pid

    def become(policy, nice):
        bed.run(NODE, ["chrt", f"--{policy}", "--all-tasks", "--pid", "0", str(pid)])
        if Path("/proc/self/autogroup").exists():
            bed.run(NODE, ["tee", f"/proc/{pid}/autogroup"], input=nice)
    become("idle", "13")
    try:
        yield
    finally:
        become("other", "0")


def add_slow_down(figures, bed, rounds):
    with idle_server(bed):
        add_slow_downs(figures, bed, rounds)


def add_slow_downs(figures, bed, rounds):
    for processes, what, limit in ((os.cpu_count() - 1, "one core free", 0.03), (os.cpu_count(), "no core free", 0.10)):
        say(f"a computing job while its image drains, {what}")
        if processes not in (1, 2):
            say("this figure is for machines of two cores")
            continue
        job = Computing(bed, processes)
        with DrainWatch() as watch:
            ratios = [one_window(bed, job, watch) for _ in range(rounds)]
        job.end()
        figures.spread(f"slow-down of a computing job while its image drains, {what}", ratios, "", f"<= {limit}", lambda m, most=limit: m <= most)
        figures.add(f"memory of sckpt-store and its copy of the base's manifest, drain of 1 GiB ({what})", watch.peak / 2**20, "MiB",
                    f"<= {MOST_MEMORY}", watch.peak <= MOST_MEMORY << 20)
        figures.add(f"of it, the manifest ({what})", watch.copies / 2**20, "MiB")


# ---- memory
def big_image(folder: Path):
    """Bytes that nobody can compress, no chunk of them twice."""
    folder.mkdir(parents=True)
    block = random.Random(1).randbytes(16 << 20)
    with open(folder / "data.bin", "wb") as file:
        for number in range(BIG_IMAGE // len(block)):
            file.write(block[number:] + block[:number])
    return folder


def peak_of(*argv):
    """Bytes that a store_tool had in memory at most."""
    return json.loads(subprocess.run([STORE_TOOL, *map(str, argv)], check=True, capture_output=True, text=True).stdout)


def add_memory(figures, disk):
    say("memory with an image of 8 GiB")
    image, store = big_image(disk / "big"), disk / "big-store"
    try:
        first = peak_of("put", store, image, "--threads", 2)
        second = peak_of("put", store, image, "--base", first["manifest"], "--threads", 2)
        figures.add("memory of the store's code, an image of 8 GiB that is all new", first["peak_rss"] / 2**20, "MiB", f"<= {MOST_MEMORY}",
                    first["peak_rss"] <= MOST_MEMORY << 20)
        manifest = (store / first["manifest"]).stat().st_size  # read from the store here; a drain has a copy of it in memory
        known = second["peak_rss"] + manifest
        figures.add("the same and the base's manifest, one of 8 GiB that is all known", known / 2**20, "MiB", f"<= {MOST_MEMORY}",
                    known <= MOST_MEMORY << 20)
        figures.add("of it, the manifest", manifest / 2**20, "MiB")
        assert second["new_bytes"] < BIG_IMAGE / 100, second
    finally:
        shutil.rmtree(image, ignore_errors=True)
        shutil.rmtree(store, ignore_errors=True)


# ---- catalogue
def add_catalogue(figures, disk):
    say("catalogue with a million images")
    said = json.loads(subprocess.run([CATALOGUE_BENCH, str(disk)], check=True, capture_output=True, text=True).stdout)
    late = said["newest_complete_us"]["p99"]
    figures.add("catalogue with 1,000,000 images: latest complete checkpoint of a job, p99", late, "us", "<= 100", late <= 100)
    late = said["newest_complete_beside_kept_and_backup_us"]["p99"]
    figures.add("the same, beside the collector's look at all of them and a backup, p99", late, "us")
