# SPDX-License-Identifier: GPL-3.0-or-later
"""Cgroups of the bed. Every node sees a hierarchy of its own, otherwise Slurm's cgroup of job N on n1 and on n2 would be one and the same:
a node lives in sckpt-bed-BED/NODE of the machine's hierarchy, and takes a cgroup namespace there.

Version 1 uses the freezer alone, which is all that proctrack/cgroup wants. On a machine with version 2, where a cgroup with processes
cannot hand controllers on, the node's own processes live in a leaf `init`; that branch has booted nodes, but no Slurm yet: slurmd refuses
machines that have both versions mounted, and no machine with version 2 alone was at hand."""
import os
import subprocess
import time
from pathlib import Path

import settings

TOP = Path("/sys/fs/cgroup")
BED_CGROUP = f"sckpt-bed-{settings.NAME}"


def version():
    if (TOP / "cgroup.controllers").exists():
        return 2
    if (TOP / "freezer/cgroup.procs").exists():
        return 1
    raise SystemExit("the bed needs cgroups: neither version 2 at /sys/fs/cgroup nor a version 1 freezer at /sys/fs/cgroup/freezer is mounted")


def bed_folder():
    return (TOP if version() == 2 else TOP / "freezer") / BED_CGROUP


def node_folder(name):
    """Where the node's own processes live, seen from outside the node."""
    return bed_folder() / name / ("init" if version() == 2 else "")


def enter(name):
    """Makes the node's cgroup and moves this process to its top, where the cgroup namespace is to be taken."""
    folder = bed_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if version() == 2:
            hand_controllers_on(TOP)
            hand_controllers_on(bed_folder())
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise SystemExit(f"cannot make the node's cgroup {folder}: {error.strerror}; the bed needs a writable cgroup hierarchy") from error


def hand_controllers_on(folder):
    for controller in (folder / "cgroup.controllers").read_text().split():
        (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def mount_in_node(target):
    """In the node's cgroup namespace: the hierarchy starts at the node."""
    if version() == 2:
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(target)], check=True)
        (target / "init").mkdir(exist_ok=True)
        (target / "init/cgroup.procs").write_text("0")
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(target)], check=True)
    (target / "freezer").mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "cgroup", str(target / "freezer")], check=True)


def remove(folder, seconds=10):
    """The processes are dead already; the kernel may need a moment to let go of them."""
    deadline = time.monotonic() + seconds
    while folder.exists():
        for path, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.05)
