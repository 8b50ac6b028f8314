# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of the bed, from outside: power, cables, and commands run on them. Used in the bed's outer namespaces (as root)."""
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import cgroups
import services
import settings


class BedError(Exception):
    """Something that a person should read as it stands."""


def wait(condition, timeout, what, pause=0.05):
    """Waits until condition() is true and returns its value; never a fixed time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise BedError(f"waited {timeout} s in vain: {what}")
        time.sleep(pause)


def check_name(node):
    if node not in settings.ADDRESSES:
        raise BedError(f"there is no node {node}; the nodes are {', '.join(settings.NODES)}")


def pid_path(node):
    return settings.RUN / f"{node}.pid"


def init_pid(node):
    """The node's PID 1 as the bed sees it, or None if the node is off."""
    check_name(node)
    try:
        pid = int(pid_path(node).read_text())
    except FileNotFoundError:
        return None
    return pid if Path(f"/proc/{pid}/ns/pid").exists() and os.access(f"/proc/{pid}/root/", os.X_OK) else None


def need_init(node):
    pid = init_pid(node)
    if pid is None:
        raise BedError(f"{node} is off; ./dev cluster heal-node {node} boots it")
    return pid


def cable(node):
    return f"v-{node}"


def prepare():
    """Once per bed: the bridge that the nodes' cables end in."""
    for argv in (["ip", "link", "set", "lo", "up"], ["ip", "link", "add", "br0", "type", "bridge"], ["ip", "link", "set", "br0", "up"]):
        subprocess.run(argv, check=True)


def make_shared():
    """A new shared file system, with homes, sckpt's store, and the cluster's keys."""
    shared = settings.BED / "shared"
    if shared.exists():
        shutil.rmtree(shared)
    shared.mkdir()
    (shared / "home").mkdir()
    for user in settings.USERS:
        (shared / "home" / user).mkdir(mode=0o700)
        shutil.chown(shared / "home" / user, user, user)
    (shared / "sckpt").mkdir(mode=0o700)
    store_id = shared / "sckpt" / "store.id"  # as `sckpt-clean make-store` makes it
    store_id.touch(mode=0o600)
    store_id.write_text(json.dumps({"id": str(uuid.uuid4()), "cluster": settings.CLUSTER}) + "\n")
    for path in (shared / "sckpt", store_id):
        shutil.chown(path, settings.STORE_USER, settings.STORE_USER)
    for name, key in ((".munge.key", secrets.token_bytes(128)), (".sckpt.key", f"{secrets.token_hex(4)} {secrets.token_hex(32)}\n".encode())):
        (shared / name).touch(mode=0o600)
        (shared / name).write_bytes(key)


def boot_node(node):
    """Power on. Returns when the node's services have been started."""
    if init_pid(node) is not None:
        raise BedError(f"{node} is up already")
    disk = settings.BED / "disks" / node
    for folder in ("upper", "work"):
        (disk / folder).mkdir(parents=True, exist_ok=True)
    log = settings.RUN / f"{node}.log"
    with open(log, "w", encoding="utf-8") as errors:
        starter = subprocess.Popen([sys.executable, str(settings.SOURCES / "tests/bed/node.py"), node], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        pid = starter.stdout.readline().strip()
        if starter.wait() or not pid:
            raise BedError(f"{node} does not start: {log.read_text().strip()}")
    pid_path(node).write_text(pid)
    try:
        subprocess.run(["ip", "link", "add", cable(node), "type", "veth", "peer", "name", "eth0", "netns", pid], check=True)
        subprocess.run(["ip", "link", "set", cable(node), "master", "br0", "up"], check=True)
        starter.stdin.write("the cable is in\n")
        starter.stdin.close()
        wait(lambda: init_pid(node) is None or Path(f"/proc/{pid}/root/run/booted").exists(), 30, f"{node} boots")
    except (BedError, OSError, subprocess.CalledProcessError) as error:
        raise BedError(f"{node} does not boot: {error}\n{log.read_text()}{read_log(node, '/var/log/boot.log')}") from error
    if init_pid(node) is None:
        raise BedError(f"{node} died while it booted: {log.read_text()}{read_log(node, '/var/log/boot.log')}")


def boot_all(nodes=settings.NODES):
    """All at once; each node's boot runs in a child, as machines boot."""
    children = {}
    for node in nodes:
        pid = os.fork()
        if pid == 0:
            try:
                boot_node(node)
                os._exit(0)
            except BaseException as error:  # the child has no other way to tell
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
        children[node] = pid
    failed = [node for node, pid in children.items() if os.waitpid(pid, 0)[1]]
    if failed:
        raise BedError(f"not booted: {', '.join(failed)}")


def kill_node(node):
    """A power failure: PID 1 is killed, and with it, at once, every process, all memory and the network of the node."""
    pid = need_init(node)
    os.kill(pid, signal.SIGKILL)
    wait(lambda: not Path(f"/proc/{pid}").exists(), 30, f"the processes of {node} are gone", 0.01)
    pid_path(node).unlink(missing_ok=True)
    subprocess.run(["ip", "link", "delete", cable(node)], check=False, stderr=subprocess.DEVNULL)
    cgroups.remove(cgroups.bed_folder() / node)


def wipe_node(node):
    """A new disk for a node that is off."""
    shutil.rmtree(settings.BED / "disks" / node, ignore_errors=True)


def is_cut(node):
    flags = int(Path(f"/sys/class/net/{cable(node)}/flags").read_text(), 16)
    return not flags & 1


def cut_node(node):
    need_init(node)
    subprocess.run(["ip", "link", "set", cable(node), "down"], check=True)


def heal_node(node):
    """The cable is put back in, or the dead node is booted again: same disk, fresh memory."""
    if init_pid(node) is None:
        boot_node(node)
    else:
        subprocess.run(["ip", "link", "set", cable(node), "up"], check=True)


def argv_on(node, argv, user=None):
    """The command line that runs argv on a node, in the node's own cgroup and namespaces, as root or as a user in his home."""
    pid = need_init(node)
    enter = ["nsenter", "-t", str(pid), "-m", "-p", "-u", "-n", "-i", "-C"]
    home = "/root" if user is None else f"/home/{user}" if user in settings.USERS else "/"
    enter.append(f"--wdns={home}")
    switch = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
    switch += [f"HOME={home}", f"USER={user or 'root'}", f"LOGNAME={user or 'root'}", "SHELL=/bin/bash"]
    if user:
        switch += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    join = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroups.node_folder(node) / "cgroup.procs")]
    return join + enter + ["--"] + switch + [str(a) for a in argv]


def read_log(node, path, lines=None):
    """A file of the node's disk, also of a node that is off."""
    try:
        text = (settings.BED / "disks" / node / "upper" / path.lstrip("/")).read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines else text


def idle_nodes():
    """The compute nodes that Slurm can use."""
    out = subprocess.run(argv_on("ctl", ["sinfo", "-h", "-N", "-o", "%N %T"]), capture_output=True, text=True, check=False).stdout
    states = dict(line.split() for line in out.splitlines())
    return [n for n, state in states.items() if state in ("idle", "mixed", "allocated")]


def wait_for_slurm(timeout=30):
    try:
        wait(lambda: len(idle_nodes()) == len(settings.COMPUTE), timeout, "Slurm has all its nodes")
    except BedError as error:
        raise BedError(f"{error}\n{logs(40)}") from error


def service_pid(node, service):
    """The service's PID on its node, or None if it does not run."""
    root = Path(f"/proc/{init_pid(node)}/root")
    try:
        pid = int((root / services.pid_file(service).lstrip("/")).read_text())
        return pid if (root / f"proc/{pid}/comm").read_text().strip() == service else None
    except (OSError, ValueError):
        return None


def signal_service(node, service, number):
    if service not in services.of(node):
        raise BedError(f"{node} has no {service}; it has {', '.join(services.of(node))}")
    pid = service_pid(node, service)
    if pid is None:
        raise BedError(f"{service} does not run on {node}")
    subprocess.run(argv_on(node, ["kill", f"-{int(number)}", str(pid)]), check=True)


def kill_service(node, service, number=signal.SIGTERM, timeout=30):
    """Sends a signal and waits until the service is gone."""
    signal_service(node, service, number)
    wait(lambda: service_pid(node, service) is None, timeout, f"{service} on {node} ends")


def start_service(node, service):
    if service not in services.of(node):
        raise BedError(f"{node} has no {service}; it has {', '.join(services.of(node))}")
    if service_pid(node, service) is not None:
        raise BedError(f"{service} runs on {node} already")
    subprocess.run(argv_on(node, services.start_argv(service)), check=True, timeout=60)
    wait(lambda: service_pid(node, service), 10, f"{service} on {node} starts")


def logs(lines=None, nodes=settings.NODES):
    parts = []
    for node in nodes:
        for path in services.log_files(node):
            text = read_log(node, path, lines)
            if text:
                parts.append(f"==== {node} {path}\n{text}")
    return "".join(parts)
