#!/bin/bash
# The root tests of this tree in the virtual machine:  test.sh LENSFS [TEST FLAGS…]
set -eu -o pipefail
here=$(dirname "$(readlink -f "$0")")
binary=$(readlink -f "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp "$binary" "$work/lensfs"
CGO_ENABLED=0 go build -tags faults -o "$work/lensfs-faulty" "$here/../../cmd/lensfs"
CGO_ENABLED=0 go build -ldflags "-s -w" -o "$work/lensfs-device-plugin" "$here/../../cmd/lensfs-device-plugin"
CGO_ENABLED=0 go test -c -o "$work/e2e.test" "$here/.."
cp -r "$here/../../share" "$work/share"
for n in 1:first 2:second; do # two versions, for an upgrade
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${n#*:}" -o "$work/packed" "$here/../../cmd/lensfs"
	bash "$here/../../share/package/build.sh" "$work/packed" "0~${n%:*}" "$work/packages" >/dev/null
	rm "$work/packed"
done
rm "$work"/packages/*.rpm
cat >"$work/job.sh" <<JOB
set -u
uname -r
stat -fc %T /sys/fs/cgroup
nproc
swapon --show
cp -r /t/share /share # beside the tests' folder, as in the source tree
mkdir -p /e2e && cd /e2e
export LENSFS_BIN=/t/lensfs LENSFS_FAULTY=/t/lensfs-faulty LENSFS_DEVICE_PLUGIN=/t/lensfs-device-plugin LENSFS_MUST_RUN=1 LENSFS_ROOTFS=/srv/rootfs LENSFS_PACKAGES=/t/packages
/t/e2e.test -test.v -test.short -test.timeout 60m $*
JOB
T=${T:-3900} "$here/vm.sh" run "$work/job.sh" "$work/lensfs" "$work/lensfs-faulty" "$work/lensfs-device-plugin" "$work/e2e.test" "$work/share" "$work/packages" | grep -v '^=== \(RUN\|PAUSE\|CONT\)'
