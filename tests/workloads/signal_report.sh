#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# signal_report.sh RELEASE: a script with a pipeline; each of its three bash processes writes a line for each signal that it gets. Ends
# when the file RELEASE is there.
export RELEASE=$1
watch='for s in HUP USR1 USR2 ALRM 40; do trap "echo $ROLE got $s >&2" $s; done
echo $ROLE ready >&2; until [ -e "$RELEASE" ]; do sleep 0.05; done'
ROLE=writer bash -c "$watch" | ROLE=reader bash -c "$watch" &
ROLE=script; eval "$watch"
wait
