# Sourced by rootfs.sh and vm.sh: things that take a minute to build, kept between runs.
# shellcheck shell=bash

set -euo pipefail
shopt -s inherit_errexit # a failed build within $(…) must end the caller
umask 022

cache=${LENSFS_CACHE:-/var/cache/lensfs}

# cached NAME RECIPE [ARG…] prints the folder that the function RECIPE fills, given that folder and the ARGs,
# and calls it only if that very recipe has not been carried out yet: whoever changes it gets a new folder.
cached() {
	local name=$1 recipe=$2 hash dir
	shift 2
	hash=$(declare -f debian "$recipe" | cat - <(echo "$@") | sha256sum)
	dir=$cache/$name-${hash:0:12}
	[[ -e $dir ]] || build "$dir" "$recipe" "$@" >&2
	echo "$dir"
}

# One build at a time in the whole cache: debootstraps that share downloaded packages take each other's half
# files for whole ones. Hence everything called *.new that a builder finds was left by one that was interrupted.
build() {
	local dir=$1 recipe=$2 lock start=$SECONDS
	shift 2
	mkdir -p "$cache"
	exec {lock}<"$cache"
	flock "$lock"
	if [[ ! -e $dir ]]; then # not built by another while we waited
		echo "building $dir"
		rm -rf --one-file-system "$cache"/*.new
		mkdir "$dir.new"
		"$recipe" "$dir.new" "$@"
		mv "$dir.new" "$dir"
		echo "built $dir in $((SECONDS - start)) s"
	fi
	exec {lock}<&-
}

# debian SUITE DIR PACKAGE… installs a small Debian. What debootstrap mounts inside lives in a mount namespace
# of its own, so that nothing stays mounted however it ends.
debian() {
	local suite=$1 dir=$2 log=$cache/debootstrap.log IFS=,
	shift 2
	mkdir -p "$cache/packages"
	if ! unshare -m debootstrap --variant=minbase --cache-dir="$cache/packages" --include="$*" "$suite" "$dir" >"$log" 2>&1; then
		tail -n 30 "$log" "$dir/debootstrap/debootstrap.log"
		return 1
	fi
	rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* "$dir"/usr/share/{doc,info,locale,man}/*
}
