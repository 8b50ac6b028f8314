# SPDX-License-Identifier: GPL-3.0-or-later
"""Lies to sckptd's socket: rogue_client.py SCENARIO [ARGUMENT…]. Prints one line: what sckptd did about it."""
import os
import socket
import struct
import sys
import time

SOCKET = "/run/sckpt/sckptd.sock"
MESSAGE = struct.Struct("=12IqiIqi1024s4x")   # rpc/local.h: Message
MAGIC, VERSION, BATCH = 0x73636b70, 3, 0xfffffffb
HELLO, STARTED, LAUNCH, RESTORING, REFUSED, NOTE = range(1, 7)


def message(kind, job=1, restart_count=0, reconnect=0, pid=0, magic=MAGIC, version=VERSION, text=b""):
    return MESSAGE.pack(magic, version, kind, job, BATCH, 0, 0, 1, 0, 0, 0, restart_count, 0, -1, reconnect, pid, 0, text)


def connect():
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(20)
    while True:
        try:
            client.connect(SOCKET)
            return client
        except BlockingIOError:  # the queue of connections is full
            time.sleep(0.01)


def say(client, data, fds=4):
    null = os.open("/dev/null", os.O_RDWR)
    socket.send_fds(client, [data], [null] * fds)
    os.close(null)


def answer(client):
    """The kind of the next message with its text, or "closed"."""
    try:
        data = client.recv(4096)
    except ConnectionError:
        return "closed"
    if not data:
        return "closed"
    fields = MESSAGE.unpack(data)
    return f"{fields[2]} " + fields[-1].split(b"\0")[0].decode(errors="replace")


def malformed():
    """Each of these is answered by closing the connection."""
    good = message(HELLO)
    bad = {"short": (good[:40], 4), "long": (good + b"x" * 100, 4), "huge": (b"y" * 100000, 4), "byte": (b"\0", 0), "no descriptors": (good, 0),
           "few descriptors": (good, 2), "many descriptors": (good, 8), "too many descriptors": (good, 30), "magic": (message(HELLO, magic=1), 4),
           "version": (message(HELLO, version=99), 4), "kind": (message(77), 4), "started first": (message(STARTED, pid=1), 4),
           "text without end": (message(REFUSED, text=b"z" * 1024), 4)}
    survived = []
    for name, (data, fds) in bad.items():
        with connect() as client:
            say(client, data, fds)
            if answer(client) != "closed":
                survived.append(name)
    return "all refused" if not survived else f"accepted: {survived}"


def started(job, *pids):
    """A hello for somebody's job, and the claim that its payload is one of these processes."""
    refused = 0
    for pid in pids:
        with connect() as client:
            say(client, message(HELLO, int(job)))
            assert answer(client).startswith(f"{LAUNCH} "), "no answer to hello"
            say(client, message(STARTED, int(job), pid=int(pid)), 1)
            refused += answer(client) == "closed"
    return f"refused {refused} of {len(pids)}"


def own(job):
    """A process of the right user and a session leader, but in no job's cgroup."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    try:
        return started(job, pid)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def resume(job):
    """Asks for the restore of a job."""
    with connect() as client:
        say(client, message(HELLO, int(job), restart_count=1))
        return answer(client)


def displace(job):
    """Takes the names of somebody's task again and again, and goes away."""
    for _ in range(20):
        with connect() as client:
            say(client, message(HELLO, int(job)))
            answer(client)
    return "done"


def crowd(count):
    """Idle and half-said connections, held until standard input ends; the count is of those that could be opened."""
    held = []
    for number in range(int(count)):
        try:
            held.append(connect())
            if number % 2:
                say(held[-1], message(HELLO, 1, reconnect=1))
        except OSError:
            continue  # closed by sckptd already
    print(f"open {len(held)}", flush=True)
    sys.stdin.read()
    return "done"


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*sys.argv[2:]), flush=True)
