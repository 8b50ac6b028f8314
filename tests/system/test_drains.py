# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains of the whole cluster: how many at once, how fast together, and who goes first."""
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import tools  # noqa: E402
from tools import Job  # noqa: E402

TIMEOUT = 180
MIB = 1 << 20


class Drains:
    """The first checkpoints of some jobs, all seen at one moment, again and again."""

    def __init__(self, bed, *jobs):
        self.bed, self.jobs, self.seen = bed, jobs, []

    def look(self):
        """By job: the state of its checkpoint, and while it is captured the phase of its drain in place of that."""
        rows = json.loads(self.bed.run("ctl", ["sckpt", "list", "--json"], user="user1").stdout)["jobs"]
        moment = {"time": time.monotonic()}
        for job in self.jobs:
            row = next((r for r in rows if r["job_id"] == job.id), {})
            checkpoint = next(iter(row.get("checkpoints", [])), {})
            drain = checkpoint.get("drain", {})
            state = checkpoint.get("state", "")
            moment[job] = (drain.get("phase", "QUEUED") if state == "CAPTURED" else state, int(drain.get("bytes_done", 0)))
        self.seen.append(moment)
        return {job: moment[job][0] for job in self.jobs}

    def wait(self, condition, what, timeout=90):
        self.bed.wait(lambda: condition(self.look()), timeout, what, pause=0.1)

    def wait_complete(self):
        self.wait(lambda states: set(states.values()) == {"COMPLETE"}, "all are complete")

    def ever_together(self):
        """How many were copied at once, at most."""
        return max(sum(moment[job][0] == "COPYING" for job in self.jobs) for moment in self.seen)

    def ever_queued_behind(self):
        """Whether one was seen to wait while another one was copied."""
        return any({"COPYING", "QUEUED"} <= {moment[job][0] for job in self.jobs} for moment in self.seen)

    def rate(self, job):
        """Bytes of the image in a second, between the first and the last that was seen of its copying; none: too little was seen."""
        copying = [(moment["time"], moment[job][1]) for moment in self.seen if moment[job][0] == "COPYING" and moment[job][1]]
        if len(copying) < 2 or copying[-1][0] - copying[0][0] < 2:
            return None
        return (copying[-1][1] - copying[0][1]) / (copying[-1][0] - copying[0][0])


def ready_jobs(bed, *wanted):
    return [Job(bed, name, node=node, mib=mib).ready() for name, node, mib in wanted]


def test_so_many_drains_at_once_in_the_cluster(bed):
    """Two nodes that would each drain at once: the second one has its turn when the first one is done."""
    with tools.node_config(bed, "ctl", {"drain.cluster_streams": 1, "drain.cluster_bandwidth": "10M"}):
        jobs = ready_jobs(bed, ("one", "n1", 40), ("other", "n2", 40))
        drains = Drains(bed, *jobs)
        orders = [job.start_create() for job in jobs]
        drains.wait_complete()
        assert drains.ever_together() == 1 and drains.ever_queued_behind(), drains.seen
        assert all(order.wait(30) == 0 for order in orders)
        for job in jobs:
            job.finish()


def test_the_bandwidth_of_the_cluster_is_shared(bed):
    with tools.node_config(bed, "ctl", {"drain.cluster_streams": 2, "drain.cluster_bandwidth": "16M"}):
        jobs = ready_jobs(bed, ("half", "n1", 60), ("half2", "n2", 60))
        drains = Drains(bed, *jobs)
        for job in jobs:
            job.start_create()
        drains.wait_complete()
        assert drains.ever_together() == 2, drains.seen
        rates = [drains.rate(job) for job in jobs]
        assert all(rate and rate < 1.5 * 8 * MIB for rate in rates), (rates, drains.seen)
        for job in jobs:
            job.finish()


def test_an_urgent_drain_overtakes_those_that_wait(bed):
    """On a node that has its one stream taken, and in a cluster that has its one stream taken."""
    with tools.node_config(bed, "ctl", {"drain.cluster_streams": 1, "drain.cluster_bandwidth": "10M"}):
        slow, waits, same, other = ready_jobs(bed, ("slow", "n1", 200), ("waits", "n1", 2), ("same", "n1", 2), ("other", "n2", 2))
        drains = Drains(bed, slow, waits, same, other)
        slow.start_create()
        drains.wait(lambda states: states[slow] == "COPYING", "the slow one is copied")
        waits.start_create()
        drains.wait(lambda states: states[waits] == "QUEUED", "another one waits behind it")
        for urgent in (same, other):
            order = bed.spawn("ctl", ["sckpt", "requeue", str(urgent.id)], user="user1")
            drains.wait(lambda states, job=urgent: states[job] == "COMPLETE", "the urgent one is complete")
            states = drains.look()
            assert states[slow] == "COPYING" and states[waits] == "QUEUED", states
            assert order.wait(60) == 0, order.stdout.read()
        drains.wait(lambda states: states[slow] == states[waits] == "COMPLETE", "the others follow")
        for job in (same, other):
            job.ready(90)
            assert job.restored_from() == [1], job.text()
        for job in (slow, waits, same, other):
            job.finish()
