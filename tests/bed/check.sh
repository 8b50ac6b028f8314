# SPDX-License-Identifier: GPL-3.0-or-later
# check.sh: `./dev check`, read by dev. The counts of all parts are added up; the last line is `N passed, N failed`.
passed=0
failed=0
count() { passed=$((passed + $1)); failed=$((failed + $2)); }

# The cases of one test program: Catch2's summary where there is one, else the program is one case.
count_log() {
  local log=$1 cases bad=0
  if cases=$(grep -oP '^All tests passed \(.* in \K[0-9]+(?= test cases?\)$)' "$log"); then
    count "$cases" 0
  elif cases=$(grep -P '^test cases: ' "$log"); then
    bad=$(grep -oP '[0-9]+(?= failed)' <<< "$cases" || echo 0)
    count "$(grep -oP '[0-9]+(?= passed)' <<< "$cases" || echo 0)" "$bad"
  elif grep -qx ':test-result: PASS' "${log%.log}.trs"; then
    count 1 0
  fi
  # a program that failed without a failed case: a crash, a sanitizer's finding
  if [ "$bad" = 0 ] && ! grep -qx ':test-result: PASS' "${log%.log}.trs"; then count 0 1; bad=1; fi
  [ "$bad" = 0 ] || { echo "---- ${log#"$build/out/"}"; tail -n 200 "$log"; }
}
check_unit() {
  local trs rc=0 found=0
  find "$build/out" -name '*.trs' -delete
  in_root make -s -C /build/out -j"$(nproc)" check > "$build/check.log" 2>&1 < /dev/null || rc=$?
  while IFS= read -r trs; do
    found=1
    echo "$(grep -oP '^:test-result: \K.*' "$trs") $(basename "${trs%.trs}")"
    count_log "${trs%.trs}.log"
  done < <(find "$build/out" -name '*.trs' | sort)
  if [ $found = 0 ] || { [ $rc != 0 ] && [ $failed = 0 ]; }; then
    tail -n 60 "$build/check.log"; echo "FAIL make check"; count 0 1
  fi
}

# What is seen of a bed from the host; the same before it is up and after it is down.
host_state() {
  find /sys/fs/cgroup -name "sckpt-bed-$1*"
  find "$cache/beds" -maxdepth 1 -name "$1*"
  grep -l "/beds/$1[/ ]" /proc/[0-9]*/mountinfo 2>/dev/null
  ls /run/netns /sys/class/net 2>/dev/null
  in_root nft list ruleset
}
bed_namespaces() {
  local file
  grep -l "/beds/$1[/ ]" /proc/[0-9]*/mountinfo 2>/dev/null | while IFS= read -r file; do readlink "${file%/mountinfo}"/ns/*; done | sort -u
}
host_namespaces() { readlink /proc/1/ns/* /proc/self/ns/* | sort -u; }
live_namespaces() { readlink /proc/[0-9]*/ns/* 2>/dev/null | sort -u; }

check_system() {
  local name=check-$$ before after namespaces counts rc=0
  for old in "$cache"/beds/check-*.lock; do   # of a check that was killed itself
    old=$(basename "$old" .lock)
    [ "$old" = 'check-*' ] || [ -e "/proc/${old#check-}" ] || bed_down "$old"
  done
  before=$(host_state "$name" || :)
  trap 'bed_down "check-$$"' EXIT
  trap 'exit 130' INT; trap 'exit 143' TERM HUP
  bed_up "$name"
  bed_run "$name" /build/src/tests/system/run.py --counts /bed/counts "$@" < /dev/null &   # as in with_bed
  wait $! || rc=$?
  [ "$rc" -le 1 ] || echo "the system tests ended with status $rc"
  counts=$(cat "$(bed_folder "$name")/counts" 2>/dev/null || echo 0 1)
  count $counts
  namespaces=$(comm -23 <(bed_namespaces "$name") <(host_namespaces))
  bed_down "$name"
  trap - EXIT INT TERM HUP
  after=$(host_state "$name" || :)
  if [ -n "$namespaces" ] && [ "$before" = "$after" ] && [ -z "$(comm -12 <(echo "$namespaces") <(live_namespaces))" ]; then
    echo "ok   bed leaves nothing behind ($(wc -l <<< "$namespaces") namespaces are gone)"; count 1 0
  else
    echo "FAIL bed leaves nothing behind; seen from the host before and after, and namespaces still alive:"; count 0 1
    diff <(echo "$before") <(echo "$after") || :
    comm -12 <(echo "$namespaces") <(live_namespaces)
  fi
}

check() {
  local part=${1:-all}
  if ! "$top/dev" build; then
    echo "the build failed"; count 0 1
  else
    case $part in
      all) check_unit; check_system ;;
      unit) check_unit ;;
      system) shift; check_system "$@" ;;
      *) check_system "$@" ;;
    esac
  fi
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}
