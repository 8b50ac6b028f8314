# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays a sckptd that makes no checkpoint, but holds every sckpt-run as if it were about to, again and again: holding_sckptd.py SOCKET, as root."""
import os
import random
import socket
import sys
import threading
import time

from fake_sckptd import GO_ON, HELD, HOLD, LAUNCH, MESSAGE, Daemon

HELLO, STARTED = 1, 2


def receive(peer):
    """The next message's kind; None when the peer has gone."""
    try:
        data, fds, _, _ = socket.recv_fds(peer.connection, 4096, 8)
    except OSError:
        return None
    for fd in fds:
        os.close(fd)
    return MESSAGE.unpack(data)[2] if data else None


def serve(peer):
    peer.connection.settimeout(None)
    if receive(peer) != HELLO:
        return
    peer.say(LAUNCH)  # one that reconnects takes no notice
    kind = receive(peer)
    try:
        while kind == STARTED or kind == HELD:
            if kind == HELD:
                time.sleep(random.uniform(0, 0.2))
                peer.say(GO_ON)
            time.sleep(random.uniform(0.01, 0.3))
            peer.say(HOLD)
            kind = receive(peer)
    except OSError:
        pass  # it has ended
    peer.close()


if __name__ == "__main__":
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    os.umask(0)
    daemon = Daemon(sys.argv[1])
    daemon.listener.listen(128)
    daemon.listener.settimeout(None)
    while True:
        threading.Thread(target=serve, args=(daemon.accept(),), daemon=True).start()
