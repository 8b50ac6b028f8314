# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays sckptd to a real sckpt-run, one scenario a run: fake_sckptd.py SCENARIO. Prints "ok" or fails with what was wrong.
The scenarios are what a real sckptd does too seldom for a test: hanging, dying, refusing, restoring and losing the restored tree."""
import array
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

SUPERVISOR = "/usr/libexec/sckpt/sckpt-run"
MESSAGE = struct.Struct("=12IqiIqi1024s4x")   # rpc/local.h: Message
HELLO, STARTED, LAUNCH, RESTORING, REFUSED, NOTE, HOLD, HELD, GO_ON, ENDED, FINISH = range(1, 12)
RESTORED, EXITED = 1, 2
BATCH = 0xfffffffb


class Peer:
    def __init__(self, connection):
        connection.settimeout(20)
        self.connection = connection

    def receive(self, kind):
        data, fds, _, _ = socket.recv_fds(self.connection, 4096, 8)
        message = MESSAGE.unpack(data)
        assert message[:2] == (0x73636b70, 3), message
        assert message[2] == kind, f"kind {message[2]}, not {kind}"
        return {"fds": fds, "step_key": message[6], "tasks": message[7], "resume_from": message[8], "restart_count": message[11],
                "interval": message[12], "reconnect": message[14], "pid": message[15], "wait_status": message[16]}

    def receive_hello(self):
        return self.receive(HELLO)

    def say(self, kind, text="", version=3, resume_from=0, wait_status=0, fd=None):
        message = MESSAGE.pack(0x73636b70, version, kind, 0, 0, 0, 0, 1, resume_from, 0, 0, 0, 0, -1, 0, 0, wait_status, text.encode())
        socket.send_fds(self.connection, [message], [] if fd is None else [fd])

    def close(self):
        self.connection.close()


class Daemon:
    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        self.listener.settimeout(20)

    def accept(self):
        return Peer(self.listener.accept()[0])

    def close(self):
        self.listener.close()


class Bench:
    """A folder, and what was started in it."""

    def __init__(self, folder):
        self.path = folder + "/sckptd.sock"

    def run(self, *program, restart_count=0, step=BATCH, more=(), stdin=subprocess.DEVNULL, env=None):
        argv = [SUPERVISOR, "--job=1", f"--step={step}", "--task=0", f"--restart-count={restart_count}", "--interval=60",
                "--max-restarts=-1", f"--socket={self.path}", *more, "--", *program]
        self.started = time.monotonic()
        return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env)

    def seconds(self):
        return time.monotonic() - self.started


def expect(process, code, stderr="", stdout=None):
    out, err = process.communicate(timeout=80)
    assert process.returncode == code, f"exit {process.returncode}, not {code}: {err}"
    assert stderr in err if stderr else err == "", f"stderr {err!r}"
    assert stdout is None or out == stdout, f"stdout {out!r}"
    return err


def hello(peer, reconnect=0, restart_count=0):
    message = peer.receive(HELLO)
    assert (message["reconnect"], message["restart_count"], len(message["fds"])) == (reconnect, restart_count, 4), message
    for fd in message["fds"][:3]:
        os.close(fd)
    return message["fds"][3]


def launches_as_told(bench):
    daemon = Daemon(bench.path)
    process = bench.run("sh", "-c", "echo hi; exit 7")
    peer = daemon.accept()
    hello(peer)
    peer.say(NOTE, "a note")
    peer.say(LAUNCH)
    started = peer.receive(STARTED)
    assert started["pid"] > 0 and len(started["fds"]) == 1
    expect(process, 7, "sckpt: a note\n", "hi\n")


def hanging_costs_two_seconds(bench):
    daemon = Daemon(bench.path)
    process = bench.run("true")
    peer = daemon.accept()
    assert "did not answer" in expect(process, 0, "job runs without checkpoints")
    assert 1.9 < bench.seconds() < 4, bench.seconds()
    peer.close()


def full_backlog_costs_two_seconds(bench):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(bench.path)
    listener.listen(0)
    fill = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fill.connect(bench.path)
    expect(bench.run("true"), 0, "job runs without checkpoints")
    assert 1.9 < bench.seconds() < 4, bench.seconds()


def missing_costs_a_step_nothing(bench):
    err = expect(bench.run("true", step=3), 0, "this node has no sckptd")
    assert bench.seconds() < 1.5 and err.count("\n") == 1, (bench.seconds(), err)


def reconnects_after_a_restart(bench):
    daemon = Daemon(bench.path)
    process = bench.run("sleep", "600")
    peer = daemon.accept()
    hello(peer)
    peer.say(LAUNCH)
    pid = peer.receive(STARTED)["pid"]
    peer.close()
    daemon.close()
    os.unlink(bench.path)
    daemon = Daemon(bench.path)
    peer = daemon.accept()
    hello(peer, reconnect=1)
    assert peer.receive(STARTED)["pid"] == pid
    os.kill(pid, signal.SIGTERM)
    expect(process, -signal.SIGTERM)


def late_daemon_finds_an_unprotected_job(bench):
    process = bench.run("sleep", "600", step=3)
    time.sleep(0.3)
    daemon = Daemon(bench.path)
    peer = daemon.accept()
    hello(peer, reconnect=1)
    os.kill(peer.receive(STARTED)["pid"], signal.SIGKILL)
    expect(process, -signal.SIGKILL, "job runs without checkpoints")


def refusal_ends_with_75(bench):
    daemon = Daemon(bench.path)
    process = bench.run("echo", "never", restart_count=1)
    peer = daemon.accept()
    hello(peer, restart_count=1)
    peer.say(REFUSED, "no image of this job is left")
    expect(process, 75, "sckpt: no image of this job is left\n", "")


def another_version_is_not_obeyed(bench):
    daemon = Daemon(bench.path)
    process = bench.run("true")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        peer = daemon.accept()
        hello(peer)
        peer.say(REFUSED, "?", version=1)
    daemon.close()
    expect(process, 0, "job runs without checkpoints")


def a_signal_ends_the_waiting(bench):
    daemon = Daemon(bench.path)
    process = bench.run("echo", "never", restart_count=1)
    peer = daemon.accept()
    hello(peer, restart_count=1)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    expect(process, -signal.SIGTERM, stdout="")


def restored(bench, *program):
    """sckpt-run waits for a tree that is not its own; this process is the tree's init."""
    daemon = Daemon(bench.path)
    process = bench.run("echo", "never", restart_count=2)
    peer = daemon.accept()
    status = socket.socket(fileno=hello(peer, restart_count=2))
    peer.say(RESTORING)
    child = subprocess.Popen(program, start_new_session=True, stdout=subprocess.PIPE, text=True)
    pidfd = os.pidfd_open(child.pid)
    send_status(status, RESTORED, 0, pidfd)
    os.close(pidfd)
    assert peer.receive(STARTED)["pid"] == child.pid
    return process, status, child


def send_status(status, what, wait_status, pidfd=None):
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))] if pidfd is not None else []
    status.sendmsg([struct.pack("=Ii", what, wait_status)], control)


def a_restored_tree_ends_the_job(bench):
    process, status, child = restored(bench, "bash", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.02; done")
    assert child.stdout.readline() == "up\n"
    process.send_signal(signal.SIGUSR1)
    send_status(status, EXITED, os.waitpid(child.pid, 0)[1])
    expect(process, 9, stdout="")


def a_killed_restored_tree_kills_the_job(bench):
    process, status, child = restored(bench, "sleep", "600")
    os.killpg(process.pid, signal.SIGTERM)
    send_status(status, EXITED, os.waitpid(child.pid, 0)[1])
    expect(process, -signal.SIGTERM)


def a_lost_init_kills_the_job(bench):
    process, status, child = restored(bench, "sleep", "600")
    status.close()
    expect(process, -signal.SIGKILL)
    child.kill()


def a_restore_given_up_is_refused(bench):
    daemon = Daemon(bench.path)
    process = bench.run("echo", "never", restart_count=2)
    peer = daemon.accept()
    status = hello(peer, restart_count=2)
    peer.say(RESTORING)
    os.close(status)
    time.sleep(0.1)
    peer.say(REFUSED, "the image cannot be restored")
    expect(process, 75, "sckpt: the image cannot be restored\n", "")


def a_daemon_lost_while_restoring_is_asked_again(bench):
    daemon = Daemon(bench.path)
    process = bench.run("echo", "launched", restart_count=2)
    peer = daemon.accept()
    status = hello(peer, restart_count=2)
    peer.say(RESTORING)
    peer.close()
    os.close(status)
    peer = daemon.accept()
    hello(peer, restart_count=2)
    peer.say(LAUNCH)
    expect(process, 0, stdout="launched\n")


def no_daemon_refuses_a_restart(bench):
    err = expect(bench.run("echo", "never", restart_count=1), 75, "not started from the beginning", "")
    assert err.count("\n") == 1 and 59 < bench.seconds() < 70, (err, bench.seconds())


def group_signals_are_told_apart(bench):
    """The sentinel: kill(2) reaches the script, killpg(2) the script and its child, however fast they follow each other."""
    counter = ("import signal, sys, os, time\n"
               "child = os.fork()\n"
               "name = 's' if child else 'c'\n"
               "signal.signal(signal.SIGRTMIN, lambda *_: os.write(1, name.encode()))\n"
               "os.write(1, b'U')\n"
               "while True: time.sleep(10)\n")
    process = bench.run("python3", "-c", counter, step=3)
    seen = ""
    while seen.count("U") < 2:
        seen += os.read(process.stdout.fileno(), 100).decode()
    for turn in range(300):
        to_group = turn % 3 == 0
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGRTMIN)
        got = ""
        while len(got) < (2 if to_group else 1):
            got += os.read(process.stdout.fileno(), 100).decode()
        assert sorted(got) == (["c", "s"] if to_group else ["s"]), f"turn {turn}: {got}"
    os.killpg(process.pid, signal.SIGTERM)
    expect(process, -signal.SIGTERM, "job runs without checkpoints")


SCENARIOS = {f.__name__: f for f in (
    launches_as_told, hanging_costs_two_seconds, full_backlog_costs_two_seconds, missing_costs_a_step_nothing,
    reconnects_after_a_restart, late_daemon_finds_an_unprotected_job, refusal_ends_with_75, another_version_is_not_obeyed,
    a_signal_ends_the_waiting, a_restored_tree_ends_the_job, a_killed_restored_tree_kills_the_job, a_lost_init_kills_the_job,
    a_restore_given_up_is_refused, a_daemon_lost_while_restoring_is_asked_again, no_daemon_refuses_a_restart,
    group_signals_are_told_apart)}

if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(" ".join(SCENARIOS))
    else:
        with tempfile.TemporaryDirectory() as place:
            SCENARIOS[sys.argv[1]](Bench(place))
        print("ok")
