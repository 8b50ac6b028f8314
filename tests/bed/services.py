# SPDX-License-Identifier: GPL-3.0-or-later
"""The services of a node, as an administrator's units would start them. There is no restart on failure: tests do that themselves.
What is not installed is not started, so that the bed boots plain Slurm too."""
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import cgroups
import settings

PROGRAMS = {"squash_fs": "/build/out/squash_fs", "sckptd": "/usr/sbin/sckptd", "sckptctld": "/usr/sbin/sckptctld",
            "slurmd": "/usr/sbin/slurmd", "slurmctld": "/usr/sbin/slurmctld"}
# Opens the log and notes its PID on the node, then becomes the daemon: no descriptor of another mount namespace, a parent that reaps.
LAUNCH = 'exec </dev/null >>"$1" 2>&1; echo $$ >"$2"; shift 2; exec "$@"'


def pid_file(service):
    return f"/run/bed.{service}.pid"


def log_file(service):
    return f"/var/log/slurm/{service}.log" if service.startswith("slurm") else f"/var/log/{service}.log"


def log_files(node):
    """The logs of a node, the most telling last."""
    return ["/var/log/boot.log"] + [log_file(service) for service in reversed(of(node))]


def of(node):
    """The services of a node, in the order they start."""
    return ("squash_fs", "slurmctld", "sckptctld") if node == "ctl" else ("squash_fs", "sckptd", "slurmd")


def ids(user):
    account = pwd.getpwnam(user)
    return account.pw_uid, account.pw_gid


def start_argv(service):
    """The command that starts a service on the node it is run on, and returns at once; of the store's file system, when it is mounted."""
    argv = [PROGRAMS[service]] + (["-D"] if service.startswith("slurm") else [])
    ready = ""
    if service == "squash_fs":
        argv += [settings.STORE, settings.STORE]  # its directory is the one that it covers
        ready = f" until mountpoint -q {settings.STORE}; do sleep 0.01; done"
    # Slurm's daemons write their log themselves
    log = f"/var/log/slurm/{service}.out" if service.startswith("slurm") else log_file(service)
    if service.endswith("ctld"):
        argv = ["setpriv", "--reuid=slurm", "--regid=slurm", "--init-groups", "--"] + argv
    return ["sh", "-c", 'cd /; setsid "$@" &' + ready, "_", "sh", "-c", LAUNCH, "_", log, pid_file(service)] + argv


def installed(service):
    return os.access(PROGRAMS[service], os.X_OK)


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def folder(path, user, mode=0o755):
    os.makedirs(path, exist_ok=True)
    os.chmod(path, mode)
    shutil.chown(path, user, user)


def configure():
    write("/etc/hosts", settings.hosts())
    write("/etc/slurm/slurm.conf", settings.SLURM_CONF)
    write("/etc/slurm/cgroup.conf", settings.cgroup_conf(cgroups.version()))
    write("/etc/slurm/plugstack.conf", f"required {settings.PLUGIN}\n" if settings.PLUGIN.exists() else "")
    write("/etc/sckpt/sckpt.yaml", settings.SCKPT_YAML)


def install_key(key, target, user):
    shutil.copy(key, target)
    os.chmod(target, 0o600)
    shutil.chown(target, user, user)


def start_munge():
    folder("/run/munge", "munge")
    folder("/var/log/munge", "munge", 0o700)
    folder("/var/lib/munge", "munge", 0o711)
    install_key("/shared/.munge.key", "/etc/munge/munge.key", "munge")
    subprocess.run(["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged"], check=True)


def wait_for_port(host, port, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)


def boot(node):
    configure()
    start_munge()
    folder("/var/log/slurm", "slurm")
    folder("/run/slurm", "slurm")
    if node == "ctl":
        folder("/var/spool/slurmctld", "slurm", 0o700)
        folder("/var/lib/sckpt", "slurm", 0o700)
    else:
        install_key("/shared/.sckpt.key", "/etc/sckpt/sckpt.key", "root")
        os.makedirs(f"/var/spool/slurmd.{node}", exist_ok=True)
        wait_for_port("ctl", 6817, 10)  # slurmd starts without it too, but asks again only after a while
    for service in of(node):
        if installed(service):
            subprocess.run(start_argv(service), check=True)
