# SPDX-License-Identifier: GPL-3.0-or-later
"""The image store, against what one might take in its place, and against the machine's limits. All figures are ratios of what was measured
in this very run, on images of real programs that the real CRIU has dumped: medians of ROUNDS runs, each against its peer in the same round.

Repositories lie on the disk, images and what is read back in memory. Everybody's time ends when all is durable: peers' by syncfs(2).
  cold, incremental    an image into an empty repository; the next image of the same program after it (of the stencil 20 % has changed)
  back                 the second image, with everything verified that the tool can verify
Nothing is left behind: all is in the bed's own memory and folder."""
import shutil
import statistics
from pathlib import Path

from figures import Figures, say
import settings
import store_drain
import store_images
import store_peers
from lib import Bed

ROUNDS = 5
DISK, MEMORY = settings.BED / "bench", Path("/run/bench")
# the least that ours must be faster: (stencil, objects)
FASTER = {("restic", 0): (6, 2.5), ("borg", 0): (3, 2), ("restic", 1): (7, 4), ("restic", 2): (3, 2)}
PHASES = ("cold", "incremental", "back")


def add_peers(figures, name, column, rounds):
    for peer in ("restic", "borg", "cp", "tar | zstd -1"):
        for phase, what in enumerate(PHASES):
            goal = FASTER.get((peer, phase))
            ratios = [times[peer][phase] / times["sckpt"][phase] for times, _ in rounds]
            figures.spread(f"{name}, {what}: times as fast as {peer}", ratios, "x", f">= {goal[column]}" if goal else None,
                           (lambda m, g=goal: m >= g[column]) if goal else None)


def add_sizes(figures, name, images, rounds):
    said = rounds[0][1]
    whole = sum(file.stat().st_size for file in images[1].rglob("*") if file.is_file())
    changed = store_images.changed_bytes(*images)
    limit, written = (1.02, 0.17) if name == "stencil" else (1.4, None)
    share = said["new_bytes"] / whole
    figures.add(f"{name}: bytes written for the second image, of its size", share, "", f"<= {written}" if written else None,
                share <= written if written else None)
    new = said["new_plain_bytes"] / changed
    figures.add(f"{name}: new bytes, by truly changed 4 KiB pages", new, "", f"<= {limit}", new <= limit)
    figures.add(f"{name}: truly changed, of the image", changed / whole, "")


def add_store(figures, bed):
    for column, name in enumerate(store_images.PROGRAMS):
        say(f"{name}: two checkpoints")
        images = store_images.take_images(bed, name, 2, MEMORY)
        rounds = []
        for number in range(ROUNDS):
            say(f"{name}: round {number + 1} of {ROUNDS}")
            rounds.append(store_peers.one_round(images, number, DISK, MEMORY))
        add_peers(figures, name, column, rounds)
        if name == "stencil":
            ratios = [times["sckpt"][1] / times["cp"][1] for times, _ in rounds]
            figures.spread("stencil, incremental: time by that of cp of the image", ratios, "", "<= 0.8", lambda m: m <= 0.8)
        add_sizes(figures, name, images, rounds)
        for tool in rounds[0][0]:
            for phase, what in enumerate(PHASES):
                figures.add(f"(seconds: {name}, {what}, {tool})", statistics.median(times[tool][phase] for times, _ in rounds), "s")
        shutil.rmtree(MEMORY / name)


def add_freezes(figures, bed):
    say("frozen time against write()")
    ratios, frozen = store_images.frozen_against_write(bed, ROUNDS)
    figures.spread("frozen time of a dump, by write() of the same bytes to the same tmpfs", ratios, "", "<= 1.5", lambda m: m <= 1.5)
    figures.add("(seconds: frozen, 1 GiB)", statistics.median(frozen), "s")
    say("two tasks: one CRIU over both, and one for each")
    ratios = store_images.one_criu_or_two(bed, ROUNDS)
    figures.spread("two tasks on a node: frozen time with a CRIU for each, by that of one over both", ratios, "", "<= 0.65", lambda m: m <= 0.65)


def main():
    bed, figures = Bed(), Figures("store")
    for folder in (DISK, MEMORY):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    store_images.install(bed)
    with store_drain.big_fast_tier(bed):
        add_store(figures, bed)
        add_freezes(figures, bed)
        store_drain.add_slow_down(figures, bed, ROUNDS)
    store_drain.add_memory(figures, DISK)
    store_drain.add_catalogue(figures, DISK)
    figures.report()


main()
