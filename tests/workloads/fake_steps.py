# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays sckptd and Slurm to a real sckpt-run and real stubs, one scenario a run: fake_steps.py SCENARIO. Prints "ok" or fails with what was wrong.
The scenarios are of steps: what an srun is given, dumps at awkward moments, and a restarted script that gets every step's end exactly once."""
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import fake_step_tasks
from fake_sckptd import (ENDED, GO_ON, HELD, HOLD, LAUNCH, RESTORED, RESTORING, STARTED, Bench, Daemon, expect, hello, send_status)

STUB = "/usr/libexec/sckpt/sckpt-srun"
# An srun whose "tasks" are the rest of its command line: says what the plug-in says, when the file that it is named after lets it.
FAKE_SRUN = """#!/usr/bin/python3 -S
import os, socket, sys, time
place, queued = os.environ["PLACE"], os.environ.get("QUEUED")
with open(f"{place}/origins", "a") as origins:
    origins.write(os.environ.pop("SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt_step") + "\\n")
while queued and not os.path.exists(f"{place}/{queued}"):
    time.sleep(0.02)
report = socket.socket(fileno=int(os.environ.pop("SCKPT_STEP_REPORT")))
if os.environ.get("READS"):
    report.send(b"input")
report.send(b"step 1 5 4")
report.recv(10)
report.close()
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Script:
    """A batch script whose sruns are stubs, under a sckpt-run."""

    def __init__(self, bench, text):
        self.bench, self.place = bench, os.path.dirname(bench.path)
        self.socket = f"{self.place}/run/{os.getuid()}/job-1.sock"
        os.makedirs(os.path.dirname(self.socket), exist_ok=True)
        self.write_program("real", FAKE_SRUN)
        os.makedirs(f"{self.place}/bin", exist_ok=True)
        self.write_program("bin/srun", f'#!/bin/sh\nexec {STUB} {self.place}/real srun "$@"\n')  # what the plug-in does
        environment = {**os.environ, "PATH": f"{self.place}/bin:{os.environ['PATH']}", "PLACE": self.place, "SLURM_JOB_NODELIST": "old"}
        self.daemon = Daemon(bench.path)
        self.process = bench.run("bash", "-c", text, env=environment)
        self.peer = self.daemon.accept()
        hello(self.peer)
        self.peer.say(LAUNCH)
        self.root = self.peer.receive(STARTED)["pid"]

    def write_program(self, name, text):
        with open(self.file(name), "w") as file:
            file.write(text)
        os.chmod(self.file(name), 0o755)

    def hold(self):
        self.peer.say(HOLD)
        return self.held()

    def hold_once(self, good):
        """Holds when the state is good; returns it."""
        while not good(state := self.hold()):
            self.peer.say(GO_ON)
            time.sleep(0.02)
        return state

    def held(self):
        state, = self.peer.receive(HELD)["fds"]
        with os.fdopen(state) as file:
            return file.read()

    def file(self, name):
        return f"{self.place}/{name}"

    def read(self, name):
        try:
            with open(self.file(name)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def origins(self):
        return sorted(self.read("origins").split())

    def wait(self, condition, what, found=lambda: ""):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}; {found()}"
            time.sleep(0.01)

    def wait_for(self, name, text):
        self.wait(lambda: self.read(name) == text, f"{name} is {text!r}", lambda: repr(self.read(name)))

    def let(self, name):
        with open(self.file(name), "w"):
            pass

    def children(self, parent):
        out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(parent)], capture_output=True, text=True, check=False).stdout
        return {int(line.split()[0]): line.split()[1] for line in out.splitlines()}

    def stub(self):
        """The one stub of the script."""
        self.wait(lambda: "sckpt-srun" in self.children(self.root).values(), "a stub runs")
        return next(pid for pid, name in self.children(self.root).items() if name == "sckpt-srun")

    def restart(self, state, checkpoint=12):
        """Kills sckpt-run and its sruns, as a lost node would, but not the script; another sckpt-run takes it on as a restored tree."""
        sruns = [pid for pid in self.children(self.process.pid) if pid != self.root]
        for pid in [self.process.pid, *sruns]:
            with contextlib.suppress(ProcessLookupError):  # some end with sckpt-run
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.peer.close()
        environment = {**os.environ, "PLACE": self.place, "SLURM_JOB_NODELIST": "new", "SLURM_RESTART_COUNT": "1"}
        self.process = self.bench.run("echo", "never", restart_count=1, env=environment)
        self.peer = self.daemon.accept()
        status = socket.socket(fileno=hello(self.peer, restart_count=1))
        with tempfile.TemporaryFile("w+") as file:
            file.write(state)
            file.seek(0)
            self.peer.say(RESTORING, resume_from=checkpoint, fd=file.fileno())
            pidfd = os.pidfd_open(self.root)
            send_status(status, RESTORED, 0, pidfd)
            os.close(pidfd)
        self.peer.receive(STARTED)
        self.status = status

    def finish(self, wait_status=0):
        """The end of a script that is nobody's child any more: its output says what it was."""
        send_status(self.status, 2, wait_status)
        self.process.communicate(timeout=20)
        return os.waitstatus_to_exitcode(wait_status)

    def restored_script_ends(self):
        self.wait(lambda: not os.path.exists(f"/proc/{self.root}/exe"), "the script ends")
        self.finish()


def steps_of(state):
    return [re.sub(r"(running \d+ \d+|waiting) \d+", r"\1 PID", line) for line in state.splitlines() if line.startswith("step")]


# ---- an srun is the same
def a_stub_ends_as_its_srun(bench):
    script = Script(bench, "for end in 'exit 0' 'exit 7' 'exit 255' 'kill -9 $$' 'kill -TERM $$' 'kill -40 $$'; do\n"
                           "srun sh -c \"$end\"; echo $?\ndone 2>/dev/null; exec srun sh -c 'kill -USR2 $$'")
    expect(script.process, -signal.SIGUSR2, stdout="0\n7\n255\n137\n143\n168\n")
    assert script.origins() == [f"1:{key}:0" for key in range(7)], script.origins()
    assert script.peer.receive(ENDED)["wait_status"] == signal.SIGUSR2
    assert not os.path.exists(script.socket)


def an_srun_gets_what_its_stub_got(bench):
    describe = ("import os, resource, signal\n"
                "print(os.getcwd(), oct(os.umask(0)), os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_STACK))\n"
                "print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])\n"
                "print({int(n): os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3' and os.path.exists(f'/proc/self/fd/{n}')})\n"
                "print(sorted(k + v for k, v in os.environ.items() if k not in ('_', 'SCKPT_SUPERVISOR', 'PLACE')))\n")
    program = f"python3 -c \"{describe}\" \"\" 'a  b'"
    script = Script(bench, "cd /usr/share; umask 027; ulimit -Sn 500; ulimit -Ss 4000; trap '' USR1 HUP; export A='x y' EMPTY= BIG=$(head -c 100000 /dev/zero | tr '\\0' x)\n"
                           f"exec 5<>$PLACE/five 62</dev/zero; renice -n 3 $$ >/dev/null\n"
                           f"({program}) > $PLACE/plain 2>&1 < /dev/null; (srun {program}) > $PLACE/stub 2>&1 < /dev/null\n")
    expect(script.process, 0, stdout="")
    plain, stub = script.read("plain").replace("/plain", "/X"), script.read("stub").replace("/stub", "/X")
    assert plain == stub and "five" in plain, f"{plain}\n{stub}"


def a_closed_descriptor_is_dev_null(bench):
    script = Script(bench, "srun bash -c 'echo lost; readlink /proc/$$/fd/1 >&2' >&- <&-")
    expect(script.process, 0, "/dev/null\n", "")


def signals_go_to_the_srun(bench):
    catch = "trap \"echo USR1\" USR1; trap \"echo INT\" INT; trap \"echo TERM; exit 5\" TERM; echo up > $PLACE/up; while :; do sleep 0.02; done"
    script = Script(bench, f"trap '' INT; srun bash -c '{catch}' & wait $!; wait $!; echo $?")
    script.wait_for("up", "up\n")
    stub = script.stub()
    os.kill(stub, signal.SIGUSR1)
    os.kill(stub, signal.SIGTERM)
    expect(script.process, 0, stdout="USR1\nTERM\n5\n")


def a_stopped_stub_stops_its_srun(bench):
    script = Script(bench, "srun bash -c 'while :; do echo >> $PLACE/ticks; sleep 0.02; done' & wait $!; echo $?")
    stub = script.stub()
    script.wait(lambda: script.read("ticks"), "the step runs")
    os.kill(stub, signal.SIGTSTP)
    srun = next(pid for pid, name in script.children(script.process.pid).items() if pid != script.root and name != "sckpt-run")
    state = lambda pid: open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
    script.wait(lambda: state(stub) == "T" and state(srun) == "T", "both stop")
    os.kill(stub, signal.SIGCONT)
    ticks = len(script.read("ticks"))
    script.wait(lambda: len(script.read("ticks")) > ticks and state(stub) != "T", "both go on")
    os.kill(stub, signal.SIGKILL)
    expect(script.process, 0, "Killed", "137\n")


def a_killed_stub_kills_its_srun(bench):
    script = Script(bench, "srun bash -c 'echo $$ > $PLACE/srun; sleep 600' & wait $!; echo $?; until [ -e $PLACE/enough ]; do sleep 0.02; done")
    script.wait(lambda: script.read("srun").strip(), "the srun runs")
    os.kill(script.stub(), signal.SIGKILL)
    script.wait(lambda: not os.path.exists(f"/proc/{script.read('srun').strip()}"), "the srun is gone")
    assert steps_of(script.hold()) == []
    script.peer.say(GO_ON)
    script.let("enough")
    expect(script.process, 0, "Killed", "137\n")


def many_sruns_at_once(bench):
    script = Script(bench, "for i in $(seq 50); do srun sh -c \"exit $i\" & all+=\" $!\"; done; sum=0; for p in $all; do wait $p; sum=$((sum + $?)); done; echo $sum")
    expect(script.process, 0, stdout="1275\n")
    assert len(set(script.origins())) == 50


def without_the_directory_sruns_are_left_alone(bench):
    daemon = Daemon(bench.path)
    process = bench.run("bash", "-c", "echo ${SCKPT_SUPERVISOR-none}", env={**os.environ, "SCKPT_SUPERVISOR": "/run/of/another/job-9.sock"})
    peer = daemon.accept()
    hello(peer)
    peer.say(LAUNCH)
    expect(process, 0, stdout="none\n")


# ---- standard input
def standard_input_goes_through(bench):
    text = "x" * 300_000 + "\nend\n"
    with open(os.path.dirname(bench.path) + "/input", "w") as file:
        file.write(text)
    script = Script(bench, "READS=1 srun md5sum < $PLACE/input; cat $PLACE/input | READS=1 srun md5sum; READS=1 srun cat <<< here\n"
                           "READS=1 srun true < $PLACE/input; (srun true; cat) < <(echo left alone); READS=1 srun cat < /dev/null; echo end")
    out, _ = script.process.communicate(timeout=60)
    sums = {line.split()[0] for line in out.splitlines() if line.endswith("  -")}
    assert len(sums) == 1 and out.splitlines()[2:] == ["here", "left alone", "end"], out


def input_is_replayed_after_a_restart(bench):
    script = Script(bench, "(echo one; sleep 600 & echo $! > $PLACE/writer; wait $!; echo two) | READS=1 srun bash -c 'cat >> $PLACE/seen' & wait $!\n"
                           "echo $? > $PLACE/end")
    script.wait_for("seen", "one\n")
    state = script.hold()
    assert steps_of(state) == ["step 0 running 5 4 PID"], state
    script.restart(state)
    script.wait_for("seen", "one\none\n")
    os.kill(int(script.read("writer")), signal.SIGTERM)
    script.wait_for("end", "0\n")
    assert script.read("seen") == "one\none\ntwo\n"
    assert script.origins() == ["1:0:0", "1:0:12"]
    script.restored_script_ends()


def too_much_input_is_told(bench):
    script = Script(bench, "(head -c 70000000 /dev/zero; sleep 600) | READS=1 srun bash -c 'head -c 70000000 | wc -c > $PLACE/count; sleep 600'")
    script.wait(lambda: script.read("count") == "70000000\n", "everything is read")
    state = script.hold()
    assert "unreplayable 0" in state
    os.kill(int(re.search(r"running 5 4 (\d+)", state)[1]), signal.SIGKILL)
    os.killpg(script.root, signal.SIGKILL)
    expect(script.process, -signal.SIGKILL)


# ---- dumps
def has_socket(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    return any("socket" in name for name in names)


def a_hold_leaves_no_connection(bench):
    script = Script(bench, "srun bash -c 'until [ -e $PLACE/go ]; do sleep 0.02; done; exit 4' & wait $!; echo $?; srun true; echo $?")
    stub = script.stub()
    script.hold_once(lambda state: "running" in state)
    script.wait(lambda: not has_socket(stub), "the stub has no socket, but for the moments in which it tries whether it is let in")
    assert os.path.exists(script.socket)
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(script.socket)
        raise AssertionError("somebody listens")
    except ConnectionRefusedError:
        pass
    script.let("go")   # the srun ends, and nobody is told
    script.wait(lambda: steps_of(script.hold()) == ["step 0 ended 1024"], "the end is known")
    assert os.path.exists(f"/proc/{stub}")
    script.peer.say(GO_ON)
    expect(script.process, 0, stdout="4\n0\n")
    assert script.origins() == ["1:0:0", "1:1:0"]


def an_srun_that_begins_in_a_hold_waits(bench):
    script = Script(bench, "until [ -e $PLACE/now ]; do sleep 0.02; done; srun echo begun; true")
    assert steps_of(script.hold()) == []
    script.let("now")
    script.stub()
    time.sleep(0.2)
    assert not script.origins()
    script.peer.say(GO_ON)
    expect(script.process, 0, stdout="begun\n")


def an_srun_that_gets_its_step_in_a_hold_waits(bench):
    script = Script(bench, "QUEUED=turn srun echo begun; true")
    script.wait(script.origins, "the srun waits")
    assert steps_of(script.hold()) == ["step 0 waiting PID"]
    script.let("turn")
    time.sleep(0.2)
    assert steps_of(script.hold()) == ["step 0 waiting PID"]
    script.peer.say(GO_ON)
    expect(script.process, 0, stdout="begun\n")


def a_lost_daemon_ends_the_hold(bench):
    script = Script(bench, "srun bash -c 'until [ -e $PLACE/go ]; do sleep 0.02; done' & wait $!; srun echo next")
    script.stub()
    script.hold()
    script.let("go")
    script.peer.close()
    script.daemon.close()
    out, err = script.process.communicate(timeout=30)
    assert out == "next\n", (out, err)


def a_stub_that_cannot_let_go_holds_nothing_up(bench):
    script = Script(bench, "srun bash -c 'until [ -e $PLACE/go ]; do sleep 0.02; done; echo done'; true")
    stub = script.stub()
    script.wait(script.origins, "the step runs")
    os.kill(stub, signal.SIGSTOP)
    begin = time.monotonic()
    script.hold()
    assert 1.5 < time.monotonic() - begin < 10
    os.kill(stub, signal.SIGCONT)
    script.peer.say(GO_ON)
    script.let("go")
    expect(script.process, 0, stdout="done\n")


# ---- restarts
def every_step_ends_once(bench):
    """One step had ended and its stub did not know yet, one ran, one had not begun; and the script starts another one afterwards."""
    script = Script(bench, "srun bash -c 'until [ -e $PLACE/ended ]; do sleep 0.02; done; exit 6' & a=$!\n"
                           "until [ -s $PLACE/origins ]; do sleep 0.02; done\n"
                           "srun bash -c 'until [ -e $PLACE/end ]; do sleep 0.02; done; echo $SLURM_JOB_NODELIST $SLURM_OPEN_MODE > $PLACE/list; exit 7' & b=$!\n"
                           "until [ $(wc -l < $PLACE/origins) = 2 ]; do sleep 0.02; done\n"
                           "QUEUED=turn srun bash -c 'exit 8' & c=$!\n"
                           "for p in $a $b $c; do wait $p; echo $? >> $PLACE/ends; done; srun bash -c 'exit 9'; echo $? >> $PLACE/ends")
    script.wait(lambda: len(script.origins()) == 3, "all are started")
    script.hold_once(lambda state: re.findall("running|waiting", state) == ["running", "running", "waiting"])
    script.let("ended")
    script.wait(lambda: "step 0 ended 1536" in script.hold(), "one has ended")
    state = script.hold()
    assert not script.read("ends")
    script.restart(state)
    script.wait_for("ends", "6\n")
    script.let("end")
    script.let("turn")
    script.wait_for("ends", "6\n7\n8\n9\n")
    assert script.origins() == ["1:0:0", "1:1:0", "1:1:12", "1:2:0", "1:2:0", "1:3:0"], script.origins()
    assert script.read("list") == "new a\n", script.read("list")
    script.restored_script_ends()


def a_step_that_has_not_come_back_is_not_new(bench):
    """Between a restart and the moment when a step runs again, its state is that it runs: another restart must not begin it anew."""
    script = Script(bench, "srun sleep 600 & wait $!")
    state = script.hold_once(lambda state: "running" in state)
    stub = script.stub()
    os.kill(stub, signal.SIGSTOP)   # it does not come back yet
    script.restart(state)
    assert steps_of(script.hold()) == ["step 0 running 5 4 PID"]
    os.kill(stub, signal.SIGCONT)
    os.killpg(script.root, signal.SIGKILL)
    script.restored_script_ends()


def a_stub_of_an_unknown_step_is_not_started(bench):
    script = Script(bench, "srun sleep 600 2> $PLACE/error & wait $!; echo $? > $PLACE/end")
    script.hold_once(lambda state: "running" in state)
    script.restart("next 0\n")
    script.wait_for("end", "75\n")
    assert "does not start it again" in script.read("error"), script.read("error")
    script.restored_script_ends()


def a_bad_state_is_refused(bench):
    daemon = Daemon(bench.path)
    process = bench.run("echo", "never", restart_count=1)
    peer = daemon.accept()
    os.close(hello(peer, restart_count=1))
    with tempfile.TemporaryFile("w+") as file:
        file.write("rubbish\n")
        file.seek(0)
        peer.say(RESTORING, fd=file.fileno())
    expect(process, 75, "the state of sckpt-run has a bad line: rubbish", "")


SCENARIOS = {f.__name__: f for f in (
    a_stub_ends_as_its_srun, an_srun_gets_what_its_stub_got, a_closed_descriptor_is_dev_null, signals_go_to_the_srun, a_stopped_stub_stops_its_srun,
    a_killed_stub_kills_its_srun, many_sruns_at_once, without_the_directory_sruns_are_left_alone, standard_input_goes_through,
    input_is_replayed_after_a_restart, too_much_input_is_told, a_hold_leaves_no_connection, an_srun_that_begins_in_a_hold_waits,
    an_srun_that_gets_its_step_in_a_hold_waits, a_lost_daemon_ends_the_hold, a_stub_that_cannot_let_go_holds_nothing_up, every_step_ends_once,
    a_step_that_has_not_come_back_is_not_new, a_stub_of_an_unknown_step_is_not_started, a_bad_state_is_refused, *fake_step_tasks.SCENARIOS)}


def end_all_that_was_started():
    """This process is the one that orphans come to."""
    def children():
        out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False).stdout
        return [int(line.split()[0]) for line in out.splitlines() if line.split()[1] != "ps"]

    while pids := children():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(" ".join(SCENARIOS))
    else:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        with tempfile.TemporaryDirectory() as place:
            try:
                SCENARIOS[sys.argv[1]](Bench(place))
            finally:
                end_all_that_was_started()
        print("ok")
