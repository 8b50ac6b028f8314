# SPDX-License-Identifier: GPL-3.0-or-later
"""A job is the same to Slurm with and without sckpt-run: each test does a thing twice, plain and with --ckpt=manual, and compares what
Slurm, the user and the program see. The protocol between sckpt-run and sckptd is tried against a fake sckptd."""
import concurrent.futures
import re
from pathlib import Path

TIMEOUT = 150

PLAIN, WRAPPED = (), ("--ckpt=manual",)
VARIANTS = (PLAIN, WRAPPED)
WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"
DEADLY = [n for n in range(1, 65) if n not in (17, 18, 19, 20, 21, 22, 23, 28)]  # not CHLD CONT STOP TSTP TTIN TTOU URG WINCH


def parallel(*calls):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]


def workload(bed, name):
    path = f"/home/user1/{name}"
    bed.write(path, (WORKLOADS / name).read_text(), mode=0o755)
    return path


def without_notice(text):
    """Without sckptd's line on a node that has none; nothing else may be new."""
    return "".join(line for line in text.splitlines(True) if not re.match(r"(\d+: )?sckpt: this node has no sckptd", line))


def anonymous(text, *jobs):
    """Without job and step ids, nodes, times, PIDs and inode numbers."""
    text = re.sub(r"/proc/\d+/", "/proc/PID/", re.sub(r":\[\d+\]", "", re.sub(r"\b(ON )?n[123](: | )", r"\1NODE\2", text)))
    for job in jobs:
        text = re.sub(rf"(?<![0-9])0*{job}(?![0-9])", "JOB", text)
    text = re.sub(r"slurmstepd(-\w+)?: ", "slurmstepd: ", text)  # Debian's slurmstepd adds the node
    text = re.sub(r"(StepId=|[Jj]ob(?: allocation)? )\d+", r"\1JOB", text)
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|\b1[0-9]{9}\b", "TIME", without_notice(text))


def srun(bed, variant, *argv, input=None, timeout=60):
    result = bed.run("ctl", ["srun", *variant, *argv], user="user1", check=False, input=input, timeout=timeout)
    errors = [line for line in anonymous(result.stderr).splitlines() if "Force Terminated" not in line]  # comes or not, by timing
    return result.returncode, result.stdout, sorted(errors)


def assert_same_steps(bed, *argv, input=None):
    plain, wrapped = parallel(*(lambda v=v: srun(bed, v, *argv, input=input) for v in VARIANTS))
    assert plain == wrapped, f"{argv}:\nplain   {plain}\nwrapped {wrapped}"
    return plain


def outcome(bed, job):
    fields = bed.wait_job(job)
    return {k: fields.get(k) for k in ("JobState", "Reason", "ExitCode", "DerivedExitCode")} | {"output": anonymous(bed.output(job), job)}


def batch_pairs(bed, scripts, *options):
    """Runs each script plain and wrapped, all side by side."""
    pairs = [[bed.sbatch(script, *options, *variant) for variant in VARIANTS] for script in scripts]
    return [[outcome(bed, job) for job in pair] for pair in pairs]


# ---- how a task ends
def test_exit_codes_of_tasks(bed):
    for base in (0, 128):
        code, _, errors = assert_same_steps(bed, "-N3", "-n128", "-O", "bash", "-c", f"exit $((SLURM_PROCID + {base}))")
        assert code == 127 + base and len(errors) >= 127


def test_deaths_of_tasks_by_every_signal(bed):
    program = f"set -- {' '.join(map(str, DEADLY))}; shift $SLURM_PROCID; ulimit -c 0; kill -$1 $$"
    errors = assert_same_steps(bed, "-N3", f"-n{len(DEADLY)}", "-O", "sh", "-c", program)[2]  # bash would ignore SIGQUIT
    assert len([line for line in errors if "task" in line]) == len(DEADLY), errors


def test_end_of_batch_scripts(bed):
    endings = ["exit 0", "exit 1", "exit 75", "exit 127", "exit 255"] + [f"kill -{n} $$" for n in (1, 2, 6, 9, 11, 13, 15, 40, 64)]
    endings += ["srun bash -c 'exit 9'", "srun bash -c 'kill -SEGV $$'; exit 3"]
    pairs = batch_pairs(bed, [f"#!/bin/bash\nulimit -c 0\necho begin\n{ending}\n" for ending in endings])
    for ending, (plain, wrapped) in zip(endings, pairs):
        assert plain == wrapped, f"{ending}: {plain} {wrapped}"


def test_programs_that_cannot_be_executed(bed):
    home = "/home/user1"
    bed.write(f"{home}/no_permission", "#!/bin/sh\n", mode=0o644)
    bed.write(f"{home}/no_interpreter", "#!/no/such/shell\n", mode=0o755)
    bed.write(f"{home}/no_magic", "echo hi\n", mode=0o755)
    bed.write(f"{home}/show_name", "#!/bin/sh\necho \"$0 $@\"\n", mode=0o755)
    expected = {"no-such-program": 2, f"{home}/no_permission": 13, f"{home}/no_interpreter": 2, f"{home}/no_magic": 8, "./show_name": 0,
                "/tmp": 13, f"{home}/show_name": 0}
    parallel(*(lambda p=p, c=c: check_exec(bed, p, c) for p, c in expected.items()))


def check_exec(bed, program, code):
    assert assert_same_steps(bed, "-D", "/home/user1", program, "a b", "")[0] == code


def test_a_multi_program_step(bed):
    bed.write("/home/user1/multi.conf", "0 echo zero %t\n1-2 bash -c 'echo more %o; exit 4'\n3 nosuch\n")
    results = [srun(bed, v, "-n4", "-O", "-l", "--multi-prog", "/home/user1/multi.conf") for v in VARIANTS]
    results = [(code, sorted(out.splitlines()), err) for code, out, err in results]
    assert results[0] == results[1], results


# ---- what a program sees
def test_a_batch_script_sees_the_same(bed):
    text = (WORKLOADS / "describe.sh").read_text()
    options = ("-w", "n1", "-J", "describe", "-c2", "--mem=500", "--nice=5", "-o", "/home/user1/describe.%j")
    (plain, wrapped), = batch_pairs(bed, [text], *options)
    assert plain["JobState"] == "COMPLETED"
    ours = ("SLURM_SPANK_", "SCKPT_SUPERVISOR")
    wrapped["output"] = "".join(line for line in wrapped["output"].splitlines(True) if not any(word in line for word in ours))
    assert plain["output"].splitlines() == wrapped["output"].splitlines(), difference(plain["output"], wrapped["output"])
    assert "task pid is mine: yes" in plain["output"]


def test_a_step_sees_the_same(bed):
    program = workload(bed, "describe.sh")
    seen = []
    for variant in VARIANTS:
        code, out, err = srun(bed, variant, "-w", "n1", "-c2", "-J", "describe", "bash", "-c",
                              f"umask 027; ulimit -n 200; exec nice -n 3 {program} one 'two three'")
        assert (code, err) == (0, []), (code, err)
        out = re.sub(r"(SLURM_(JOB_?ID|JOBID|TASK_PID|SRUN_COMM_PORT|LAUNCH_NODE_IPADDR|STEP_LAUNCHER_PORT|TOPOLOGY_ADDR)=).*", r"\1", out)
        seen.append(re.sub(r"job_\d+", "job_N", "".join(x for x in anonymous(out).splitlines(True) if "SPANK_OPTION" not in x)))
    assert seen[0] == seen[1], difference(*seen)


def difference(a, b):
    a, b = a.splitlines(), b.splitlines()
    return "\n".join([f"- {x}" for x in a if x not in b] + [f"+ {x}" for x in b if x not in a])


# ---- input and output
def test_standard_input_and_output_of_a_step(bed):
    assert assert_same_steps(bed, "cat", input="abc\n")[1] == "abc\n"
    check = "head -c 20000000 /dev/urandom > big.$$; sha256sum < big.$$; srun {} cat < big.$$ | sha256sum; rm big.$$"
    for out in parallel(*(lambda v=v: bed.run("ctl", ["sh", "-c", check.format(" ".join(v))], user="user1").stdout for v in VARIANTS)):
        before, after = out.splitlines()
        assert before == after


def test_large_output_of_a_batch_script(bed):
    script = "#!/bin/bash\nhead -c 50000000 /dev/zero | tr '\\0' x\necho end >&2\n"
    jobs = [bed.sbatch(script, *variant, "-o", "/home/user1/large.%j") for variant in VARIANTS]
    for job in jobs:
        assert bed.wait_job(job)["JobState"] == "COMPLETED"
        text = without_notice(bed.read(f"/home/user1/large.{job}"))
        assert len(text) == 50000004 and text.count("x") == 50000000 and text.endswith("xend\n")
        bed.path(f"/home/user1/large.{job}").unlink()


PTY = r"""
import os, pty, re, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp("srun", ["srun", *sys.argv[1:], "--pty", "bash", "--norc", "-i"])
text, seen = b"", 0
def until(mark):
    # reads on until the mark has come once more; nothing is typed ahead, as it would be echoed at another place
    global text, seen
    end = time.time() + 30
    while mark not in text[seen:] and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            text += os.read(fd, 4096)
    assert mark in text[seen:], text
    seen = text.index(mark, seen) + len(mark)
until(b"$ ")
os.write(fd, b"PS1='ready''> '\n"); until(b"ready> ")
for n, line in enumerate(["test -t 0 && tty | cut -c1-9", "echo $-; set -o | grep monitor",
                          "[ $(ps -o sid= -p $$) = $$ ] && echo my''session", "stty size", "sh -c 'kill -9 $$'; echo $?"]):
    os.write(fd, line.encode() + f"; echo done''{n}\n".encode()); until(f"done{n}".encode()); until(b"ready> ")
os.write(fd, b"exit 5\n")
try:
    while True:
        part = os.read(fd, 4096)
        if not part: break
        text += part
except OSError:
    pass
print(re.sub(r"line \d+: +\d+", "", text.decode().replace("\r", "")))
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_interactive_shell_on_a_terminal(bed):
    plain, wrapped = parallel(*(lambda v=v: bed.run("ctl", ["python3", "-c", PTY, "-w", "n2", *v], user="user1").stdout for v in VARIANTS))
    assert "no job control" not in plain and "mysession" in plain and "exit 5" in plain, plain
    seen = [sorted(set(anonymous(text).splitlines())) for text in (plain, wrapped)]
    assert seen[0] == seen[1], seen


def test_steps_of_an_allocation(bed):
    results = [bed.run("ctl", ["salloc", "-Q", "-N2", *v, "srun", "-l", "sh", "-c", "hostname | wc -l; exit 3"], user="user1", check=False)
               for v in VARIANTS]
    seen = [(r.returncode, sorted(r.stdout.splitlines())) for r in results]
    assert seen[0] == seen[1] and seen[0][0] == 3, seen


# ---- signals
def start_reporting(bed, variant):
    return bed.sbatch("#!/bin/bash\nexec ~/signal_report.sh ~/release.$SLURM_JOB_ID\n", "-o", "/home/user1/report.%j", *variant)


def report(bed, job):
    return sorted(line for line in bed.read(f"/home/user1/report.{job}", missing="").splitlines() if re.fullmatch(r"\w+ got \w+", line))


def signal_and_report(bed, variant, options):
    job = start_reporting(bed, variant)
    bed.wait(lambda: bed.read(f"/home/user1/report.{job}", missing="").count(" ready\n") == 3, 30, f"job {job} is ready")
    bed.run("ctl", ["scancel", *options, str(job)])
    bed.wait(lambda: any(line.startswith("script got") for line in report(bed, job)), 20, f"job {job} has got its signal")
    bed.write(f"/home/user1/release.{job}", "")
    fields = bed.wait_job(job)
    return fields["JobState"], fields["ExitCode"], report(bed, job)


def test_signals_reach_the_same_processes(bed):
    workload(bed, "signal_report.sh")
    ways = [("--batch", "-s", "USR1"), ("--full", "-s", "USR1"), ("--full", "-s", "HUP"), ("--batch", "-s", "ALRM"), ("--full", "-s", "40")]
    results = parallel(*(lambda w=w, v=v: signal_and_report(bed, v, w) for w in ways for v in VARIANTS))
    for way, plain, wrapped in zip(ways, results[::2], results[1::2]):
        assert plain == wrapped, f"{way}: plain {plain}, wrapped {wrapped}"
        assert len(plain[2]) == (3 if way[0] == "--full" else 1), (way, plain)


def test_signals_to_a_step(bed):
    script = ("#!/bin/bash\nsrun bash -c 'trap \"echo step got USR1; exit 6\" USR1; echo ready; while :; do sleep 0.1; done' &\n"
              "trap 'echo script got USR1' USR1\nwait $!\necho step ended $?\n")
    jobs = [bed.sbatch(script, *variant) for variant in VARIANTS]
    for job in jobs:
        bed.wait(lambda j=job: "ready" in bed.output(j), 30, f"job {job} is ready")
        bed.run("ctl", ["scancel", "-s", "USR1", str(job)])
    seen = [outcome(bed, job) for job in jobs]
    for one in seen:
        one["output"] = sorted(re.sub(r"line \d+: +\d+ ", "", one["output"]).splitlines())
    assert seen[0] == seen[1], seen


def cancelled(bed, variant, body, *options):
    job = bed.sbatch(f"#!/bin/bash\n{body}echo ready\nwhile :; do sleep 0.1; done\n", *variant)
    bed.wait(lambda: "ready" in bed.output(job), 30, f"job {job} is ready")
    bed.run("ctl", ["scancel", *options, str(job)])
    bed.wait(lambda: not body or "got TERM" in bed.output(job), 30, f"TERM arrives at job {job}")
    seen = outcome(bed, job)
    bed.wait(lambda: not any(bed.run(n, ["pgrep", "-f", f"job0*{job}/slurm_script"], check=False).stdout for n in bed.compute), 30,
             f"all processes of job {job} are gone")
    seen["output"] = re.sub(r"(?m)^/var/spool.*\n", "", seen["output"])
    return seen


def check_cancel(bed):
    for body in ("", "trap 'echo got TERM' TERM\n"):
        plain, wrapped = parallel(*(lambda v=v: cancelled(bed, v, body) for v in VARIANTS))
        assert plain == wrapped and plain["JobState"] == "CANCELLED", (plain, wrapped)
    for options in (("--batch", "-s", "KILL"), ("--full", "-s", "KILL")):
        plain, wrapped = parallel(*(lambda v=v: cancelled(bed, v, "", *options) for v in VARIANTS))
        assert plain == wrapped, (options, plain, wrapped)


def check_time_limit(bed):
    script = "#!/bin/bash\ntrap 'echo got TERM; exit 8' TERM\necho ready\nwhile :; do sleep 0.1; done\n"
    jobs = [bed.sbatch(script, "--time=5", *variant) for variant in VARIANTS]
    for job in jobs:
        bed.wait(lambda j=job: "ready" in bed.output(j), 30, f"job {job} is ready")
        bed.run("ctl", ["scontrol", "update", f"jobid={job}", "endtime=now+2"])
    plain, wrapped = [outcome(bed, job) for job in jobs]
    assert plain == wrapped and plain["JobState"] == "TIMEOUT" and "got TERM" in plain["output"], (plain, wrapped)


def check_suspend_and_resume(bed):
    script = ("#!/bin/bash\ntrap 'echo got CONT; c=1' CONT\necho ready\n"
              "until [ $c ] && [ -e /home/user1/suspend.$SLURM_JOB_ID ]; do sleep 0.05; done; echo end\n")
    jobs = [bed.sbatch(script, *variant) for variant in VARIANTS]
    for job in jobs:
        bed.wait(lambda j=job: "ready" in bed.output(j), 30, f"job {job} is ready")
        bed.run("ctl", ["scontrol", "suspend", str(job)])
    for job in jobs:
        bed.wait_job(job, "SUSPENDED")
        bed.run("ctl", ["scontrol", "resume", str(job)])
        bed.write(f"/home/user1/suspend.{job}", "")
    plain, wrapped = [outcome(bed, job) for job in jobs]
    assert plain == wrapped and plain["JobState"] == "COMPLETED", (plain, wrapped)


# ---- sckpt-run and sckptd
def check_scenarios_with_a_fake_sckptd(bed):
    program = workload(bed, "fake_sckptd.py")
    names = bed.run("n1", ["python3", program, "--list"], user="user1").stdout.split()
    assert len(names) > 10
    results = parallel(*(lambda n=n: bed.run("n1", ["python3", program, n], user="user1", check=False, timeout=100) for n in names))
    bad = [f"{n}: {r.stdout[-1000:]}{r.stderr[-2000:]}" for n, r in zip(names, results) if r.stdout != "ok\n"]
    assert not bad, "\n".join(bad)


def test_what_takes_a_while(bed):
    """Side by side: one of the scenarios waits for a minute, the others for Slurm."""
    parallel(*(lambda c=c: c(bed) for c in (check_scenarios_with_a_fake_sckptd, check_cancel, check_time_limit, check_suspend_and_resume)))


def test_nothing_is_left_after_jobs(bed):
    jobs = [bed.sbatch("#!/bin/bash\nsetsid sleep 600 &\nsrun true\n", "-w", node, *WRAPPED) for node in bed.compute]
    for job in jobs:
        bed.wait_job(job)
    for node in bed.compute:
        bed.wait(lambda n=node: bed.run(n, ["pgrep", "-u", "user1"], check=False).returncode == 1, 20, f"no process of user1 is left on {node}")
