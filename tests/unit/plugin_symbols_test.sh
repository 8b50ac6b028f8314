#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The plug-in is loaded into sbatch, srun, slurmd and slurmstepd: it must export what Slurm looks for and nothing else, and bring its own
# C++ runtime. Run in the build folder by make check.
set -eu
plugin=spank_sckpt.so

want='plugin_name plugin_type plugin_version slurm_spank_init slurm_spank_init_post_opt slurm_spank_local_user_init slurm_spank_task_init spank_plugin_version '
have=$(nm -D --defined-only "$plugin" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort | tr '\n' ' ')
[ "$have" = "$want" ] || { echo "exported: $have"; echo "expected: $want"; exit 1; }

runtime='^(_ZN?K?S[tabsiod]|_ZT|__cxa_(throw|begin|end|guard|allocate)|__gxx)'
undefined=$(nm -D --undefined-only "$plugin" | awk '{ print $2 }' | grep -E "$runtime" | tr '\n' ' ')
[ -z "$undefined" ] || { echo "taken from a C++ runtime of the host: $undefined"; exit 1; }

needed=$(objdump -p "$plugin" | awk '$1 == "NEEDED" { print $2 }' | grep -E 'libstdc|libgcc|libslurm' || [ $? -eq 1 ])
[ -z "$needed" ] || { echo "needs $needed"; exit 1; }
