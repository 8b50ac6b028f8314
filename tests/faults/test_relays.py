# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes behind a relay: checkpoints and restarts go through it, its death costs no more than a lost connection, and not everybody is one."""
import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import settings  # noqa: E402
import test_tasks  # noqa: E402
import tools  # noqa: E402

TIMEOUT = 300
CONFIG = {"relay.hosts": "[ctl]"}
LOG, PID = "/var/log/relay.log", "/run/relay.pid"


def start_relay(bed, node="ctl", user="slurm"):
    """Starts a relay, and does not wait for it."""
    bed.run(node, ["touch", LOG])
    bed.run(node, ["chmod", "666", LOG])
    argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "sckptctld", "--relay"]
    bed.spawn(node, ["sh", "-c", f'echo $$ > {PID}; exec "$@" >> {LOG} 2>&1', "_", *argv])


def wait_relay(bed):
    bed.wait(lambda: bed.run("ctl", ["ss", "-Hlnt", "sport = :6831"]).stdout, 30, "the relay listens")


def kill_relay(bed):
    bed.run("ctl", ["sh", "-c", f"kill -KILL $(cat {PID})"])
    bed.wait(lambda: not bed.run("ctl", ["ss", "-Hlnt", "sport = :6831"]).stdout, 30, "the relay is dead")


@contextlib.contextmanager
def relayed(bed, **ctl):
    """All nodes behind a relay on ctl; dumps on n2 do not begin while /run/hold-dumps is there. ctl: more of sckptctld's configuration."""
    bed.run("n2", ["tee", test_tasks.WRAPPER],
            input='#!/bin/sh\nwhile [ "$1" = dump ] && [ -e /run/hold-dumps ]; do sleep 0.05; done\nexec /usr/sbin/criu "$@"\n')
    bed.run("n2", ["chmod", "755", test_tasks.WRAPPER])
    tools.write_config(bed, "ctl", settings.sckpt_yaml({**CONFIG, **{name.replace("__", "."): value for name, value in ctl.items()}}))
    start_relay(bed)
    wait_relay(bed)
    try:
        for node in bed.compute:
            tools.write_config(bed, node, settings.sckpt_yaml({**CONFIG, "node.criu": test_tasks.WRAPPER if node == "n2" else "/usr/sbin/criu"}))
        yield
    finally:
        bed.run("n2", ["rm", "-f", "/run/hold-dumps"])
        for node in ("ctl", *bed.compute):
            tools.write_config(bed, node, settings.SCKPT_YAML)


def streams_to(bed, port):
    """Connections of other hosts to this port of ctl."""
    out = bed.run("ctl", ["ss", "-Hnt", "state", "established", f"sport = :{port}"]).stdout
    return sorted(line.split()[-1].rsplit(":", 1)[0].removeprefix("[::ffff:").strip("[]") for line in out.splitlines())


def test_checkpoints_restarts_and_backups_go_through_a_relay(bed):
    with relayed(bed, retention__backup_interval="1s"):
        nodes = sorted(settings.ADDRESSES[node] for node in bed.compute)
        assert streams_to(bed, 6831) == nodes, "each node has one stream, to the relay"
        assert not set(streams_to(bed, 6830)) & set(nodes), "and none to sckptctld"
        job = test_tasks.Steps(bed, "relayed").ready()
        folder = bed.path("/shared/sckpt/catalogue")
        before = {file.name for file in folder.glob("*.sqlite")} if folder.exists() else set()
        test_tasks.restarts_from_the_next_one(job)
        bed.wait(lambda: {file.name for file in folder.glob("*.sqlite")} - before, 60, "a node has fetched a backup of the catalogue")


def test_a_relay_dies_in_the_middle_of_a_checkpoint(bed):
    with relayed(bed):
        job = test_tasks.Steps(bed, "relay-dies").ready()
        first = job.create()
        order = test_tasks.freeze(job)
        kill_relay(bed)
        start_relay(bed)
        job.wait(lambda: not test_tasks.hooks(bed, "n1"), "the tasks on n1 are let go")
        test_tasks.let_go(bed)
        test_tasks.goes_on(job, order, first + 1)
        for node in bed.compute:
            tools.wait_attached(bed, node)
        job.wait_show(lambda show: show.get("node"), "it is known again")
        job.wait(lambda: bed.run("ctl", ["sckpt", "create", str(job.id)], user="user1", check=False).returncode == 0,
                 "the next checkpoint is complete")
        test_tasks.restarts_from_the_next_one(job)


def test_only_root_and_slurm_of_the_named_hosts_are_relays(bed):
    with tools.node_config(bed, "ctl", CONFIG):
        start_relay(bed, "ctl", "user1")
        bed.wait(lambda: "only root or SlurmUser may run a relay" in bed.log("ctl", LOG), 30, "a user's relay is refused")
        start_relay(bed, "n3", "root")
        bed.wait(lambda: "10.77.0.3" in bed.log("n3", LOG) and "is no relay" in bed.log("n3", LOG), 30, "a relay of another host is refused")
        bed.wait(lambda: tools.node_info(bed, "n3").get("connected"), 30, "n3 itself is a node as ever")
