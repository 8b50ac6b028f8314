# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of `./dev cluster`, run in the bed's outer namespaces. `hold` is the bed's first process: as long as it lives, the bed does."""
import os
import signal
import subprocess
import sys
import time

import machines
import services
import settings


def hold(_):
    """PID 1 of the bed: makes what all nodes share, then only reaps what the nodes and the commands leave behind."""
    os.closerange(3, 4096)
    machines.prepare()
    machines.make_shared()
    (settings.BED / "ready").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def boot(_):
    machines.boot_all()
    machines.wait_for_slurm()


def status(_):
    for node in settings.NODES:
        pid = machines.init_pid(node)
        state = "off" if pid is None else "cut" if machines.is_cut(node) else "up"
        running = [s for s in services.PROGRAMS if pid and machines.service_pid(node, s)]
        print(f"{node:4} {settings.ADDRESSES[node]:11} {state:4} {' '.join(running)}")
    if machines.init_pid("ctl"):
        sys.stdout.flush()
        subprocess.run(machines.argv_on("ctl", ["sinfo"]), check=False)


def execute(args):
    user = None
    if args and args[0] == "--user":
        user, args = args[1], args[2:]
    if len(args) < 2:
        raise machines.BedError("usage: ./dev cluster exec [--user USER] NODE COMMAND…")
    argv = machines.argv_on(args[0], args[1:], user)
    os.closerange(3, 4096)  # a stray descriptor of the caller would make what is started here impossible to dump
    os.execvp(argv[0], argv)


def log(args):
    nodes = [node(args)] if args else settings.NODES
    print(machines.logs(nodes=nodes), end="")


def node(args):
    if len(args) != 1:
        raise machines.BedError(f"one node is wanted: {', '.join(settings.NODES)}")
    machines.check_name(args[0])
    return args[0]


def node_and_service(args):
    if len(args) != 2:
        raise machines.BedError("a node and one of its services are wanted")
    return node(args[:1]), args[1]


COMMANDS = {
    "hold": hold, "boot": boot, "status": status, "exec": execute, "log": log,
    "kill-node": lambda args: machines.kill_node(node(args)),
    "cut-node": lambda args: machines.cut_node(node(args)),
    "heal-node": lambda args: machines.heal_node(node(args)),
    "stop-daemon": lambda args: machines.kill_service(*node_and_service(args)),
    "start-daemon": lambda args: machines.start_service(*node_and_service(args)),
}


def main():
    try:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    except (machines.BedError, subprocess.CalledProcessError) as error:
        sys.exit(f"bed {settings.NAME}: {error}")


if __name__ == "__main__":
    main()
