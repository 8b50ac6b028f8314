# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system tests do with a bed: run things on its nodes, submit jobs and watch them, stop daemons, take nodes away and bring them back.
A Bed lives in the bed's outer namespaces; paths given to read() and write() are those that every node sees (/shared, /home)."""
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bed"))
import machines  # noqa: E402
import services  # noqa: E402
import settings  # noqa: E402

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
# By srun, when the step before is not quite over or another one has the resources: what a script prints must not depend on it.
SAID_BY_CHANCE = re.compile(r"srun: (Step created for|Step completed in JobId|Job (step )?\d+ step creation (temporarily|still) disabled).*\n")


class CommandFailed(Exception):
    def __init__(self, node, argv, user, result):
        super().__init__(f"{node}{' as ' + user if user else ''}: {' '.join(map(str, argv))}\n"
                         f"exit {result.returncode}\nstdout: {result.stdout}\nstderr: {result.stderr}")
        self.result = result


class Daemon:
    """One of slurmctld, slurmd, sckptctld, sckptd, squash_fs (the store's file system) on one node."""

    def __init__(self, bed, node, service):
        self.bed, self.node, self.service = bed, node, service

    @property
    def pid(self):
        """Its PID on its node; None if it does not run."""
        return machines.service_pid(self.node, self.service)

    def send(self, number):
        machines.signal_service(self.node, self.service, number)

    def kill(self, number=signal.SIGKILL, timeout=30):
        """Sends a signal and waits until the daemon is gone."""
        machines.kill_service(self.node, self.service, number, timeout)

    def stop(self, timeout=30):
        self.kill(signal.SIGTERM, timeout)

    def start(self):
        machines.start_service(self.node, self.service)

    def restart(self):
        if self.pid is not None:
            self.stop()
        self.start()

    def log(self):
        return self.bed.log(self.node, services.log_file(self.service))


class Bed:
    nodes = settings.NODES
    compute = settings.COMPUTE

    def __init__(self):
        self.spawned = []

    # ---- commands on nodes
    def run(self, node, argv, user=None, check=True, timeout=60, input=None):
        """Runs argv on a node and returns the subprocess.CompletedProcess (text). As root, or as a user in his home."""
        result = subprocess.run(machines.argv_on(node, argv, user), capture_output=True, text=True, errors="backslashreplace", timeout=timeout,
                                input=input, stdin=subprocess.DEVNULL if input is None else None, check=False)
        if check and result.returncode:
            raise CommandFailed(node, argv, user, result)
        return result

    def spawn(self, node, argv, user=None, **options):
        """Starts argv on a node, as subprocess.Popen does; what still runs at the end of the test is killed."""
        process = subprocess.Popen(machines.argv_on(node, argv, user), start_new_session=True, text=True,
                                   **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options})
        self.spawned.append(process)
        return process

    def end_spawned(self):
        for process in self.spawned:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.spawned.clear()

    # ---- machines
    def kill_node(self, node):
        machines.kill_node(node)

    def cut_node(self, node):
        machines.cut_node(node)

    def heal_node(self, node):
        machines.heal_node(node)

    def is_up(self, node):
        return machines.init_pid(node) is not None and not machines.is_cut(node)

    def daemon(self, node, service):
        return Daemon(self, node, service)

    def restart_slurmctld(self):
        self.daemon("ctl", "slurmctld").restart()
        self.wait(lambda: self.run("ctl", ["scontrol", "ping"], check=False).returncode == 0, 30, "slurmctld answers again")

    def slurm_nodes(self):
        """The compute nodes that Slurm can use now."""
        return machines.idle_nodes()

    # ---- jobs
    def sbatch(self, script, *options, user="user1"):
        """Submits a script (its text, which begins with #!, or a path that the nodes see) on ctl. Returns the job id."""
        text = script if script.startswith("#!") else None
        argv = ["sbatch", "--parsable", *options] + ([] if text else [script])
        return int(self.run("ctl", argv, user=user, input=text).stdout.split(";")[0])

    def job(self, jobid):
        """The fields of `scontrol show job`."""
        out = self.run("ctl", ["scontrol", "show", "job", "--oneliner", str(jobid)]).stdout
        return dict(re.findall(r"(?:^|\s)([A-Za-z][A-Za-z:/_]*)=(\S*)", out))

    def job_state(self, jobid):
        return self.job(jobid)["JobState"]

    def wait_job(self, jobid, states=ENDED, timeout=60):
        """Waits until the job is in one of the states (a name or several) and returns its fields."""
        wanted = (states,) if isinstance(states, str) else tuple(states)
        last = {}

        def reached():
            last.update(self.job(jobid))
            return last["JobState"] in wanted

        try:
            self.wait(reached, timeout, "", pause=0.2)
        except machines.BedError:
            raise machines.BedError(f"job {jobid} was to be {' or '.join(wanted)} within {timeout} s; it is {last.get('JobState')} "
                                    f"(reason {last.get('Reason')}, nodes {last.get('NodeList')}, restarts {last.get('Restarts')}); "
                                    f"its output ends:\n{self.output(jobid)[-2000:]}") from None
        return dict(last)

    def start_now(self, jobid):
        """Slurm lets a requeued job wait for two minutes; an administrator need not."""
        self.wait(lambda: self.run("ctl", ["scontrol", "update", f"jobid={jobid}", "starttime=now"], check=False).returncode == 0,
                  30, f"job {jobid} can be started now")

    def output(self, jobid):
        """What the batch script wrote, so far."""
        return self.read(self.job(jobid).get("StdOut", ""), missing="")

    # ---- files
    def path(self, path):
        """A path of the shared file system, seen from here."""
        match = re.fullmatch(r"/(shared|home)(/.*)?", path)
        if not match:
            raise machines.BedError(f"{path} is not on the shared file system (/shared, /home)")
        return settings.BED / "shared" / ("home" if match[1] == "home" else "") / (match[2] or "").lstrip("/")

    def read(self, path, missing=None):
        try:
            return self.path(path).read_text(errors="replace")
        except (FileNotFoundError, machines.BedError):
            if missing is None:
                raise
            return missing

    def write(self, path, text, user="user1", mode=0o644):
        file = self.path(path)
        file.write_text(text)
        os.chmod(file, mode)
        os.chown(file, *services.ids(user))

    def log(self, node, path, lines=None):
        """A log file of the node's disk, also of a node that is off."""
        return machines.read_log(node, path, lines)

    # ---- waiting and health
    def wait(self, condition, timeout, what, pause=0.05):
        """Waits until condition() is true and returns its value."""
        return machines.wait(condition, timeout, what, pause)

    def heal(self):
        """Everything as after `up`, but for what lies on the disks: no jobs, all nodes up, all installed daemons running."""
        self.end_spawned()
        for node in self.nodes:
            if not self.is_up(node):
                self.heal_node(node)
                # a booting node starts its daemons by itself; they are given the time to write their pid files
                self.wait(lambda n=node: all(self.daemon(n, s).pid for s in services.of(n) if services.installed(s)), 20,
                          f"the daemons of {node} run")
        for node in self.nodes:
            for service in services.of(node):
                if services.installed(service) and self.daemon(node, service).pid is None:
                    self.daemon(node, service).start()
        self.wait(self.no_jobs, 60, "all jobs are gone", pause=0.2)
        machines.wait_for_slurm(60)

    def no_jobs(self):
        left = self.run("ctl", ["squeue", "-h", "-o", "%A"]).stdout.split()
        if left:
            self.run("ctl", ["scancel", *left], check=False)
        return not left

    def reset(self):
        """A cluster as fresh as after `up`: new disks, an empty shared file system."""
        self.end_spawned()
        for node in self.nodes:
            if machines.init_pid(node) is not None:
                self.kill_node(node)
            machines.wipe_node(node)
        machines.make_shared()
        machines.boot_all()
        machines.wait_for_slurm()
