# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of fake_steps.py: the sckpt-run of a step's task, with what Slurm's step would give it as standard input."""
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

from fake_sckptd import ENDED, FINISH, GO_ON, HELD, HOLD, LAUNCH, RESTORED, RESTORING, STARTED, Daemon, expect, send_status


def task(bench, *program, resume_from=0, stdin=subprocess.DEVNULL):
    daemon = Daemon(bench.path)
    process = bench.run(*program, step=3, stdin=stdin, more=["--step-key=5", f"--resume-from={resume_from}", "--tasks=9"])
    peer = daemon.accept()
    return process, peer, peer.receive_hello()


def close_input(process):
    process.stdin.close()
    process.stdin = None  # or communicate(), which takes the rest of the output, would flush it


def close_all(fds):
    for fd in fds:
        os.close(fd)


def a_task_says_what_it_is(bench):
    process, peer, said = task(bench, "echo", "never", resume_from=12)
    assert (said["step_key"], said["tasks"], said["resume_from"]) == (5, 9, 12), said
    close_all(said["fds"])
    peer.say(FINISH, wait_status=signal.SIGUSR1)
    expect(process, -signal.SIGUSR1, stdout="")


def a_task_that_goes_on_waits_for_its_word(bench):
    process, peer, said = task(bench, "echo", "begun", resume_from=12)
    close_all(said["fds"])
    time.sleep(3)
    assert process.poll() is None
    peer.say(LAUNCH)
    expect(process, 0, stdout="begun\n")
    peer.receive(STARTED)
    assert peer.receive(ENDED)["wait_status"] == 0


def state_of(peer):
    peer.say(HOLD)
    state, = peer.receive(HELD)["fds"]
    with os.fdopen(state) as file:
        return int(re.search(r"stdin (\d+)", file.read())[1])


def consumed_input_is_counted(bench):
    process, peer, said = task(bench, "bash", "-c", "head -c 5; echo; read -r line; echo \"$line\"; until [ -e $0 ]; do sleep 0.02; done; cat; echo end",
                               f"{bench.path}.go", stdin=subprocess.PIPE)
    peer.say(LAUNCH)
    peer.receive(STARTED)
    process.stdin.write("12345line\nrest ")
    process.stdin.flush()
    assert process.stdout.readline() == "12345\n" and process.stdout.readline() == "line\n"
    assert state_of(peer) == 10
    process.stdin.write("and more\n")
    close_input(process)
    with open(f"{bench.path}.go", "w"):
        pass
    time.sleep(0.1)
    assert state_of(peer) == 10 and process.poll() is None   # nothing moves, and the end is not seen either
    peer.say(GO_ON)
    expect(process, 0, stdout="rest and more\nend\n")


def ended_input_is_not_ended_by_a_hold(bench):
    process, peer, said = task(bench, "bash", "-c", "echo up; until [ -e $0 ]; do sleep 0.02; done; cat", f"{bench.path}.go", stdin=subprocess.PIPE)
    peer.say(LAUNCH)
    peer.receive(STARTED)
    process.stdin.write("x" * 60_000)
    close_input(process)
    assert process.stdout.readline() == "up\n"
    for _ in range(3):
        assert state_of(peer) == 0
        peer.say(GO_ON)
    with open(f"{bench.path}.go", "w"):
        pass
    expect(process, 0, stdout="x" * 60_000)


def holds_do_not_disturb_the_input(bench):
    process, peer, said = task(bench, "md5sum", stdin=subprocess.PIPE)
    peer.say(LAUNCH)
    peer.receive(STARTED)
    before = 0
    for turn in range(100):
        process.stdin.write(f"{turn:0100000}")
        process.stdin.flush()
        consumed = state_of(peer)
        assert before <= consumed <= (turn + 1) * 100_000
        before = consumed
        peer.say(GO_ON)
    close_input(process)
    expected = subprocess.run(["md5sum"], input="".join(f"{turn:0100000}" for turn in range(100)), capture_output=True, text=True, check=True).stdout
    expect(process, 0, stdout=expected)


def consumed_input_is_left_out_after_a_restart(bench):
    process, peer, said = task(bench, "echo", "never", resume_from=12, stdin=subprocess.PIPE)
    inherited, status = said["fds"][0], socket.socket(fileno=said["fds"][3])
    close_all(said["fds"][1:3])
    with tempfile.TemporaryFile("w+") as file:
        file.write("next 0\nstdin 100000\n")
        file.seek(0)
        peer.say(RESTORING, resume_from=12, fd=file.fileno())
    child = subprocess.Popen(["cat"], stdin=inherited, stdout=subprocess.PIPE, text=True, start_new_session=True)
    pidfd = os.pidfd_open(child.pid)
    send_status(status, RESTORED, 0, pidfd)
    os.close(pidfd)
    peer.receive(STARTED)
    process.stdin.write("x" * 100_000 + "rest\n")
    close_input(process)
    assert child.stdout.readline() == "rest\n"
    os.close(inherited)
    assert child.wait(20) == 0   # it has seen the end
    send_status(status, 2, 0)
    expect(process, 0, stdout="")


SCENARIOS = (a_task_says_what_it_is, a_task_that_goes_on_waits_for_its_word, consumed_input_is_counted, ended_input_is_not_ended_by_a_hold,
             holds_do_not_disturb_the_input, consumed_input_is_left_out_after_a_restart)
