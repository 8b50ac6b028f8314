# SPDX-License-Identifier: GPL-3.0-or-later
"""In a batch script with --ckpt a stub stands in for each srun, and the script's sckpt-run runs the real one. Nobody must notice: each script is
run plain and with --ckpt=manual (no checkpoint is made), and Slurm, the user and the program see the same. What the stub, sckpt-run and sckptd
say to each other, and restarts, are tried against a fake sckptd and a fake srun."""
import re

from lib import SAID_BY_CHANCE
from test_supervisor import VARIANTS, WRAPPED, parallel, workload

TIMEOUT = 600

# Ways in which batch scripts use srun. All of it is deterministic, or made so by sort.
SCRIPTS = {
    "foreground": "srun -n4 -l sh -c 'echo task $SLURM_PROCID of $SLURM_NTASKS, step $SLURM_STEP_ID' | sort; echo ${PIPESTATUS[*]}",
    "background": "{ srun -n1 --overlap sh -c 'sleep 0.5; exit 3' & a=$!; srun -n1 --overlap sh -c 'exit 4' & b=$!; wait $a; echo $?; wait $b; echo $?; } 2>/dev/null",
    "wait for all": "{ for i in 1 2 3; do srun -n1 --overlap sh -c \"echo $i; exit $i\" & done; wait; echo all $?; } 2>&1 | sort",
    "wait for any": "srun -n1 --overlap sleep 600 2>/dev/null & long=$!; srun -n1 --overlap sh -c 'exit 5' & wait -n; echo $?; kill $long; wait $long; echo $?",
    "loop": "for i in $(seq 5); do srun -n1 echo round $i || exit 1; done; echo $SLURM_JOB_NUM_NODES",
    "function": "work() { local n=$1; srun -n$n sh -c 'echo \"$1\"' _ \"$2\"; }; work 1 'a  b'; work 2 '*'; (cd /usr; work 1 here; srun -n1 pwd)",
    "pipeline": "srun -n3 sh -c 'echo line' | sort | uniq -c; echo a | srun -n1 tr a b | srun -n1 --overlap tr b c; set -o pipefail; srun -n1 false | cat; echo $?",
    "substitution": "names=$(srun -n2 sh -c 'echo name$SLURM_PROCID' | sort); echo \"$names\"; echo `srun -n1 echo old style`; echo $(srun -n1 sh -c 'exit 6') $?",
    "process substitution": "srun -n1 cat < <(echo in); srun -n1 echo out > >(sed s/o/0/); wait $!; cat <(srun -n1 echo both)",
    "here-documents": "srun -n1 cat <<END\nplain $((1 + 1))\nEND\nsrun -n1 cat <<< string\nsrun -n2 cat <<END | sort\n$(seq 3)\nEND\nsrun -n1 bash -s x y <<'END'\necho $# $2\nEND",
    "a large here-document": "srun -n1 wc -c <<END\n$(head -c 200000 /dev/zero | tr '\\0' x)\nEND",
    "input from a file": "seq 20000 > $W/numbers; srun -n1 md5sum < $W/numbers; srun -n3 wc -l < $W/numbers; srun -n1 --input=$W/numbers tail -n1",
    "input from a pipe": "seq 20000 | srun -n1 md5sum; (echo a; sleep 0.3; echo b) | srun -n2 cat | sort; yes | srun -n1 head -n2; yes | head -n 300000 | srun -n1 wc -l",
    "input for one task": "echo for one | srun -n3 --input=1 sh -c 'echo $SLURM_PROCID: $(cat)' | sort; echo lost | srun -n2 -i none sh -c 'cat; echo end'",
    "while read": "printf 'a\\nb\\nc\\n' > $W/list; while read -r x; do srun -n1 --input=none echo item $x; done < $W/list\n"
                  "while read -r x; do srun -n1 echo item $x < /dev/null; done < $W/list; while read -r x; do srun -n1 nosuch-program; done < $W/list 2>&1 | grep -c execve",
    "exit codes": "for code in 0 1 2 75 126 127 128 137 255; do srun -n1 sh -c \"exit $code\"; echo $?; done; srun -n3 sh -c 'exit $SLURM_PROCID'; echo $?",
    "deaths": "ulimit -c 0; for signal in HUP KILL SEGV PIPE TERM USR1; do srun -n1 sh -c \"kill -$signal \\$\\$\"; echo $?; done 2>&1 | sed 's/^srun: error: n.: //'",
    "programs that are missing": "{ srun -n1 nosuch-program; echo $?; } 2>&1 | sort; srun --no-such-option true; echo $?; { srun -n1 /tmp; echo $?; } 2>&1 | sort; srun; echo $?",
    "set -e": "set -e; srun -n1 true; srun -n1 false || echo tolerated; if ! srun -n1 false; then echo seen; fi; srun -n1 sh -c 'exit 9'; echo never",
    "exec": "echo before; exec srun -n2 sh -c 'echo last; exit 11'",
    "absolute path": "/usr/bin/srun -n1 echo absolute; command srun -n1 echo command; env srun -n1 echo env; cd /usr/bin; ./srun -n1 echo relative",
    "trap and kill": "trap 'echo trapped' USR1 TERM; (sleep 1; kill -USR1 $$; sleep 1; kill -TERM $$) & srun -n1 sleep 4; echo $?; wait; echo end",
    "kill by pid": "for s in TERM KILL USR1 QUIT HUP; do\n"
                   "srun -n1 sh -c \"trap 'exit 7' USR1; echo > $W/up; while :; do sleep 0.1; done\" 2>/dev/null & p=$!\n"
                   "until [ -e $W/up ]; do sleep 0.1; done; sleep 0.3; kill -$s $p; wait $p; echo $s $?; rm $W/up; done 2>/dev/null",
    "timeout": "{ timeout 1 srun -n1 sleep 600; echo $?; timeout -s KILL 1 srun -n1 sleep 600; echo $?; } 2>/dev/null",
    "ignored signals": "trap '' TERM HUP; srun -n1 sh -c 'grep SigIgn /proc/self/status'; nohup srun -n1 sh -c 'grep SigIgn /proc/self/status'",
    "limits, mask, niceness": "umask 027; ulimit -Sn 300; ulimit -Ss 4096; srun -n1 sh -c 'umask; ulimit -n; ulimit -s'; nice -n 4 srun -n1 sh -c 'nice; echo $SLURM_PRIO_PROCESS'",
    "labels": "srun -n3 --label sh -c 'echo out; echo err >&2' 2>&1 | sort; srun -n2 -l sh -c 'exit 2' 2>&1 | sed 's/n[123]/NODE/' | sort",
    "multi-prog": "printf '%s\\n' '0 echo zero %t' \"1-2 sh -c 'echo more %o; exit 4'\" > $W/multi; srun -n3 --multi-prog $W/multi 2>&1 | grep -v Exited | sort; echo ${PIPESTATUS[0]}",
    "output files": "cd $W; srun -n3 --output=out-%t.txt --error=err-%t.txt sh -c 'echo $SLURM_PROCID; echo e >&2'; head out-*.txt err-*.txt\n"
                    "srun -n2 -o all.txt sh -c 'echo x'; srun -n2 -o all.txt --open-mode=append sh -c 'echo y'; cat all.txt; exec 5> five; srun -n1 -o /dev/fd/5 echo five; cat five; srun -n1 echo 3 >&5; cat five",
    "environment": "export A=1; B=2 srun -n1 sh -c 'echo $A$B'; srun -n1 --export=NONE /bin/sh -c 'echo $A none'; srun -n1 --export=ALL,C=3 sh -c 'echo $A$C'; srun -n1 --export=A /bin/sh -c 'echo $A'; echo ${C-unset}",
    "a large environment": "for i in $(seq 10); do export BIG$i=$(head -c 100000 /dev/zero | tr '\\0' $((i % 10))); done; srun -n1 sh -c 'env | grep ^BIG | sort | md5sum'",
    "what a step sees": "srun -n1 --chdir=/usr sh -c 'pwd; env | grep -v SLURM_SPANK_ | cut -d= -f1 | grep -v ^_$ | sort; ls -l /proc/self/fd | wc -l'",
    "xargs": "seq 12 | xargs -P 4 -I{} srun -n1 --overlap echo item {} | sort -k2n; seq 3 | xargs -n1 srun -n1 --overlap echo",
    "many": "for i in $(seq 50); do srun -n1 --overlap -Q sh -c \"exit $((i % 7))\" 2>/dev/null & all+=\" $!\"; done; sum=0; for p in $all; do wait $p; sum=$((sum + $?)); done; echo $sum",
    "in the words of another program": "python3 -c 'import subprocess; p = subprocess.run([\"srun\", \"-n1\", \"cat\"], input=\"text\", text=True, capture_output=True); print(p)'\n"
                                       "(time -p srun -n1 true) 2>&1 | grep -c real; perl -e 'print `srun -n1 echo perl`; system(\"srun -n1 false\"); print $? >> 8, \"\\n\"'",
    "words about srun": "srun --version; srun --help | head -n1; srun --usage | head -n1 | cut -c1-12; srun -V | wc -l",
    "failures of the step": "srun -n3 --kill-on-bad-exit=1 sh -c '[ $SLURM_PROCID = 0 ] && exit 5; sleep 600' > /dev/null 2>&1; echo $?; srun -n1 -t 0:01 --nodelist=nosuch true 2>&1 | head -n1",
    "a terminal": "script -qec 'srun -n1 --pty sh -c \"test -t 0 && test -t 1 && echo both\"' /dev/null < /dev/null | tr -d '\\r@^'; script -qec 'srun -n1 sh -c \"test -t 1 || echo none\"' /dev/null < /dev/null | tr -d '\\r@^'",
}

BY_TIMING = ("timeout",)  # what these do depends on how soon srun has begun


def prepare(bed):
    """sckptd makes these directories when a supervisor says hello; here they are there before."""
    uid = bed.run("n1", ["id", "-u", "user1"]).stdout.strip()
    for node in bed.compute:
        bed.run(node, ["install", "-d", "/run/sckpt/run"])
        bed.run(node, ["install", "-d", "-m", "700", "-o", "user1", "-g", "user1", f"/run/sckpt/run/{uid}"])


def script_of(body):
    return f"#!/bin/bash\nW=$(mktemp -d /home/user1/srun.XXXXXX); trap 'rm -rf $W' EXIT\n{body}\n"


def normal(text):
    text = SAID_BY_CHANCE.sub("", re.sub(r"srun\.[A-Za-z0-9]{6}", "srun.X", text))
    # srun tells of tasks that end at the same time in one line, or in several
    text = re.sub(r"(srun: error: \S+: )tasks? [\d,-]+(: .*\n)(?:srun: error: \S+: tasks? [\d,-]+\2)*", r"\1tasks\2", text)
    text = re.sub(r"slurmstepd(-\w+)?: ", "slurmstepd: ", text)  # with the node or without, as its log has begun or not
    text = re.sub(r"\bn[123](?=:|\b)", "NODE", re.sub(r"(StepId=|job |Job )\d+", r"\1JOB", text))
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME", text)


def result(bed, job):
    fields = bed.wait_job(job, timeout=300)
    return {k: fields.get(k) for k in ("JobState", "Reason", "ExitCode", "DerivedExitCode")} | {"output": normal(bed.output(job))}


def run_both(bed, body, *options):
    jobs = [bed.sbatch(script_of(body), *options, *variant) for variant in VARIANTS]
    return [result(bed, job) for job in jobs]


# ---- scripts
def test_scripts_do_the_same(bed):
    prepare(bed)
    results = parallel(*(lambda b=body: run_both(bed, b, "-N1", "-n4", "--overcommit") for body in SCRIPTS.values()))
    bad = [f"--- {name}\nplain   {plain}\nwrapped {wrapped}" for name, (plain, wrapped) in zip(SCRIPTS, results) if plain != wrapped]
    assert not bad, "\n".join(bad)


def test_a_heterogeneous_step_does_the_same(bed):
    prepare(bed)
    body = ("srun -N1 -n1 sh -c 'echo first $SLURM_PROCID' : -N1 -n2 sh -c 'echo second $SLURM_PROCID $SLURM_NTASKS' | sort; echo ${PIPESTATUS[0]}\n"
            "echo input | srun -N1 -n1 cat : -N1 -n1 cat; { srun -N1 -n1 sh -c 'exit 3' : -N1 -n1 sh -c 'exit 4'; echo $?; } 2>&1 | sed 's/n[123]/NODE/' | sort")
    plain, wrapped = run_both(bed, body, "-N2", "-n4", "--overcommit")
    assert plain == wrapped, f"{plain}\n{wrapped}"
    assert "second 2 3" in plain["output"], plain


def test_a_heterogeneous_job_does_the_same(bed):
    prepare(bed)
    body = ("srun --het-group=0,1 sh -c 'echo $SLURM_PROCID of $SLURM_NTASKS' | sort; srun --het-group=1 sh -c 'exit 5'; echo $?\n"
            "srun sh -c 'echo leader $SLURM_PROCID' : sh -c 'echo other $SLURM_PROCID' | sort")
    options = ("-N1", "-n1", "-w", "n1", ":", "-N1", "-n2", "-w", "n2")
    jobs = [bed.sbatch(script_of(body), *variant, *options) for variant in VARIANTS]
    states = [bed.wait_job(job, timeout=300)["JobState"] for job in jobs]
    plain, wrapped = [normal(bed.read(f"/home/user1/slurm-{job}.out")) for job in jobs]
    assert plain == wrapped and states == ["COMPLETED"] * 2, f"{plain}\n{wrapped}\n{states}"
    assert plain.startswith("0 of 3\n1 of 3\n2 of 3\n"), plain


def test_steps_of_many_nodes_do_the_same(bed):
    prepare(bed)
    body = ("srun -N3 -l sh -c 'echo $SLURM_NODEID $SLURM_JOB_NODELIST' | sort; srun -N2 -n4 sh -c 'exit $SLURM_PROCID'; echo $?\n"
            "seq 1000 | srun -N3 -n3 md5sum; srun -N1 -r 1 -n1 sh -c 'echo $SLURMD_NODENAME'; srun -N3 --export=NONE /bin/sh -c 'echo none' | sort | uniq -c")
    plain, wrapped = run_both(bed, body, "-N3")
    assert plain == wrapped, f"{plain}\n{wrapped}"


def test_array_tasks_do_the_same(bed):
    prepare(bed)
    text = script_of("srun -n2 sh -c 'echo $SLURM_ARRAY_TASK_ID'; srun -n1 sh -c 'exit $SLURM_ARRAY_TASK_ID'")
    arrays = [bed.sbatch(text, "--array=1-3", *variant) for variant in VARIANTS]
    plain, wrapped = parallel(*(lambda a=a: [result(bed, f"{a}_{i}") for i in (1, 2, 3)] for a in arrays))
    assert plain == wrapped, f"{plain}\n{wrapped}"
    assert [r["ExitCode"] for r in plain] == ["1:0", "2:0", "3:0"], plain


# ---- what Slurm does to a job
def signalled(bed, variant, *options):
    """A script and its step that say which signals they get, while scancel sends some."""
    body = ("trap 'echo script >> $W/log' USR1\n"
            "srun -n1 sh -c 'trap \"echo step >> $0/log\" USR1; echo > $0/up; until [ -e $0/stop ]; do sleep 0.1; done' $W & p=$!\n"
            "until [ -e $W/up ]; do sleep 0.1; done; echo ready $W\n"
            "until [ -e $W/stop ]; do sleep 0.1; done; wait $p; echo $?; sort $W/log")
    job = bed.sbatch(script_of(body), "-N1", "-n1", *variant)
    folder = bed.wait(lambda: re.search(r"ready (\S+)", bed.output(job)), 60, "the job is ready")[1]
    bed.run("ctl", ["scancel", *options, "-s", "USR1", str(job)])
    expected = 2 if "--full" in options else 1
    bed.wait(lambda: bed.read(f"{folder}/log", missing="").count("\n") >= expected, 30, f"{options}: the signal has arrived")
    bed.write(f"{folder}/stop", "")
    told = result(bed, job)
    told["output"] = told["output"].replace("User defined signal 1\n", "")  # bash, when just then a sleep ran, which --full reaches too
    return told


def test_signals_of_scancel_do_the_same(bed):
    prepare(bed)
    for options in ((), ("--batch",), ("--full",)):
        plain, wrapped = parallel(*(lambda v=v: signalled(bed, v, *options) for v in VARIANTS))
        assert plain == wrapped, f"{options}:\n{plain}\n{wrapped}"


def ended(bed, variant, ending):
    """A job with steps in the background, and what becomes of it."""
    body = "srun -n1 sh -c 'echo > $0/up; sleep 600' $W & until [ -e $W/up ]; do sleep 0.1; done; echo ready; " + ending
    job = bed.sbatch(script_of(body), "-N1", "-n2", *variant)
    bed.wait(lambda: "ready" in bed.output(job), 60, "the job is ready")
    if ending == "wait":
        bed.run("ctl", ["scancel", str(job)])
    fields = bed.wait_job(job)
    return fields["JobState"], fields["ExitCode"]


def test_a_job_ends_with_its_steps(bed):
    prepare(bed)
    for ending in ("exit 3", "wait", "kill -9 $$"):
        plain, wrapped = parallel(*(lambda v=v: ended(bed, v, ending) for v in VARIANTS))
        assert plain == wrapped, f"{ending}: {plain} {wrapped}"
    for node in bed.compute:
        bed.wait(lambda n=node: bed.run(n, ["pgrep", "-u", "user1"], check=False).returncode == 1, 20, f"no process of user1 is left on {node}")


def test_a_job_is_suspended_with_its_steps(bed):
    prepare(bed)
    job = bed.sbatch(script_of("srun -n1 sh -c 'while :; do echo tick; sleep 0.1; done'"), "-N1", "-n1", "-w", "n1", "--ckpt=manual")
    bed.wait(lambda: "tick" in bed.output(job), 60, "the step runs")
    bed.run("ctl", ["scontrol", "suspend", str(job)])
    bed.wait_job(job, "SUSPENDED")
    before = bed.wait(lambda: len(bed.output(job)), 5, "some output")
    bed.run("ctl", ["scontrol", "resume", str(job)])
    bed.wait(lambda: len(bed.output(job)) > before + 20, 30, "the step goes on")
    bed.run("ctl", ["scancel", str(job)])
    bed.wait_job(job)


# ---- the stub and what it stands for
def test_a_stub_stands_in_for_srun(bed):
    """The script's tree has stubs and no srun; a task knows which step of the script it is, on every node and with any environment."""
    prepare(bed)
    bed.write("/home/user1/supervisor", "#!/bin/sh\ntr '\\0' ' ' < /proc/$PPID/cmdline; echo\n", mode=0o755)
    body = ("cd /home/user1; srun -N2 -n3 ./supervisor; srun -N2 -n2 --export=NONE ./supervisor; srun -O -N1 -n1 ./supervisor : -O -N1 -n2 ./supervisor\n"
            "srun -N1 -n1 env | grep -i '^sckpt\\|ckpt_step'; srun -N1 -n1 --overlap sleep 600 & sleep 2; ps -o comm= --ppid $$ | sort -u | xargs; kill $!")
    job = bed.sbatch(script_of(body), "-N2", "-n6", *WRAPPED)
    fields = bed.wait_job(job)
    lines = bed.output(job).splitlines()
    said = [re.search(r"--step=(\d+) --task=(\d+) .*--step-key=(\d+) --resume-from=0 --tasks=(\d+)", line) for line in lines]
    said = sorted(tuple(map(int, match.groups())) for match in said if match)
    expected = [(0, rank, 0, 3) for rank in range(3)] + [(1, rank, 1, 2) for rank in range(2)] + [(2, rank, 2, 3) for rank in range(3)]
    assert fields["JobState"] == "COMPLETED" and said == expected, (fields['JobState'], lines)
    assert "ps sckpt-srun sort xargs" in lines and not [line for line in lines if "ckpt_step" in line], lines


def test_steps_of_nobodys_script(bed):
    """What is not started by the batch script itself runs as ever: steps from outside, within tasks, of other jobs, and of jobs without --ckpt that a
    job with it submits."""
    prepare(bed)
    bed.write("/home/user1/supervisor", "#!/bin/sh\ntr '\\0' ' ' < /proc/$PPID/cmdline; echo\n", mode=0o755)
    other = bed.sbatch(script_of("until [ -e /home/user1/stop ]; do sleep 0.1; done"), "-N1", "-n1", *WRAPPED)
    bed.wait_job(other, "RUNNING")
    body = ("cd /home/user1; srun -n1 --overlap srun -n1 --overlap ./supervisor\n"
            f"srun --jobid={other} -n1 --overlap ./supervisor; echo $?\n"
            "env -u SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt sbatch --parsable -W -n1 -o /home/user1/inner.txt --wrap 'srun sh -c \"ps -o comm= --ppid \\$PPID\"; echo $SCKPT_SUPERVISOR' > /dev/null; echo $?")
    job = bed.sbatch(script_of(body), "-N1", "-n2", *WRAPPED)
    bed.wait_job(job, timeout=300)
    bed.write("/home/user1/stop", "")
    bed.wait_job(other)
    bed.path("/home/user1/stop").unlink()
    lines = bed.output(job).splitlines()
    keys = [int(key) & 0x7fffffff if int(key) >> 31 else None for key in re.findall(r"--step-key=(\d+)", "\n".join(lines))]
    assert keys == [1, 0] and lines.count("0") == 2, lines
    assert "sckpt" not in bed.read("/home/user1/inner.txt").splitlines()[0], bed.read("/home/user1/inner.txt")
    outside = bed.run("ctl", ["srun", "-n1", *WRAPPED, "/home/user1/supervisor"], user="user1").stdout
    assert int(re.search(r"--step-key=(\d+)", outside)[1]) == 0x80000000, outside


# ---- what sckpt-run, stubs and sckptd say to each other
def test_holds_change_nothing(bed):
    """The same scripts, while every script and every task is held for a moment, as for a dump, about three times a second."""
    prepare(bed)
    for name in ("fake_sckptd.py", "holding_sckptd.py"):
        workload(bed, name)
    for node in bed.compute:
        bed.daemon(node, "sckptd").stop()
        bed.spawn(node, ["python3", "/home/user1/holding_sckptd.py", "/run/sckpt/sckptd.sock"])
    names = [name for name in SCRIPTS if name not in BY_TIMING]
    results = parallel(*(lambda n=name: run_both(bed, SCRIPTS[n], "-N1", "-n4", "--overcommit") for name in names))
    bad = [f"--- {name}\nplain {plain}\nheld  {held}" for name, (plain, held) in zip(names, results) if plain != held]
    assert not bad, "\n".join(bad)


def test_scenarios_with_a_fake_srun(bed):
    for name in ("fake_sckptd.py", "fake_step_tasks.py"):
        workload(bed, name)
    program = workload(bed, "fake_steps.py")
    names = bed.run("n1", ["python3", program, "--list"], user="user1").stdout.split()
    assert len(names) > 20
    groups = [names[i::4] for i in range(4)]  # few at a time: sckpt-run waits for a sckptd's first answer for two seconds only
    run = lambda n: bed.run("n1", ["python3", program, n], user="user1", check=False, timeout=200)
    results = [r for group in parallel(*(lambda g=g: [run(n) for n in g] for g in groups)) for r in group]
    names = [n for group in groups for n in group]
    bad = [f"{n}: {r.stdout[-1000:]}{r.stderr[-2000:]}" for n, r in zip(names, results) if r.stdout != "ok\n"]
    assert not bad, "\n".join(bad)
