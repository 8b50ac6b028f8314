#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Workload: pipes, subshells, loops, command substitution and a background job, in plain bash.
# pipes.sh STEPS PACE: the output depends on STEPS alone. The last step waits until there is no file `hold`.
steps=$1 pace=$2
total=0
exec 3>> lines.txt  # held open: a file that is closed at the moment of a checkpoint is not rolled back

digest() { printf '%s\n' "$1" | sha256sum | cut -c1-12; }

mix() {  # a pipeline of loops: each line goes through three processes
  seq 1 20 | while read -r n; do echo $((n * $1 % 97)); done | sort -n | (while read -r n; do sum=$((${sum:-0} * 3 + n)); done; echo "${sum:-0}")
}

for ((i = 0; i < steps; ++i)); do
  value=$(mix "$((i + total % 89))")
  total=$(((total + value) % 1000003))
  echo "step $i $value $total $(digest "$total")"
  (echo "$i $total" >&3)
  { sleep "$pace"; } &
  wait $!
  while [ -e hold ] && ((i == steps - 2)); do sleep "$pace"; done
done
echo "end $total"
