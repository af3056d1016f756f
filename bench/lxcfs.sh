#!/bin/bash
# Prints the path of an LXCFS to be measured: the installed one, or else Debian's packages unpacked into DIR. Nothing is installed, for that would
# start a service on this machine and mount its files for all containers to come. Usage: lxcfs.sh DIR
set -euo pipefail
command -v lxcfs && exit
mkdir -p "$1"
cd "$1"
if [ ! -x usr/bin/lxcfs ]; then
	apt-get update -qq >&2
	fuse=$(apt-cache depends lxcfs | awk '/Depends: libfuse3/ { print $2; exit }')
	apt-get download -qq lxcfs "$fuse" >&2
	for package in ./*.deb; do
		dpkg-deb -x "$package" .
	done
fi
echo "$PWD/usr/bin/lxcfs"
