#!/bin/bash
# make-root.sh DIR: makes the Debian 13 root that everything of ./dev runs in: the tool chain, Slurm 24.11 with its headers, and CRIU.
#
# CRIU and BLAKE3 come from Debian testing: Debian 13 has no library of BLAKE3, and from kernel 6.16 on, CRIU 4.1 cannot dump a
# TCP socket (SO_PASSCRED answers EOPNOTSUPP).
# The mirror is mmdebstrap's own default; testing's line is derived from the one that mmdebstrap writes.
# DIR appears only when it is whole: an interrupted run leaves DIR.partial, which the next run starts again.
set -euo pipefail

dir=$1
partial=$dir.partial

packages=slurmctld,slurmd,slurm-client,libslurm-dev,munge,libmunge-dev
packages+=,g++,make,autoconf,automake,libtool,pkg-config,ccache,git,clang-format
packages+=,libgrpc++-dev,libprotobuf-dev,protobuf-compiler,protobuf-compiler-grpc
packages+=,libyaml-dev,libsqlite3-dev,libzstd-dev,libcli11-dev,nlohmann-json3-dev,catch2,libfuse3-dev,fuse3
packages+=,criu,iproute2,nftables,procps,util-linux,gdb,strace,python3,ca-certificates,hostname,file,mandoc,sqlite3,xz-utils

if [ -d "$partial" ]; then rm -rf --one-file-system "$partial"; fi
mmdebstrap --variant=minbase --include="$packages" trixie "$partial"

# A pin for testing, not a default release: that would rank trixie above its own security updates.
printf 'Package: *\nPin: release n=forky*\nPin-Priority: 100\n' > "$partial/etc/apt/preferences.d/testing"
sed 's/trixie/forky/g' "$partial/etc/apt/sources.list" > "$partial/etc/apt/sources.list.d/testing.list"
cp /etc/resolv.conf "$partial/etc/resolv.conf"
chroot "$partial" apt-get -q -o Acquire::Check-Valid-Until=false update
chroot "$partial" apt-get install -yq -t forky criu libblake3-dev
chroot "$partial" criu --version

# the service user: its files are the store, and nothing else
chroot "$partial" useradd --uid 990 --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sckpt
chroot "$partial" useradd --uid 1000 --create-home user1
chroot "$partial" useradd --uid 1001 --create-home user2
chroot "$partial" apt-get clean
mv "$partial" "$dir"
