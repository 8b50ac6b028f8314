# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of the bed, from power on: `node.py NAME` moves itself into the node's cgroup, takes namespaces of its own, prints the PID of
the node's PID 1 and leaves it behind. PID 1 makes the node's root, waits for a line on standard input (its cable is in), boots the
services and reaps. Memory (/run, /tmp, /dev/shm) is new at every boot; the disk is the one the node had before."""
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import cgroups
import services
import settings

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")


def sh(*argv):
    subprocess.run([str(a) for a in argv], check=True)


def make_root(root, disk):
    """The node's file systems, seen from outside, before the root is changed."""
    lower = ":".join(str(layer) for layer in settings.LAYERS)
    sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work", root)
    for folder in ("proc", "sys", "dev", "run", "tmp", "shared", "home", "build", "old"):
        (root / folder).mkdir(exist_ok=True)
    sh("mount", "-t", "proc", "proc", root / "proc")
    sh("mount", "-t", "sysfs", "sysfs", root / "sys")
    sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "run")
    sh("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "tmp")
    sh("mount", "--bind", settings.BED / "shared", root / "shared")
    sh("mount", "--bind", settings.BED / "shared/home", root / "home")
    sh("mount", "--bind", "-o", "ro", "/build", root / "build")
    make_devices(root / "dev")
    cgroups.mount_in_node(root / "sys/fs/cgroup")


def make_devices(dev):
    """Terminals and POSIX shared memory of a node are its own; they would collide with another node's in the machine's /dev."""
    sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dev)
    (dev / "net").mkdir()
    for name in DEVICES:
        known = Path("/dev", name)
        if known.exists():
            os.mknod(dev / name, known.stat().st_mode, known.stat().st_rdev)
            os.chmod(dev / name, 0o666)
    for folder in ("pts", "shm"):
        (dev / folder).mkdir()
    sh("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620,gid=5", "devpts", dev / "pts")
    sh("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", dev / "shm")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def enter_root(root):
    os.chdir(root)
    sh("pivot_root", ".", "old")
    os.chroot(".")
    os.chdir("/")
    sh("umount", "--lazy", "/old")
    Path("/old").rmdir()


def own_descriptors():
    """What a node's processes inherit is opened on the node: CRIU refuses a file of another mount namespace."""
    os.makedirs("/var/log", exist_ok=True)
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open("/var/log/boot.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, 4096)


def network(name):
    """A silent neighbour is given up within a second, as a switch would tell: otherwise one dead node keeps slurmctld's round of pings
    waiting for so long that it takes living nodes for dead."""
    sh("ip", "link", "set", "lo", "up")
    for key, value in (("retrans_time_ms", 200), ("delay_first_probe_time", 1), ("base_reachable_time_ms", 1000)):
        Path(f"/proc/sys/net/ipv4/neigh/eth0/{key}").write_text(str(value))
    sh("ip", "address", "add", f"{settings.ADDRESSES[name]}/24", "dev", "eth0")
    sh("ip", "link", "set", "eth0", "up")


def run_node(name):
    socket.sethostname(name)
    sh("mount", "--make-rprivate", "/")
    root = settings.RUN / "node-root"
    root.mkdir(exist_ok=True)
    make_root(root, settings.BED / "disks" / name)
    sys.stdin.readline()
    enter_root(root)
    own_descriptors()
    print(f"--- {time.strftime('%F %T')} power on", flush=True)
    try:
        network(name)
        services.boot(name)
        Path("/run/booted").touch()
    except Exception:  # a node that does not boot stays up, to be looked at
        traceback.print_exc()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def main():
    name = sys.argv[1]
    os.setsid()
    cgroups.enter(name)
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWNET | os.CLONE_NEWUTS | os.CLONE_NEWPID | os.CLONE_NEWCGROUP | os.CLONE_NEWIPC)
    pid = os.fork()
    if pid == 0:
        os.close(1)
        os.dup2(2, 1)
        run_node(name)
    print(pid, flush=True)


if __name__ == "__main__":
    main()
