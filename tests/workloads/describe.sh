#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Prints all that a program can see of how it was started, for a comparison with and without the supervisor. PIDs are left out, and
# so is what is different by intent: the process group and session.
say_hello() { echo "hello from a function"; }
echo "== environment"; env | grep -v -E '^(SLURM_TASK_PID|_|BASH_FUNC_)' | sort
echo "== task pid is mine: $([ "$SLURM_TASK_PID" = $$ ] && echo yes || echo no)"
echo "== arguments: $# [$*] argv0: $(tr '\0' ' ' < /proc/$$/cmdline)"
echo "== directory: $PWD umask: $(umask) nice: $(nice)"
echo "== limits"; ulimit -a
echo "== status"
grep -E '^(Umask|Uid|Gid|Groups|Sig(Blk|Ign)|Cap|NoNewPrivs|Seccomp|Cpus_allowed|Mems_allowed|CoreDumping)' /proc/self/status
echo "== oom: $(cat /proc/$$/oom_score_adj) personality: $(cat /proc/$$/personality 2>/dev/null)"
echo "== scheduler: $(chrt -p $$ | cut -d: -f2 | tr '\n' ' ')"
echo "== cgroup"; cut -d: -f2- /proc/$$/cgroup
echo "== descriptors"; find /proc/self/fd -mindepth 1 -printf '%f %l\n'
export -f say_hello; bash -c say_hello
