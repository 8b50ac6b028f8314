# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user must not be able to do: see or act on another user's checkpoints, have sckptd (root) touch a file that he cannot touch
himself, take the place of another's task or of a node, or keep sckptd from serving others.

user1 (uid 1000) runs the jobs; user2 (uid 1001) attacks, and user1 attacks root."""
import concurrent.futures
import json
import os
import time
from pathlib import Path

TIMEOUT = 120
DENIED = 4                     # exit code of sckpt: permission denied
BASE = "/home/user1/attack"
PRECIOUS = "/home/precious"    # root's and user2's files, which nobody but them may change
WORKLOADS = Path(__file__).resolve().parent.parent / "workloads"
ROGUE_RPC = "/build/out/rogue_rpc"

PROGRAM = """#!/usr/bin/python3
import os, sys, time
os.chdir(sys.argv[1] + "/work")
out = open(sys.argv[1] + "/sub/out.dat", "a")
script = open("slurm_script") if os.path.exists("slurm_script") else None
step = 0
while not os.path.exists("/home/user1/attack/stop"):
    step += 1
    out.write(f"{step}\\n"); out.flush()
    print(step, flush=True)
    if script:
        open("latest", "w").write(str(step))
    time.sleep(0.1)
"""


def parallel(function, items):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return dict(zip(items, pool.map(function, items)))


def prepare(bed):
    bed.run("ctl", ["rm", "-rf", BASE, PRECIOUS])
    bed.run("ctl", ["mkdir", "-p", BASE], user="user1")
    bed.write(f"{BASE}/program.py", PROGRAM)
    for name in ("rogue_client.py",):
        bed.write(f"/shared/{name}", (WORKLOADS / name).read_text(), user="root")


def start_job(bed, name, *options, first=""):
    """A job that writes a line to sub/out.dat every 0.1 s."""
    directory = f"{BASE}/{name}"
    bed.run("ctl", ["mkdir", "-p", f"{directory}/sub", f"{directory}/work"], user="user1")
    script = f"#!/bin/bash\n{first}\npython3 {BASE}/program.py $PWD\n"
    return bed.sbatch(script, "--ckpt=manual", f"--chdir={directory}", f"--output={directory}/stdout.txt", *options)


def lines(bed, name, file="sub/out.dat"):
    return bed.read(f"{BASE}/{name}/{file}", missing="").count("\n")


def running(bed, job, name):
    bed.wait_job(job, "RUNNING")
    bed.wait(lambda: lines(bed, name) > 2, 20, f"job {job} ({name}) writes")


def sckpt(bed, *argv, user=None, node="ctl"):
    return bed.run(node, ["sckpt", *map(str, argv)], user=user, check=False)


def create(bed, job):
    """The job is registered a moment after its start."""
    last = []

    def done():
        last[:] = [sckpt(bed, "create", job, user="user1")]
        return last[0].returncode == 0 or "not running under sckpt" not in last[0].stderr and "no batch job" not in last[0].stderr
    bed.wait(done, 30, f"job {job} can be checkpointed", pause=0.3)
    return last[0]


def checkpoint(bed, job):
    result = create(bed, job)
    assert result.returncode == 0, result.stderr


def show(bed, job):
    result = sckpt(bed, "show", job, "--json")
    assert result.returncode == 0, result
    return json.loads(result.stdout)


def sckptd_pids(bed):
    return {node: bed.daemon(node, "sckptd").pid for node in bed.compute}


def facts(bed, *paths):
    """Contents, owner, mode, times: all that a touch would change."""
    out = {}
    for path in paths:
        file = bed.path(path)
        status = file.stat()
        entries = sorted(os.listdir(file)) if file.is_dir() else file.read_bytes()
        out[path] = (status.st_ino, status.st_uid, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, entries)
    return out


# ---------------------------------------------------------------- another user's checkpoints

def test_checkpoints_are_private(bed):
    prepare(bed)
    job = start_job(bed, "private", "--nodelist=n1")
    running(bed, job, "private")
    checkpoint(bed, job)
    for verb in ("create", "requeue", "show", "list"):
        denied = sckpt(bed, verb, job, user="user2")
        assert denied.returncode == DENIED, f"user2: sckpt {verb}: exit {denied.returncode}: {denied.stdout}{denied.stderr}"
        assert "private" not in denied.stdout
    assert sckpt(bed, "show", f"{job}.1", user="user2").returncode == DENIED
    everything = json.loads(sckpt(bed, "list", "--json", user="user2").stdout)
    assert job not in [j["job_id"] for j in everything["jobs"]], everything
    assert bed.job(job)["Restarts"] == "0" and bed.job_state(job) == "RUNNING"
    for user in ("user1", None):
        assert sckpt(bed, "show", job, user=user).returncode == 0
    no_direct_reads(bed)
    operators_may(bed, job)


def no_direct_reads(bed):
    """Store, fast tier, logs, catalogue: closed on every node, also to the job's own user (an image holds keys that others gave him)."""
    places = {"ctl": ["/shared/sckpt", "/var/lib/sckpt"]} | {n: ["/shared/sckpt", "/run/sckpt/images", "/run/sckpt/logs"] for n in bed.compute}
    for node, paths in places.items():
        for path in paths:
            if path.endswith("logs") and bed.run(node, ["test", "-e", path], check=False).returncode:
                continue
            assert bed.run(node, ["stat", "-c", "%a", path]).stdout.strip() == "700", f"{node}:{path}"
            for user in ("user1", "user2"):
                for argv in (["ls", path], ["touch", f"{path}/x"], ["mv", path, path + ".x"]):
                    assert bed.run(node, argv, user=user, check=False).returncode != 0, f"{user} on {node}: {argv}"
    images = bed.run("n1", ["find", "/shared/sckpt", "-type", "f"], user="sckpt").stdout.split()
    assert images
    for node in bed.nodes:
        for user in ("user1", "user2"):
            assert bed.run(node, ["cat", images[0]], user=user, check=False).returncode != 0


def operators_may(bed, job):
    config = "/etc/sckpt/sckpt.yaml"
    before = bed.run("ctl", ["cat", config]).stdout
    daemon = bed.daemon("ctl", "sckptctld")
    try:
        bed.run("ctl", ["tee", config], input=before.replace("controller:\n", "controller:\n  operators: [user2]\n", 1))
        daemon.restart()
        bed.wait(lambda: sckpt(bed, "show", job, user="user2").returncode == 0, 20, "an operator may look at user1's job", pause=0.2)
        result = bed.wait(lambda: (r := sckpt(bed, "create", job, user="user2")).returncode == 0 and r, 30, "an operator may checkpoint", 0.3)
        assert result
    finally:
        bed.run("ctl", ["tee", config], input=before)
        daemon.restart()
    bed.wait(lambda: sckpt(bed, "show", job, user="user2").returncode == DENIED, 20, "user2 is no operator any more", pause=0.2)


# ---------------------------------------------------------------- files that change their meaning between dump and restore

def as_user1(bed, *argv):
    return bed.run("ctl", list(argv), user="user1")


def swap_out(how):
    """out.dat goes, and something else takes its name."""
    def swap(bed, directory):
        as_user1(bed, "mv", f"{directory}/sub/out.dat", f"{directory}/sub/old")
        how(bed, f"{directory}/sub/out.dat")
    return swap


def link_to_user2(bed, path):
    target = f"{PRECIOUS}/user2.txt"
    if bed.run("ctl", ["ln", target, path], user="user1", check=False).returncode:
        bed.run("ctl", ["ln", target, path])  # protected_hardlinks forbids it to user1: root makes the case, for where it does not


def swap_parent(bed, directory):
    as_user1(bed, "mv", f"{directory}/sub", f"{directory}/moved")
    as_user1(bed, "ln", "-s", f"{PRECIOUS}/etc", f"{directory}/sub")


def swap_work(*made):
    def swap(bed, directory):
        as_user1(bed, "mv", f"{directory}/work", f"{directory}/moved")
        as_user1(bed, *made, f"{directory}/work")
    return swap


def swap_stdout(bed, directory):
    as_user1(bed, "mv", f"{directory}/stdout.txt", f"{directory}/moved")
    as_user1(bed, "ln", "-s", f"{PRECIOUS}/root.txt", f"{directory}/stdout.txt")


# name → what happens between dump and restore, and what the reason of the hold names
SWAPS = {
    "symlink-root": (swap_out(lambda bed, path: as_user1(bed, "ln", "-s", f"{PRECIOUS}/root.txt", path)), "sub/out.dat"),
    "symlink-user2": (swap_out(lambda bed, path: as_user1(bed, "ln", "-s", f"{PRECIOUS}/user2.txt", path)), "sub/out.dat"),
    "hardlink-user2": (swap_out(link_to_user2), "sub/out.dat"),
    "fifo": (swap_out(lambda bed, path: as_user1(bed, "mkfifo", path)), "sub/out.dat"),
    "directory": (swap_out(lambda bed, path: as_user1(bed, "mkdir", path)), "sub/out.dat"),
    "parent": (swap_parent, "sub/out.dat"),
    "work-file": (swap_work("touch"), "/work"),
    "work-closed": (swap_work("ln", "-s", f"{PRECIOUS}/closed"), "/work"),
}


def make_precious(bed):
    for argv in (["mkdir", "-p", f"{PRECIOUS}/etc"], ["mkdir", "-m", "700", f"{PRECIOUS}/closed"]):
        bed.run("ctl", argv)
    text = "precious\n" * 2000  # longer than what the jobs write: a roll-back would shorten it
    bed.write(f"{PRECIOUS}/root.txt", text, user="root")
    bed.write(f"{PRECIOUS}/user2.txt", text, user="user2")
    bed.write(f"{PRECIOUS}/etc/out.dat", text, user="root")
    bed.write(f"{PRECIOUS}/closed/secret", text, user="root")
    return [f"{PRECIOUS}/{name}" for name in ("", "root.txt", "user2.txt", "etc", "etc/out.dat", "closed", "closed/secret")]


def stop_in_queue(bed, job):
    bed.run("ctl", ["scontrol", "requeuehold", str(job)])
    bed.wait(lambda: bed.job_state(job) == "PENDING", 40, f"job {job} is back in the queue", pause=0.2)


def release(bed, job):
    bed.run("ctl", ["scontrol", "release", str(job)])
    bed.start_now(job)


def held_reason(bed, job):
    return show(bed, job)["held_reason"]


def test_a_restore_touches_no_foreign_file(bed):
    prepare(bed)
    precious = make_precious(bed)
    names = [*SWAPS, "stdout", "own-script"]
    bed.run("ctl", ["mkdir", "-p", f"{BASE}/own-script/work"], user="user1")
    bed.write(f"{BASE}/own-script/work/slurm_script", "a file of mine with this name\n")
    jobs = parallel(lambda name: start_job(bed, name), names)
    parallel(lambda name: running(bed, jobs[name], name), names)
    parallel(lambda name: checkpoint(bed, jobs[name]), names)
    at_checkpoint = {name: lines(bed, name) for name in names}
    bed.wait(lambda: all(lines(bed, name) > at_checkpoint[name] + 2 for name in names), 20, "the jobs write on after their checkpoint")
    parallel(lambda name: stop_in_queue(bed, jobs[name]), names)
    for name, (swap, _) in SWAPS.items():
        swap(bed, f"{BASE}/{name}")
    swap_stdout(bed, f"{BASE}/stdout")
    before, daemons = facts(bed, *precious), sckptd_pids(bed)
    written = {name: lines(bed, name, "moved/out.dat" if name == "parent" else "sub/old") for name in SWAPS if not name.startswith("work")}
    parallel(lambda name: release(bed, jobs[name]), names)

    for name, (_, named) in SWAPS.items():
        reason = bed.wait(lambda job=jobs[name]: held_reason(bed, job), 40, f"job {jobs[name]} ({name}) is held", pause=0.3)
        assert f"{BASE}/{name}{'/' if not named.startswith('/') else ''}{named}" in reason, f"{name}: {reason}"
        if name in written:  # what has been moved away is the user's still, as it was
            assert lines(bed, name, "moved/out.dat" if name == "parent" else "sub/old") == written[name], name
    bed.wait(lambda: lines(bed, "own-script") > at_checkpoint["own-script"] + 5 and bed.job_state(jobs["own-script"]) == "RUNNING", 40,
             "the job with a slurm_script of its own goes on")
    latest = int(bed.wait(lambda: bed.read(f"{BASE}/own-script/work/latest"), 20, "it has written its number"))  # it truncates first
    bed.wait(lambda: int(bed.read(f"{BASE}/own-script/work/latest", missing="0") or 0) > latest, 20, "its new files are where they belong")
    bed.wait(lambda: bed.job_state(jobs["stdout"]) != "RUNNING", 30, "no job runs with root's file as its output")
    assert facts(bed, *precious) == before
    assert sckptd_pids(bed) == daemons, "an sckptd has died"


# ---------------------------------------------------------------- sckptd's socket

def rogue(bed, scenario, *argv, user="user2", node="n1"):
    return bed.run(node, ["python3", "/shared/rogue_client.py", scenario, *map(str, argv)], user=user).stdout.strip()


def payload_pid(bed, node, name):
    """On its node; the program's and not its shell's."""
    return bed.run(node, ["pgrep", "-f", f"^python3 {BASE}/program.py {BASE}/{name}$"]).stdout.split()[0]


def test_lies_on_the_socket(bed):
    prepare(bed)
    job = start_job(bed, "lies", "--nodelist=n1")
    running(bed, job, "lies")
    checkpoint(bed, job)
    daemon = bed.daemon("n1", "sckptd").pid
    assert rogue(bed, "malformed") == "all refused"
    pids = [1, daemon, payload_pid(bed, "n1", "lies"), 0, -1, 2 ** 33 + 5]
    assert rogue(bed, "started", job, *pids) == f"refused {len(pids)} of {len(pids)}"
    assert rogue(bed, "own", job) == "refused 1 of 1"
    assert rogue(bed, "own", job, user="user1") == "refused 1 of 1", "a process outside of the job's cgroup was taken for its payload"
    for user in ("user1", "user2"):
        assert rogue(bed, "resume", job, user=user).startswith("5 "), f"{user} may ask for a restore outside of any job"
    inside = bed.run("ctl", ["srun", "--nodelist=n1", "python3", "/shared/rogue_client.py", "resume", str(job)], user="user2").stdout
    assert inside.startswith("5 ") and "uid 1001" in inside, inside
    assert rogue(bed, "displace", job) == "done"
    checkpoint(bed, job)  # still registered: nobody took its place
    assert bed.job_state(job) == "RUNNING" and bed.daemon("n1", "sckptd").pid == daemon


def test_a_crowd_on_the_socket(bed):
    """Thousands of idle connections of one user: others are served meanwhile, and sckptd's threads stay few."""
    prepare(bed)
    job = start_job(bed, "crowd", "--nodelist=n1")
    running(bed, job, "crowd")
    checkpoint(bed, job)
    daemon = bed.daemon("n1", "sckptd")
    crowd = [bed.spawn("n1", ["python3", "/shared/rogue_client.py", "crowd", "900"], user="user2", stdin=-1) for _ in range(4)]
    opened = [int(process.stdout.readline().split()[1]) for process in crowd]
    assert sum(opened) > 3000, opened
    threads = int(bed.run("n1", ["sh", "-c", f"grep Threads /proc/{daemon.pid}/status"]).stdout.split()[1])
    assert threads < 600, f"sckptd has {threads} threads"
    begin = time.monotonic()
    bed.run("ctl", ["srun", "--ckpt=manual", "--nodelist=n1", "true"], user="user1", timeout=20)
    checkpoint(bed, job)
    assert time.monotonic() - begin < 15
    for process in crowd:
        process.stdin.close()
        process.wait()
    assert bed.job_state(job) == "RUNNING"


# ---------------------------------------------------------------- sckptctld's port

def test_lies_to_sckptctld(bed):
    prepare(bed)
    job = start_job(bed, "rpc")
    running(bed, job, "rpc")
    checkpoint(bed, job)
    denied, unauthenticated = "7 ", ("16 ", "7 ")

    def ask(*argv, node="ctl", user="user2"):
        return bed.run(node, [ROGUE_RPC, "ctl", "6830", *map(str, argv)], user=user).stdout

    for user, node in (("user2", "n1"), ("slurm", "ctl")):
        answer = ask("attach", "n1", node=node, user=user if user != "slurm" else "user1")
        assert answer.startswith(denied) and "root" in answer, answer
    for node in ("ctl", "n2"):  # root, but of another host
        answer = ask("attach", "n1", node=node, user=None)
        assert answer.startswith(denied) and "n1" in answer, answer
    assert "WELCOME" not in ask("attach", "nowhere", node="n1", user=None)
    for how in ("none", "garbage", "other"):
        assert ask("create", job, how, user="user1").startswith(unauthenticated), how
    assert ask("create", job).splitlines()[0] == "first 7"          # user2's own good credential, user1's job
    first, second = ask("create", job, "replay", user="user1").splitlines()
    assert first == "first 0" and second.startswith(unauthenticated), (first, second)
    assert sckpt(bed, "status").returncode == 0


# ---------------------------------------------------------------- what is dumped

def test_dumps_that_are_refused(bed):
    """Set-user-id programs; a mount namespace of the user's own making, in which root would start the user's /usr/sbin/criu."""
    prepare(bed)
    bed.run("ctl", ["install", "-m", "4755", "/usr/bin/sleep", "/shared/suid-sleep"])
    bed.write("/shared/evil.sh", "#!/bin/sh\nid > /tmp/evil\n", user="user1", mode=0o755)
    own_mounts = ("unshare --map-current-user --mount bash -c 'mount --bind /shared/evil.sh /usr/sbin/criu;"
                  f" exec python3 {BASE}/program.py {BASE}/mounts'")
    firsts = {"suid": "/shared/suid-sleep 1000 &", "mounts": f"exec {own_mounts}"}
    jobs = parallel(lambda name: start_job(bed, name, first=firsts[name]), list(firsts))
    parallel(lambda name: running(bed, jobs[name], name), list(firsts))
    for name, why in (("suid", "set-user-id"), ("mounts", "user namespace")):
        refused = create(bed, jobs[name])
        assert refused.returncode not in (0, DENIED) and why in refused.stderr, f"{name}: {refused.returncode} {refused.stderr}"
        assert bed.job_state(jobs[name]) == "RUNNING"
    for node in bed.compute:
        assert bed.run(node, ["test", "-e", "/tmp/evil"], check=False).returncode != 0, "the user's program ran in place of criu"


# Looks at all there is, until standard input ends; a violation is printed once.
WATCH = r"""
import os, select, stat, sys
seen, programs = set(), set()
def bad(text):
    if text not in seen:
        seen.add(text); print("BAD", text, flush=True)
def look(top):
    for folder, folders, files in os.walk(top):
        for name in [""] + files:
            path = os.path.join(folder, name) if name else folder
            try:
                s = os.lstat(path)
            except OSError:
                continue
            if "dump" in sys.argv and (name and s.st_uid == 1000 or folder != top and s.st_gid == 990):
                continue  # criu runs as the job's user, with capabilities, and what drains an image as sckpt: the closed top keeps others out
            if s.st_uid != 0 or stat.S_IMODE(s.st_mode) & 0o077 and (not name or "dump" not in sys.argv):
                bad(f"{path} uid {s.st_uid} mode {stat.S_IMODE(s.st_mode):o}")
def environments():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            comm = open(f"/proc/{pid}/comm").read().strip()
            if comm not in ("sckptd", "sckpt-criu", "sckpt-criu-hook", "criu"):
                continue
            text = open(f"/proc/{pid}/environ", "rb").read()
        except OSError:
            continue
        if not text:
            continue
        programs.add(comm)
        for word in (b"evil", b"SECRET_OF_THE_JOB", b"GCONV_PATH"):
            if word in text:
                bad(f"{comm}: {word} in its environment")
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    look("/run/sckpt/images"); environments()
print("SAW", " ".join(sorted(programs)))
"""


def test_images_and_helpers_while_dumping(bed):
    """At all moments folders are root's alone and the job's environment stays out of our programs."""
    prepare(bed)
    evil = f"export LD_PRELOAD={BASE}/evil.so LD_LIBRARY_PATH={BASE} SECRET_OF_THE_JOB=1 GCONV_PATH={BASE}; ulimit -c unlimited"
    job = start_job(bed, "watch", "--nodelist=n1", first=evil + "\npython3 -c 'b = bytearray(os.urandom(1)) if 0 else bytearray(300000000);"
                                                                "import time; time.sleep(1000)' &")
    running(bed, job, "watch")
    watcher = bed.spawn("n1", ["python3", "-c", WATCH, "dump"], stdin=-1)
    assert watcher.stdout.readline() == "ready\n"
    for _ in range(3):
        checkpoint(bed, job)
    report, _ = watcher.communicate("")
    assert "BAD" not in report, report
    assert "SAW" in report and "sckpt-criu" in report.split() and "criu" in report.split(), report
    watcher = bed.spawn("n1", ["python3", "-c", WATCH], stdin=-1)  # at rest: files too
    watcher.stdout.readline()
    report, _ = watcher.communicate("")
    assert "BAD" not in report, report
    open_to_all = ["(", "-name", "sckptd.sock", "-o", "-path", "/run/sckpt", ")"]
    users = ["-path", "/run/sckpt/run", "-prune", "-o"]  # each user's own sockets, looked at below
    loose = bed.run("n1", ["find", "/run/sckpt", *users, *open_to_all, "-o", "-not", "-user", "root", "-print", "-o", "-perm", "/077", "-print"]).stdout
    assert loose == "", loose
    modes = bed.run("n1", ["find", "/run/sckpt/run", "-type", "d", "-printf", "%d %m %u\\n"]).stdout.splitlines()
    assert modes[0] == "0 755 root" and all(mode.split()[:2] == ["1", "700"] and mode.split()[2] != "root" for mode in modes[1:]), modes
    loose = bed.run("n1", ["find", "/shared/sckpt", "-not", "-user", "sckpt", "-print", "-o", "-perm", "/077", "-print"], user="sckpt").stdout
    assert loose == "", loose


# ---------------------------------------------------------------- names

def test_names_that_are_not_utf8(bed):
    """A job name, a folder and an open file with bytes that are no text: the checkpoint, the report of it and the restart all work."""
    prepare(bed)
    name = "caf\udce9-\udcff\udcfe"
    job = start_job(bed, name, f"--job-name={name}", "--nodelist=n1")
    running(bed, job, name)
    checkpoint(bed, job)
    files = [f["path"] for image in show(bed, job)["checkpoints"][0]["images"] for f in image["files"]]
    assert f"{BASE}/caf\\xe9-\\xff\\xfe/sub/out.dat" in files, files
    nodes = json.loads(sckpt(bed, "status", "--json").stdout)["nodes"]
    assert all(node["connected"] for node in nodes if node["name"] == "n1"), nodes
    assert sckpt(bed, "requeue", job, user="user1").returncode == 0
    bed.wait(lambda: any(r["outcome"] == "restored" for r in show(bed, job)["restarts_done"]), 40, "the job is restored", pause=0.3)
    at = lines(bed, name)
    bed.wait(lambda: lines(bed, name) > at + 2, 20, "it writes on")
    numbers = bed.read(f"{BASE}/{name}/sub/out.dat").split()
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    # and an error text that names such a file
    stop_in_queue(bed, job)
    as_user1(bed, "mv", f"{BASE}/{name}/sub/out.dat", f"{BASE}/{name}/sub/old")
    release(bed, job)
    reason = bed.wait(lambda: held_reason(bed, job), 40, "the job is held", pause=0.3)
    assert "caf\\xe9-\\xff\\xfe/sub/out.dat was removed" in reason, reason
