# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload: threads that compute, child processes that answer over pipes, output lines and an appended file.

threads_children.py STEPS PACE: the output depends on STEPS alone, whatever happens to the process in between. PACE seconds a step, and the last
one not before there is no file `hold`."""
import os
import queue
import sys
import threading
import time

STEPS, PACE = int(sys.argv[1]), float(sys.argv[2])
THREADS, CHILDREN = 3, 2


def compute(seed, step):
    x = seed
    for i in range(2000):
        x = (x * 1103515245 + step + i) & 0x7FFFFFFF
    return x


def worker(seed, tasks, answers):
    while (step := tasks.get()) is not None:
        answers.put(compute(seed, step))


def child(read_end, write_end):
    """Answers each number with its hash, with state of its own that a restart must not lose."""
    state = 1
    with os.fdopen(read_end) as lines, os.fdopen(write_end, "w") as out:
        for line in lines:
            state = compute(state, int(line))
            out.write(f"{state}\n")
            out.flush()
    os._exit(0)


def start_child():
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    if os.fork() == 0:
        os.close(to_write)
        os.close(from_read)
        child(to_read, from_write)
    os.close(to_read)
    os.close(from_write)
    return os.fdopen(to_write, "w"), os.fdopen(from_read)


children = [start_child() for _ in range(CHILDREN)]
workers = []
for seed in range(THREADS):
    tasks, answers = queue.Queue(), queue.Queue()
    threading.Thread(target=worker, args=(seed, tasks, answers), daemon=True).start()
    workers.append((tasks, answers))

with open("steps.txt", "a", encoding="ascii") as steps:
    for step in range(STEPS):
        for tasks, _ in workers:
            tasks.put(step)
        total = sum(answers.get() for _, answers in workers)
        for to, _ in children:
            to.write(f"{total + step}\n")
            to.flush()
        replies = [int(back.readline()) for _, back in children]
        print("step", step, total, *replies, flush=True)
        steps.write(f"{step} {sum(replies)}\n")
        steps.flush()
        time.sleep(PACE)
        while step == STEPS - 2 and os.path.exists("hold"):
            time.sleep(PACE)

for to, back in children:
    to.close()
    back.close()
for _ in children:
    assert os.wait()[1] == 0
print("end", len(children), "children")
