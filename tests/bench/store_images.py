# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of real programs, dumped by the real CRIU on a node of the bed: for the store to be measured on, and for what a dump itself takes."""
import hashlib
import json
import shutil
from pathlib import Path

import machines
import settings
from lib import Bed

NODE = "n1"
FAST_TIER = "/run/sckpt/images"
WORKLOADS = settings.SOURCES / "tests/workloads"
PAGE = 4096
PROGRAMS = {"stencil": "/shared/stencil steps 512 20", "objects": "python3 /shared/objects.py 1000000 3"}

# Writes the files' bytes, from memory, into new files of the same file system: what any dump to it takes at least.
WRITE = """
import os, sys, time
data = [open(path, "rb").read() for path in sys.argv[2:]]
begin = time.monotonic()
for number, part in enumerate(data):
    fd = os.open(f"{sys.argv[1]}/write-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    view = memoryview(part)
    while view:
        view = view[os.write(fd, view[:1 << 20]):]
    os.close(fd)
print(time.monotonic() - begin)
for number in range(len(data)):
    os.unlink(f"{sys.argv[1]}/write-{number}")
"""


def seen_from_here(node, path):
    """A path of a node, also in its memory."""
    return Path(f"/proc/{machines.init_pid(node)}/root{path}")


def install(bed: Bed):
    """The programs, where every node sees them."""
    shutil.copy(WORKLOADS / "objects.py", bed.path("/shared/objects.py"))
    bed.write("/shared/stencil.cpp", (WORKLOADS / "stencil.cpp").read_text(), user="root")
    bed.run("ctl", ["g++", "-std=c++20", "-O2", "-o", "/shared/stencil", "/shared/stencil.cpp"])


def held(node=NODE):
    return {path.name for path in seen_from_here(node, FAST_TIER).iterdir() if path.is_dir()}


class Program:
    """A job that computes one step at a time, when it is told to."""

    def __init__(self, bed, name):
        self.bed, self.directory, self.steps = bed, f"/home/user1/bench/{name}", 0
        bed.run("ctl", ["rm", "-rf", self.directory])
        bed.run("ctl", ["mkdir", "-p", self.directory], user="user1")
        self.id = bed.sbatch(f"#!/bin/bash\ncd {self.directory}\nexec {PROGRAMS[name]}\n", "--ckpt=manual", "--mem=4000",
                             f"--nodelist={NODE}", f"--output={self.directory}/out")
        self.wait_done()
        bed.wait(lambda: "node" in self.show(), 30, "sckptctld knows the job")

    def show(self):
        reply = self.bed.run("ctl", ["sckpt", "show", str(self.id), "--json"], check=False)
        return json.loads(reply.stdout) if reply.returncode == 0 else {}

    def wait_done(self):
        self.bed.wait(lambda: self.bed.path(f"{self.directory}/done-{self.steps}").exists(), 120, f"step {self.steps} of {self.directory}")

    def step(self):
        self.steps += 1
        self.bed.write(f"{self.directory}/go-{self.steps}", "")
        self.wait_done()

    def checkpoint(self):
        """A complete checkpoint: where its image is in the fast tier, and what sckpt says of it."""
        before = held()
        self.bed.run("ctl", ["sckpt", "create", str(self.id)], timeout=300)
        new = held() - before
        assert len(new) == 1, f"one new image was expected in the fast tier of {NODE}, not {sorted(new)}"
        return f"{FAST_TIER}/{new.pop()}/batch", self.show()["checkpoints"][-1]

    def end(self):
        self.bed.run("ctl", ["scancel", str(self.id)])
        self.bed.wait_job(self.id)


def take_images(bed, name, count, to: Path):
    """`count` images with a step between each two, copied to to/NAME/1, 2, …; their folders."""
    program, folders = Program(bed, name), []
    for number in range(1, count + 1):
        place, _ = program.checkpoint()
        folders.append(to / name / str(number))
        shutil.copytree(seen_from_here(NODE, place), folders[-1])
        program.step()
    program.end()
    return folders


def frozen_against_write(bed, rounds):
    """Of a dump of the stencil to the fast tier, frozen time by that of write() of the same bytes to the same file system, each in turn."""
    program, ratios, frozen = Program(bed, "stencil"), [], []
    for _ in range(rounds):
        place, checkpoint = program.checkpoint()
        files = [f"{place}/{path.name}" for path in seen_from_here(NODE, place).iterdir()]
        write = float(bed.run(NODE, ["python3", "-c", WRITE, FAST_TIER, *files], timeout=120).stdout)
        frozen.append(checkpoint["frozen_ms"] / 1000)
        ratios.append(frozen[-1] / write)
        program.step()
    program.end()
    return ratios, frozen


# ---- two tasks: criu alone, as sckptd calls it, on trees of root's
def frozen_seconds(folder: Path):
    """From CRIU's stats-dump: two magic numbers, a size, and a protobuf message whose field 1 is the dump's: its field 2, microseconds."""
    message = memoryview((folder / "stats-dump").read_bytes())[12:]
    _, dump = next(fields(message))
    return dict(fields(dump))[2] / 1e6


def fields(message):
    """(number, value) of a protobuf message of varints and nested messages."""
    def varint():
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while message:
        number, kind = divmod(varint(), 8)
        value = varint()
        if kind == 2:
            value, message = message[:value], message[value:]
        yield number, value


class Trees:
    """Process trees of root's on the node: each a shell over as many stencils as are wanted."""

    def __init__(self, bed, sizes):
        self.bed = bed
        bed.run(NODE, ["sh", "-c", "rm -rf /tmp/trees /run/trees; mkdir -p /tmp/trees /run/trees"])
        self.pids = [self.start(number, size) for number, size in enumerate(sizes)]

    def start(self, number, size):
        script = "for n in $(seq $0); do mkdir $n; (cd $n; exec /shared/stencil steps 400 20) & done; echo $$ > pid; wait"
        folder = f"/tmp/trees/{number}"
        launch = f'mkdir {folder}; cd {folder}; exec setsid bash -c "$1" "$0" < /dev/null > /dev/null 2>&1'
        self.bed.run(NODE, ["sh", "-c", f"({launch}) &", str(size), script])
        self.bed.wait(lambda: all(seen_from_here(NODE, f"{folder}/{n}/done-0").exists() for n in range(1, size + 1)), 60, "the tasks run")
        return seen_from_here(NODE, f"{folder}/pid").read_text().strip()

    def dump(self):
        """All at once, a criu each; the longest time that one was frozen."""
        dumps = []
        for number, pid in enumerate(self.pids):
            folder = f"/run/trees/{number}"
            self.bed.run(NODE, ["mkdir", folder])
            dumps.append((folder, ["criu", "dump", "--tree", pid, "--images-dir", folder, "--leave-running", "--log-file", "log", "-v1",
                                   "--manage-cgroups=ignore", "--file-locks"]))
        running = [(folder, self.bed.spawn(NODE, argv)) for folder, argv in dumps]
        for folder, process in running:
            said = process.communicate(timeout=120)[0]
            assert process.returncode == 0, f"{said}{seen_from_here(NODE, folder + '/log').read_text()}"
        seconds = max(frozen_seconds(seen_from_here(NODE, folder)) for folder, _ in running)
        self.bed.run(NODE, ["sh", "-c", "rm -r /run/trees/*"])
        return seconds

    def end(self):
        for pid in self.pids:
            self.bed.run(NODE, ["pkill", "-KILL", "-s", pid], check=False)
        self.bed.run(NODE, ["rm", "-rf", "/tmp/trees", "/run/trees"])


def one_criu_or_two(bed, rounds):
    """Frozen time of two tasks of half a gigabyte: with a criu for each at the same time, by that with one criu over both."""
    ratios = []
    for _ in range(rounds):
        times = []
        for sizes in ([2], [1, 1]):
            trees = Trees(bed, sizes)
            try:
                times.append(trees.dump())
            finally:
                trees.end()
        ratios.append(times[1] / times[0])
    return ratios


# ---- what has truly changed
def changed_bytes(before: Path, after: Path):
    """Pages of memory of an image that the image before does not have anywhere, in bytes; and bytes of its other files."""
    known = {digest for digest in page_digests(before)}
    pages = sum(digest not in known for digest in page_digests(after))
    return pages * PAGE + sum(file.stat().st_size for file in after.rglob("*") if file.is_file() and not file.match("pages-*.img"))


def page_digests(image: Path):
    for file in sorted(image.rglob("pages-*.img")):
        with open(file, "rb") as stream:
            while page := stream.read(PAGE):
                yield hashlib.blake2b(page, digest_size=16).digest()
