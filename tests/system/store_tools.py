# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the store share: the commands that are about it, and a catalogue that is lost."""
import json

DENIED, FAULTS = 4, 7   # exit codes


def clean(bed, *argv, user=None, code=0):
    result = bed.run("ctl", ["sckpt-clean", *map(str, argv)], user=user, check=False, timeout=120)
    assert code is None or result.returncode == code, f"sckpt-clean {argv}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def report(bed, *argv):
    return json.loads(clean(bed, "report", "--json", *argv).stdout)


def sckpt(bed, *argv, user="user1"):
    return bed.run("ctl", ["sckpt", *map(str, argv)], user=user, check=False)


def lose_the_catalogue(bed):
    daemon = bed.daemon("ctl", "sckptctld")
    daemon.stop()
    bed.run("ctl", ["sh", "-c", "rm /var/lib/sckpt/catalogue.sqlite*"])
    daemon.start()
    bed.wait(lambda: bed.run("ctl", ["sckpt", "status"], check=False).returncode == 0, 30, "sckptctld answers again")
