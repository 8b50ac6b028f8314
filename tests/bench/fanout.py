# SPDX-License-Identifier: GPL-3.0-or-later
"""What one checkpoint of a job on very many nodes costs in control, beside the dumps and drains themselves: in a star, and in a tree of relays.

Real: sckptctld, its relays, the protocol, munge, and slurmctld with a job that holds ten thousand nodes (cloud nodes that never boot: the job is
configuring for ever, which is running to everyone who asks). Simulated: the sckptds (tests/bench/fanout_nodes.cpp), each with a connection
of its own, whose dumps and drains take no time. All of it shares the cores of this machine, simulated nodes and relays included, so the times are
upper bounds; the CPU time of sckptctld is its own. The catalogue is on this machine's disk.

  captured   from the order until all images are in the fast tiers and the catalogue knows it
  released   until the last node was told to let its tasks go on: what the control adds to the time for which a job stands still
  complete   until the checkpoint is complete, with a drain of each node that takes no time
  stored     until the last node knows that"""
import json
import math
import sys
import time

from figures import Figures, say
import services
import settings
from lib import Bed

MOST = 10000
SIZES = tuple(int(a) for a in sys.argv[1:] if a.isdigit()) or (16, 256, 1024, 4096, MOST)  # `./dev bench fanout 16 256` for some of them
ROUNDS = 5
NODES_OF_A_RELAY = 640
PORT, RELAY_PORT = 6830, 6900
NODES = f"f[00001-{MOST:05}]"
SLURM_CONF = settings.SLURM_CONF + f"""\
ResumeProgram=/bin/true
SuspendProgram=/bin/true
SuspendExcNodes=n[1-3]
SuspendTime=86400
ResumeTimeout=60000
NodeName={NODES} NodeAddr=127.0.0.1 CPUs=1 State=CLOUD
PartitionName=fanout Nodes={NODES} MaxTime=INFINITE State=UP
"""
PARTS = ("captured", "released", "complete", "stored")


def put(bed, path, text):
    bed.run("ctl", ["sh", "-c", f"cat > {path}"], input=text)


def prepare(bed):
    """A job that holds all simulated nodes; the bed's own are out of the way."""
    for node in bed.compute:
        for name in ("sckptd", "slurmd"):
            if bed.daemon(node, name).pid is not None:
                bed.daemon(node, name).stop()
    put(bed, "/etc/slurm/slurm.conf", SLURM_CONF)
    bed.restart_slurmctld()
    job = bed.sbatch("#!/bin/sh\nsleep 86400\n", "--partition=fanout", f"--nodes={MOST}", "--output=/dev/null", user="user1")
    bed.wait(lambda: bed.job(job).get("BatchHost"), 300, "Slurm gives the job its nodes", pause=1)
    return job


def fresh_sckptctld(bed):
    """Without a catalogue; its PID."""
    daemon = bed.daemon("ctl", "sckptctld")
    if daemon.pid is not None:
        daemon.stop()
    bed.run("ctl", ["sh", "-c", "rm -rf /var/lib/sckpt/*"])
    put(bed, "/etc/sckpt/sckpt.yaml", settings.sckpt_yaml({"relay.hosts": "[127.0.0.1]"}))
    daemon.start()
    bed.wait(lambda: "slurmctld answers" in daemon.log(), 60, "sckptctld has asked Slurm")
    return daemon.pid


def start_relay(bed, number):
    """Its port and its PID on ctl."""
    port, config = RELAY_PORT + number, f"/run/relay{number}.yaml"
    put(bed, config, settings.sckpt_yaml({"relay.hosts": "[127.0.0.1]", "relay.port": port, "controller.host": "127.0.0.1"}))
    bed.spawn("ctl", ["sh", "-c", f"echo $$ > /run/relay{number}.pid; exec setpriv --reuid=slurm --regid=slurm --init-groups "
                                  f"sckptctld --relay -c {config} > /var/log/relay{number}.log 2>&1"])
    bed.wait(lambda: "connected upwards" in bed.log("ctl", f"/var/log/relay{number}.log"), 60, f"relay {number} is connected")
    return port, bed.run("ctl", ["cat", f"/run/relay{number}.pid"]).stdout.strip()


def measure(bed, job, size, relays):
    """What fanout_nodes tells: of the attaching, and of each round."""
    pids = [str(fresh_sckptctld(bed))]
    ports = [PORT]
    if relays:
        started = [start_relay(bed, number) for number in range(relays)]
        ports = [port for port, _ in started]
        pids += [pid for _, pid in started]
    uid = services.ids("user1")[0]
    argv = ["/build/out/fanout_nodes", PORT, ",".join(map(str, ports)), job, uid, settings.CLUSTER, size, ROUNDS, ",".join(pids)]
    out = bed.run("ctl", argv, timeout=1500).stdout
    bed.end_spawned()
    attached, *rounds = [json.loads(line) for line in out.splitlines()]
    return attached, rounds


def exponent(values, sizes):
    """Of the growth between the two sizes: 1 is as the number of nodes."""
    small, large = sizes
    return math.log(values[large] / values[small]) / math.log(large / small)


def report_shape(figures, shape, results):
    medians = {}
    for size, (attached, rounds) in results.items():
        name = f"{shape}, {size} nodes"
        for part in PARTS:
            is_goal = size == MOST and part == "complete"
            medians[part, size] = figures.spread(f"{name}: {part}", [r[part] for r in rounds], "ms",
                                                 "< 1000" if is_goal else None, (lambda m: m < 1000) if is_goal else None)
        figures.add(f"{name}: messages per node", max(r["up"] + r["down"] for r in rounds) / size, "")
        figures.add(f"{name}: CPU of sckptctld, mean", sum(r["cpu"][0] for r in rounds) / len(rounds), "s")
        figures.add(f"{name}: peak memory of sckptctld", rounds[-1]["peak_kib"][0] / 1024, "MiB")
        if len(rounds[0]["cpu"]) > 1:
            figures.add(f"{name}: CPU of {len(rounds[0]['cpu']) - 1} relays, mean",
                        sum(sum(r["cpu"][1:]) for r in rounds) / len(rounds), "s")
        figures.add(f"{name}: all nodes connected after", attached["attached"] / 1000, "s")
    ends = [size for size in results if size >= 1024]
    if len(ends) > 1:
        for part in PARTS:
            is_goal = part == "complete"
            growth = exponent({size: medians[part, size] for size in ends}, (ends[0], ends[-1]))
            figures.add(f"{shape}: growth of {part}, {ends[0]} to {ends[-1]} nodes", growth, "n^x", "<= 1.1" if is_goal else None,
                        growth <= 1.1 if is_goal else None)


def main():
    bed, figures = Bed(), Figures("fanout")
    say(f"a job of {MOST} nodes")
    job = prepare(bed)
    for shape in ("star", "tree"):
        results = {}
        for size in SIZES:
            relays = math.ceil(size / NODES_OF_A_RELAY) if shape == "tree" else 0
            say(f"{shape}: {size} nodes" + (f" behind {relays} relays" if relays else ""))
            begin = time.monotonic()
            results[size] = measure(bed, job, size, relays)
            rounds = results[size][1]
            say(f"  complete after {sorted(round(r['complete'], 1) for r in rounds)} ms ({time.monotonic() - begin:.0f} s in all)")
        report_shape(figures, shape, results)
    figures.report()


main()
