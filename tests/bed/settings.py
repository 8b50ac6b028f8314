# SPDX-License-Identifier: GPL-3.0-or-later
"""What the test bed is made of: its nodes, their addresses and folders, and the configuration files that every node gets."""
import os
from pathlib import Path

ADDRESSES = {"ctl": "10.77.0.10", "n1": "10.77.0.1", "n2": "10.77.0.2", "n3": "10.77.0.3"}
NODES = tuple(ADDRESSES)
COMPUTE = tuple(n for n in NODES if n != "ctl")

BED = Path("/bed")              # on the host's disk: what survives a power failure (node disks, the shared file system)
RUN = Path("/run/bed")          # memory of the bed: PIDs of the nodes, the layers of the nodes' root
SOURCES = Path("/build/src")
LAYERS = (RUN / "layers/install", RUN / "layers/root")   # the built tree lies over the Debian root
NAME = os.environ.get("SCKPT_BED", "default")

PLUGIN = Path("/usr/lib/sckpt/spank_sckpt.so")
USERS = ("user1", "user2")
STORE = "/shared/sckpt"         # on every node through tests/workloads/squash_fs.cpp: root has no rights there
STORE_USER = "sckpt"

CLUSTER = "bed"
SLURM_CONF = f"""\
ClusterName={CLUSTER}
SlurmctldHost=ctl
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
# %n: the spool folder differs between nodes on purpose, as on many real clusters
SlurmdSpoolDir=/var/spool/slurmd.%n
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
MailProg=/bin/true
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=1
MpiDefault=none
JobRequeue=1
JobFileAppend=1
KillWait=5
MinJobAge=600
SlurmdTimeout=8
TCPTimeout=5
MessageTimeout=5
ReturnToService=2
PlugStackConfig=/etc/slurm/plugstack.conf
# the machine below may have less than the nodes claim: tests want many small jobs side by side
SlurmdParameters=config_overrides
NodeName=n[1-3] CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP
"""

DEFAULT_SCKPT_YAML = """\
controller:
  host: ctl
  port: 6830
  state_directory: /var/lib/sckpt
  poll_interval: 1s
node:
  fast_tier_size: 2G
store:
  directory: /shared/sckpt
  user: sckpt
  timeout: 60s
policy:
  interval: 15m
  max_restarts: 3
retention:
  keep: 2
  interval: 2s
  backup_interval: 1h
"""
# What `up` was given by SCKPT_BED_CONFIG. Read when a node starts, while it still sees the bed's folder.
OWN_SCKPT_YAML = BED / "sckpt.yaml"
SCKPT_YAML = OWN_SCKPT_YAML.read_text() if OWN_SCKPT_YAML.exists() else DEFAULT_SCKPT_YAML


def sckpt_yaml(values):
    """The configuration with other values: {"node.criu": "/bin/false"}."""
    lines = SCKPT_YAML.splitlines()
    for name, value in values.items():
        section, key = name.split(".")
        if f"{section}:" not in lines:
            lines.append(f"{section}:")
        top = lines.index(f"{section}:") + 1
        end = next((n for n in range(top, len(lines)) if not lines[n].startswith(" ")), len(lines))
        lines[top:end] = [line for line in lines[top:end] if line.split(":")[0].strip() != key] + [f"  {key}: {value}"]
    return "\n".join(lines) + "\n"


def cgroup_conf(version):
    """Without systemd, Slurm has to make its own cgroups."""
    return f"CgroupPlugin=cgroup/v{version}\n" + ("IgnoreSystemd=yes\n" if version == 2 else "")


def hosts():
    return "127.0.0.1 localhost\n" + "".join(f"{address} {node}\n" for node, address in ADDRESSES.items())
