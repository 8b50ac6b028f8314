# SPDX-License-Identifier: GPL-3.0-or-later
"""The store, and what a user might take in its place: each puts an image into a repository of its own and gets it back, durably."""
import ctypes
import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

STORE_TOOL = "/build/out/store_tool"
LIBC = ctypes.CDLL(None, use_errno=True)


def sync_file_system(folder: Path):
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if LIBC.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs of {folder}")
    finally:
        os.close(fd)


class Tool:
    """A repository below `folder`. put() takes the images in their order; get() brings one back into a new folder."""
    name = ""

    def __init__(self, folder: Path):
        self.folder, self.repository = folder, folder / self.name
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        folder.mkdir(parents=True, exist_ok=True)
        sync_file_system(folder)

    def run(self, *argv, cwd=None):
        result = subprocess.run([str(a) for a in argv], cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(map(str, argv))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def put(self, image: Path):
        raise NotImplementedError

    def get(self, number, target: Path):
        raise NotImplementedError

    def timed_put(self, image):
        """Seconds until all is durable."""
        begin = time.monotonic()
        self.put(image)
        sync_file_system(self.folder)
        return time.monotonic() - begin

    def timed_get(self, number, target):
        target.mkdir(parents=True)
        begin = time.monotonic()
        self.get(number, target)
        return time.monotonic() - begin


class Ours(Tool):
    name = "sckpt"

    def __init__(self, folder):
        super().__init__(folder)
        self.stored = []

    def put(self, image):
        base = ["--base", self.stored[-1]["manifest"]] if self.stored else []
        self.stored.append(json.loads(self.run(STORE_TOOL, "put", self.repository, image, *base, "--threads", "2")))

    def get(self, number, target):
        self.run(STORE_TOOL, "get", self.repository, self.stored[number]["manifest"], target, "--threads", "2")

    def new_plain_bytes(self):
        """Of the chunks of the last image that the one before does not have, before compression (doc/image-format.md)."""
        known, new = ({record[0]: record[3] for record in self.chunks(stored)} for stored in self.stored[-2:])
        return sum(size for name, size in new.items() if name not in known and name != bytes(32))

    def chunks(self, stored):
        """The chunk table of a manifest: name, offset, bytes in the pack, bytes, place in the block, pack, codec."""
        manifest = (self.repository / stored["manifest"]).read_bytes()
        head = struct.unpack_from("<Q", manifest, len(manifest) - 72)[0]
        return struct.iter_unpack("<32sQIIIHBx", manifest[16:head])


class Restic(Tool):
    name = "restic"

    def __init__(self, folder):
        super().__init__(folder)
        self.environment |= {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": "bench"}
        self.run("restic", "--no-cache", "--quiet", "init")
        self.count = 0

    def put(self, image):
        self.run("restic", "--no-cache", "--quiet", "backup", "--tag", f"image-{self.count}", ".", cwd=image)
        self.count += 1

    def get(self, number, target):
        self.run("restic", "--no-cache", "--quiet", "restore", "latest", "--tag", f"image-{number}", "--target", target)


class Borg(Tool):
    name = "borg"

    def __init__(self, folder):
        super().__init__(folder)
        self.environment |= {"BORG_BASE_DIR": str(folder / "borg-base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.run("borg", "init", "--encryption", "none", self.repository)
        self.count = 0

    def put(self, image):
        self.run("borg", "create", "--compression", "lz4", f"{self.repository}::image-{self.count}", ".", cwd=image)
        self.count += 1

    def get(self, number, target):
        self.run("borg", "extract", f"{self.repository}::image-{number}", cwd=target)


class Copy(Tool):
    name = "cp"

    def __init__(self, folder):
        super().__init__(folder)
        self.repository.mkdir()
        self.count = 0

    def put(self, image):
        self.run("cp", "-a", image, self.repository / str(self.count))
        self.count += 1

    def get(self, number, target):
        self.run("cp", "-a", f"{self.repository / str(number)}/.", target)


class TarZstd(Tool):
    name = "tar | zstd -1"

    def __init__(self, folder):
        super().__init__(folder)
        self.repository.mkdir()
        self.count = 0

    def put(self, image):
        self.run("tar", "-C", image, "-I", "zstd -1 -T2", "-cf", self.repository / f"{self.count}.tar.zst", ".")
        self.count += 1

    def get(self, number, target):
        self.run("tar", "-C", target, "-I", "zstd", "-xf", self.repository / f"{number}.tar.zst")


TOOLS = (Ours, Restic, Borg, Copy, TarZstd)


def one_round(images, number, disk: Path, memory: Path):
    """Seconds of every tool for (cold, incremental, back), and what ours said; the tools in an order that changes from round to round."""
    times, said = {}, None
    first = number % len(TOOLS)
    for kind in TOOLS[first:] + TOOLS[:first]:
        folder, target = disk / "repository", memory / "restored"
        try:
            tool = kind(folder)
            times[tool.name] = tuple(tool.timed_put(image) for image in images) + (tool.timed_get(1, target),)
            if isinstance(tool, Ours):
                same_files(images[1], target)
                said = {**tool.stored[1], "new_plain_bytes": tool.new_plain_bytes()}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
    return times, said


def same_files(image: Path, target: Path):
    subprocess.run(["diff", "-r", image, target], check=True)
