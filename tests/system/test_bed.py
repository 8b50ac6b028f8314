# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed itself: its nodes are machines in all but the kernel. That it leaves nothing behind is checked by ./dev check, from outside."""
import signal

TIMEOUT = 120

SLEEP = "#!/bin/bash\nhostname\nexec sleep 600\n"


def step_is_on(bed, node):
    return bed.run(node, ["pgrep", "-u", "user1", "-x", "sleep"], check=False).returncode == 0


def run_on_n1(bed):
    job = bed.sbatch(SLEEP, "-w", "n1")
    bed.wait_job(job, "RUNNING")
    bed.wait(lambda: step_is_on(bed, "n1"), 20, "the job's program runs on n1")
    return job


def test_nodes_have_names_addresses_and_processes_of_their_own(bed):
    for node in bed.nodes:
        assert bed.run(node, ["hostname"]).stdout.strip() == node
        assert len(bed.run(node, ["pgrep", "-x", "slurmd|slurmctld"]).stdout.split()) == 1
    assert bed.run("n1", ["getent", "hosts", "n2"]).stdout.split() == ["10.77.0.2", "n2"]


def test_commands_pass_input_and_exit_status(bed):
    result = bed.run("n2", ["sh", "-c", "cat; id -un; exit 7"], user="user1", input="hello\n", check=False)
    assert (result.returncode, result.stdout) == (7, "hello\nuser1\n")


def test_batch_and_step_run_on_all_nodes(bed):
    job = bed.sbatch("#!/bin/bash\nsrun -l hostname | sort\n", "-N3")
    assert bed.wait_job(job)["JobState"] == "COMPLETED"
    assert sorted(line.split()[1] for line in bed.output(job).splitlines()) == ["n1", "n2", "n3"]


def test_the_same_job_has_a_cgroup_of_its_own_on_each_node(bed):
    """Were the hierarchy shared, the nodes' slurmstepds would find one another's processes."""
    job = bed.sbatch("#!/bin/bash\nsrun sleep 600\n", "-N2", "-w", "n1,n2")
    for node in ("n1", "n2"):
        bed.wait(lambda n=node: step_is_on(bed, n), 20, f"the step runs on {node}")
        pids = bed.run(node, ["sh", "-c", f"find /sys/fs/cgroup -path '*job_{job}/step_0*' -name cgroup.procs -exec cat {{}} +"]).stdout.split()
        alive = bed.run(node, ["ps", "-o", "comm=", "-p", ",".join(pids)]).stdout.split()
        assert "sleep" in alive and len(alive) == len(set(pids)), (node, pids, alive)


def test_memory_is_lost_and_disk_is_kept_at_a_power_failure(bed):
    bed.run("n3", ["sh", "-c", "touch /root/kept /tmp/lost /run/lost /dev/shm/lost"])
    bed.kill_node("n3")
    bed.heal_node("n3")
    found = bed.run("n3", ["sh", "-c", "ls -d /root/kept /tmp/lost /run/lost /dev/shm/lost 2>/dev/null"], check=False).stdout.split()
    assert found == ["/root/kept"]


def test_slurm_requeues_the_job_of_a_dead_node(bed):
    job = run_on_n1(bed)
    bed.kill_node("n1")
    bed.wait_job(job, "PENDING")
    assert bed.slurm_nodes() == ["n2", "n3"], "a dead node makes Slurm lose living ones"
    # not on n1 again: Slurm still has an order for it to end this job, which would reach it right after its boot
    bed.run("ctl", ["scontrol", "update", f"jobid={job}", "reqnodelist=n2"])
    bed.start_now(job)
    fields = bed.wait_job(job, "RUNNING")
    assert (fields["Restarts"], fields["NodeList"]) == ("1", "n2")
    bed.wait(lambda: step_is_on(bed, "n2"), 20, "the job's program runs on n2")


def test_a_cut_node_lives_on_but_is_lost_to_slurm(bed):
    job = run_on_n1(bed)
    bed.cut_node("n1")
    assert bed.run("n1", ["timeout", "2", "sh", "-c", "getent hosts ctl && exec 3<>/dev/tcp/10.77.0.10/6817"], check=False).returncode
    bed.wait_job(job, "PENDING")
    assert step_is_on(bed, "n1")
    bed.heal_node("n1")
    bed.wait(lambda: not step_is_on(bed, "n1"), 40, "slurmd ends the job that was requeued meanwhile")


def test_daemons_can_be_killed_and_started(bed):
    slurmd = bed.daemon("n2", "slurmd")
    before = slurmd.pid
    slurmd.kill(signal.SIGKILL)
    assert slurmd.pid is None
    slurmd.start()
    assert slurmd.pid != before
    bed.restart_slurmctld()
    job = bed.sbatch("#!/bin/bash\nhostname\n", "-w", "n2")
    assert bed.wait_job(job)["JobState"] == "COMPLETED"


def test_the_store_is_closed_to_root_and_shared_by_the_nodes(bed):
    """Root squash: the service user may do all that the store does, root nothing at all, and what one node writes another one reads."""
    work = "mkdir -m 700 squash && cd squash && umask 077 && echo 1234567 > a && sync a . && mv a b && truncate -s 4 b && mkdir c && rmdir c && ls"
    assert bed.run("n1", ["sh", "-c", f"cd /shared/sckpt && {work}"], user="sckpt").stdout == "b\n"
    assert bed.run("n2", ["cat", "/shared/sckpt/squash/b"], user="sckpt").stdout == "1234"
    refused = ("ls /shared/sckpt", "cat /shared/sckpt/squash/b", "touch /shared/sckpt/x", "mkdir /shared/sckpt/y", "rm -r /shared/sckpt/squash",
               "chown root /shared/sckpt", "chmod 755 /shared/sckpt", "mv /shared/sckpt/squash /shared/sckpt/z", "cd /shared/sckpt")
    for node in bed.nodes:
        for user in (None, "user1"):
            for command in refused:
                result = bed.run(node, ["sh", "-c", command], user=user, check=False)
                said = result.stderr.lower()
                denied = "permission denied" in said or "not permitted" in said or "can't cd" in said
                assert result.returncode != 0 and denied, (node, user, command, result)
    assert bed.run("n3", ["stat", "-c", "%U %a", "/shared/sckpt"]).stdout == "sckpt 700\n"
    bed.run("n1", ["rm", "-r", "/shared/sckpt/squash"], user="sckpt")
    assert "squash" not in bed.run("n2", ["ls", "/shared/sckpt"], user="sckpt").stdout


def test_the_store_server_can_hang_and_go_away(bed):
    """Stopped, it answers nobody and goes on later; killed, it is gone until it is started again."""
    server = bed.daemon("n3", "squash_fs")
    server.send(signal.SIGSTOP)
    waiting = bed.spawn("n3", ["touch", "/shared/sckpt/later"], user="sckpt")
    bed.wait(lambda: bed.run("n3", ["pgrep", "-x", "touch"], check=False).stdout or waiting.poll() is not None, 10, "touch runs")
    assert waiting.poll() is None
    server.send(signal.SIGCONT)
    assert waiting.wait(20) == 0
    server.kill()
    assert bed.run("n3", ["touch", "/shared/sckpt/never"], user="sckpt", check=False).returncode
    server.start()
    assert bed.run("n3", ["rm", "-v", "/shared/sckpt/later"], user="sckpt").stdout
