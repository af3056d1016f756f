#!/bin/bash
# Prints the path of a Debian root file system with the tools that people look at a machine with, for containers in tests.
# usage: rootfs.sh [SUITE]   (default: bookworm)
#
# It is kept under $LENSFS_CACHE (default /var/cache/lensfs) and shared by all: copy it, or mount an overlay on it.

# shellcheck source-path=SCRIPTDIR source=vm/cache.sh
source "$(dirname "${BASH_SOURCE[0]}")/vm/cache.sh"

make_rootfs() {
	local dir=$1 suite=$2
	debian "$suite" "$dir" procps util-linux python3 htop sysstat tmux nodejs busybox-static
}

suite=${1:-bookworm}
cached "rootfs-$suite" make_rootfs "$suite"
