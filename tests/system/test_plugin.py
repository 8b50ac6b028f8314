# SPDX-License-Identifier: GPL-3.0-or-later
"""The SPANK plug-in: what it accepts, refuses and tells at submission, and which tasks it puts sckpt-run in front of."""
TIMEOUT = 120

TREE = "#!/bin/bash\nps -o args= -p $PPID\nsrun bash -c 'ps -o args= -p $PPID'\n"


def submit(bed, *options, command="sbatch", tail=("--wrap", "true")):
    return bed.run("ctl", [command, *options, *tail], user="user1", check=False)


def tree_of(bed, *options, script=TREE):
    job = bed.sbatch(script, *options)
    assert bed.wait_job(job)["JobState"] == "COMPLETED", bed.output(job)
    return bed.output(job)


def test_good_values_are_accepted(bed):
    for option in ("--ckpt", "--ckpt=manual", "--ckpt=15", "--ckpt=90s", "--ckpt=2h", "--ckpt=1:30:00", "--ckpt=1-12"):
        result = submit(bed, option, "--ckpt-max-restarts=0", "--test-only")
        assert result.returncode == 0 and "sckpt" not in result.stderr, (option, result.stderr)


def test_bad_values_are_refused_with_what_is_right(bed):
    for option in ("--ckpt=0", "--ckpt=", "--ckpt=soon", "--ckpt=-5", "--ckpt=10x"):
        for command, tail in (("sbatch", ("--wrap", "true")), ("srun", ("true",))):
            result = submit(bed, option, command=command, tail=tail)
            right = "15m" in result.stderr or "at least 1s" in result.stderr
            assert result.returncode and right and "manual" in result.stderr, (command, option, result.stderr)
    for option in ("--ckpt-max-restarts=x", "--ckpt-max-restarts=-1"):
        result = submit(bed, "--ckpt", option)
        assert result.returncode and "such as 3" in result.stderr, (option, result.stderr)
    script = "#!/bin/bash\n#SBATCH --ckpt=soon\n"
    result = bed.run("ctl", ["sbatch"], user="user1", input=script, check=False)
    assert result.returncode and "soon" in result.stderr
    assert bed.run("ctl", ["squeue", "-h"]).stdout == ""


def test_help_shows_the_options(bed):
    for command in ("sbatch", "srun", "salloc"):
        text = bed.run("ctl", [command, "--help"]).stdout
        assert "--ckpt=[INTERVAL|manual]" in text and "--ckpt-max-restarts=N" in text, (command, text)


def test_jobs_without_the_option_are_untouched(bed):
    assert "sckpt-run" not in tree_of(bed)


def test_the_option_reaches_script_and_steps(bed):
    for options, script, want in ((("--ckpt=90s", "--ckpt-max-restarts=4"), TREE, ("--interval=90 ", "--max-restarts=4 ")),
                                  (("--ckpt",), TREE, ("--interval=-1 ", "--max-restarts=-1 ")),
                                  ((), TREE.replace("ps", "#SBATCH --ckpt=manual\nps", 1), ("--interval=0 ",))):
        lines = [line for line in tree_of(bed, *options, script=script).splitlines() if "/sckpt-run " in line]
        assert len(lines) == 2, lines
        assert all(w in line for line in lines for w in want), lines
        assert "--step=4294967291 --task=0 --restart-count=0 " in lines[0] and "--step=0 --task=0 " in lines[1], lines


def test_a_job_submitted_by_a_restarted_job_is_a_first_start(bed):
    script = "#!/bin/bash\nps -o args= -p $PPID; echo count=$SLURM_RESTART_COUNT\n"
    job = int(bed.run("ctl", ["env", "SLURM_RESTART_COUNT=3", "sbatch", "--parsable", "--ckpt=manual"], user="user1", input=script).stdout)
    bed.wait_job(job)
    assert "--restart-count=0 " in bed.output(job) and "count=\n" in bed.output(job), bed.output(job)


def test_warnings_at_submission(bed):
    lost = "output written before a restart will be lost; use --open-mode=append"
    result = submit(bed, "--ckpt", "--open-mode=truncate")
    assert result.returncode == 0 and f"sckpt: --open-mode=truncate: {lost}" in result.stderr, result.stderr
    script = "#!/bin/bash\n#SBATCH --ckpt --open-mode=truncate\n"
    assert lost in bed.run("ctl", ["sbatch"], user="user1", input=script).stderr
    assert lost in bed.run("ctl", ["env", "SBATCH_OPEN_MODE=truncate", "sbatch", "--ckpt", "--wrap", "true"], user="user1").stderr
    assert "cannot be requeued" in submit(bed, "--ckpt", "--no-requeue").stderr
    for quiet in (("--ckpt",), ("--ckpt", "--open-mode=append"), ("--open-mode=truncate", "--no-requeue"), ("--ckpt", "--requeue")):
        result = submit(bed, *quiet)
        assert result.returncode == 0 and "sckpt" not in result.stderr, (quiet, result.stderr)


def test_a_cluster_that_truncates_by_default_is_noticed(bed):
    conf = bed.run("ctl", ["cat", "/etc/slurm/slurm.conf"]).stdout
    bed.run("ctl", ["sh", "-c", "cat > /tmp/slurm.conf"], input=conf.replace("JobFileAppend=1", "JobFileAppend=0"))
    command = ["env", "SLURM_CONF=/tmp/slurm.conf", "sbatch", "--ckpt", "--wrap", "true"]
    assert "JobFileAppend=0" in bed.run("ctl", command, user="user1").stderr
    assert "sckpt" not in bed.run("ctl", [*command, "--open-mode=append"], user="user1").stderr


def plugstack(bed, line):
    for node in bed.nodes:
        bed.run(node, ["sh", "-c", "cat > /etc/slurm/plugstack.conf"], input=line + "\n")


def with_plugstack(bed, line, body):
    before = bed.run("ctl", ["cat", "/etc/slurm/plugstack.conf"]).stdout.strip()
    plugstack(bed, line.format(before.split()[1]))
    try:
        body()
    finally:
        plugstack(bed, before)


def test_a_bad_plugstack_line_refuses_only_jobs_with_the_option(bed):
    def body():
        result = submit(bed, "--ckpt")
        assert result.returncode and "sokcet=" in result.stderr, result.stderr
        result = submit(bed)
        assert result.returncode == 0 and "sokcet=" in result.stderr, result.stderr
        assert "sckpt-run" not in tree_of(bed)
        assert all("drain" not in line for line in bed.run("ctl", ["sinfo", "-h"]).stdout.splitlines())
    with_plugstack(bed, "required {} sokcet=/run/x", body)


def test_a_node_without_sckpt_run_fails_the_job_and_stays_in_service(bed):
    def body():
        result = bed.run("ctl", ["srun", "--ckpt", "true"], user="user1", check=False)
        assert result.returncode and "cannot run /no/sckpt-run on this node" in result.stderr, result.stderr
        assert bed.run("ctl", ["srun", "true"], user="user1", check=False).returncode == 0
        assert all("drain" not in line for line in bed.run("ctl", ["sinfo", "-h"]).stdout.splitlines())
    with_plugstack(bed, "required {} supervisor=/no/sckpt-run", body)


def test_a_node_without_sckptd_runs_the_job_and_says_so_once(bed):
    def body():
        job = bed.sbatch("#!/bin/bash\necho one; echo two >&2\n", "--ckpt")
        assert bed.wait_job(job)["JobState"] == "COMPLETED"
        lines = bed.output(job).splitlines()
        assert lines[1:] == ["one", "two"], lines
        assert lines[0].startswith("sckpt: this node has no sckptd (/run/no-sckptd.sock: "), lines
        assert lines[0].endswith("job runs without checkpoints"), lines
    with_plugstack(bed, "required {} socket=/run/no-sckptd.sock", body)
