#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# includes_test.sh [DIR]: includes between the folders go one way: common <- {rpc, image_store, backend} <- {plugin, daemon, cli}.
# A folder may include itself and what is below it; plugin, daemon and cli are included by nobody else.
# Exception: backend/criu may include rpc/local.h, the wire structs that the init of a restored tree shares with sckpt-run.
# Without DIR the sources beside this script are checked, after the check has been tried on a small fixture with every violation.
set -euo pipefail

# What may be included by a file of this folder, as a regular expression; fails for a folder that is not known.
allowed_for() {
  case $1 in
    common) echo '^common/' ;;
    backend/criu) echo '^(common/|backend/|rpc/local\.h$)' ;;
    rpc|image_store|backend) echo "^(common|$1)/" ;;
    plugin|daemon|cli) echo "^(common|rpc|image_store|backend|$1)/" ;;
    *) return 1 ;;
  esac
}

# Prints "file:line: what is wrong" for every include against the order.
violations() {
  local dir=$1 file folder line header
  while IFS= read -r -d '' file; do
    folder=${file%%/*}
    case $file in backend/criu/*) folder=backend/criu ;; esac
    while read -r line header; do
      case $header in
        '"config.h') ;;                                                                            # configure's
        ["\"<"]common/*|["\"<"]rpc/*|["\"<"]image_store/*|["\"<"]backend/*|["\"<"]plugin/*|["\"<"]daemon/*|["\"<"]cli/*)
          header=${header#?}
          [[ $header != */../* ]] || echo "$file:$line: .. in $header"
          [[ $header =~ $(allowed_for "$folder") ]] || echo "$file:$line: $folder may not include $header" ;;
        '"'*) echo "$file:$line: name the file from the top of the source, not ${header#?}" ;;      # "y.h", "../cli/y.h"
      esac                                                                                         # the rest is of libraries
    done < <(includes_of "$dir/$file")
  done < <(cd "$dir" && find common rpc image_store backend plugin daemon cli -type f \( -name '*.h' -o -name '*.cpp' \) -print0)
}

# 'line "name' or 'line <name' for every include of a file.
includes_of() {
  sed -nE '/^[[:space:]]*#[[:space:]]*include/{=; s/^[^"<]*(["<][^">]*).*/\1/p}' "$1" | sed 'N; s/\n/ /'
}

fail() { echo "includes_test: $*" >&2; exit 1; }

# Plants one include in an otherwise good tree; `good` or `bad` is what the check must say of it.
expect() {
  local verdict=$1 file=$2 include=$3 found
  rm -rf "$fixture/tree"
  mkdir -p "$fixture"/tree/{common,rpc,image_store,backend/criu,plugin,daemon,cli}
  printf '#include "common/result.h"\n#include <string>\n' > "$fixture/tree/common/fine.cpp"
  printf '#pragma once\n#include %s\n' "$include" > "$fixture/tree/$file"
  found=$(violations "$fixture/tree")
  case $verdict in
    good) [ -z "$found" ] || fail "the check refuses what is right: $found" ;;
    bad) [ "${found%%: *}" = "$file:2" ] || fail "the check does not see $include in $file" ;;
  esac
}

try_the_check() {
  fixture=$(mktemp -d)
  trap 'rm -rf "$fixture"' EXIT
  local low high
  for low in common rpc image_store backend; do
    for high in plugin daemon cli; do
      expect bad "$low/x.h" "\"$high/y.h\""
      expect good "$high/x.cpp" "\"$low/y.h\""
    done
    expect good "$low/x.cpp" "\"$low/y.h\""
    expect good "$low/x.cpp" '"common/y.h"'
  done
  for low in rpc image_store backend; do expect bad common/x.cpp "\"$low/y.h\""; done
  expect bad rpc/x.h '"image_store/y.h"'
  expect bad rpc/x.h '"backend/y.h"'
  expect bad image_store/x.h '"rpc/y.h"'
  expect bad image_store/x.h '"backend/y.h"'
  expect bad backend/x.h '"rpc/local.h"'
  expect bad backend/x.h '"image_store/y.h"'
  expect good backend/criu/x.cpp '"rpc/local.h"'
  expect bad backend/criu/x.cpp '"rpc/sckpt.pb.h"'
  expect bad plugin/x.cpp '"daemon/y.h"'
  expect bad daemon/x.cpp '"cli/y.h"'
  expect bad cli/x.cpp '"plugin/y.h"'
  expect bad common/x.cpp '<daemon/y.h>'
  expect bad common/x.cpp '"./daemon/y.h"'
  expect bad common/x.cpp '"common/../daemon/y.h"'
  expect bad common/x.cpp '"../daemon/y.h"'
  expect bad common/x.cpp '"y.h"'
  expect good common/x.cpp '"config.h"  // configure'
  expect good common/x.cpp '<sys/stat.h>'
}

check() {
  local found
  [ -d "$1/common" ] || fail "$1 has no folder common: it is not the project's source"
  found=$(violations "$1")
  [ -z "$found" ] || fail $'includes go one way: common <- {rpc, image_store, backend} <- {plugin, daemon, cli}\n'"$found"
}

if [ $# -gt 0 ]; then
  check "$1"
else
  try_the_check
  check "${srcdir:-$(dirname "$0")/../..}"
fi
