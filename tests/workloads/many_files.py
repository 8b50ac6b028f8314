# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload: several files written at once, some held open all the time, some opened again for each line, in folders of their own.

many_files.py STEPS PACE: what the files hold at the end depends on STEPS alone. Files only grow. The last step waits until there is no file
`hold`."""
import os
import sys
import time

STEPS, PACE, HELD = int(sys.argv[1]), float(sys.argv[2]), 8

os.makedirs("held", exist_ok=True)
held = [open(f"held/{n}.log", "a", encoding="ascii") for n in range(HELD)]
binary = os.open("held/binary", os.O_WRONLY | os.O_CREAT, 0o600)   # not O_APPEND: its offset must come back
value = 7
for step in range(STEPS):
    value = (value * 1664525 + 1013904223 + step) & 0xFFFFFFFF
    for n, file in enumerate(held):
        file.write(f"{step} {value ^ n} {'x' * (value % 50)}\n")
        file.flush()
    os.write(binary, value.to_bytes(4, "little") * 100)
    print("step", step, value, flush=True)
    time.sleep(PACE)
    while step == STEPS - 2 and os.path.exists("hold"):
        time.sleep(PACE)
for file in held:
    file.close()
os.close(binary)
print("end", value)
