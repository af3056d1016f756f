#!/bin/bash
# A Debian 13 machine with cgroup v2, systemd, swap and LXC, emulated in software: no KVM, so for truth, not for speed.
#
#   vm.sh make                        builds what run needs, if it is not there yet
#   vm.sh run [-o DIR] JOB [FILE…]    boots it, runs the script JOB in it, prints what that printed,
#                                     exits with its exit status
#
# In the guest, JOB is /job.sh and each FILE, which may be a folder, is in /t. /srv/rootfs is a root file system for containers.
# Nothing that a job does to the machine remains. The logs out.log (the job) and boot.log (the kernel, systemd) go to
# DIR (default: e2e/out/vm); boot-1.log is of a machine that did not boot and so was started again.
# T is the time limit in seconds (default 900). With OLD_KERNEL=1 its kernel is Debian 12's.
#
# Wants root, debootstrap and e2fsprogs. What was built is kept under $LENSFS_CACHE (default /var/cache/lensfs).

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source-path=SCRIPTDIR source=cache.sh
source "$here/cache.sh"

limit=${T:-900}
boot_limit=300 # seconds; a boot takes 15 on two idle processors, 240 was seen on two that 30 others want. One in 30 hangs or resets.

make_emulator() { # DIR
	# From Debian 13: with the emulator of Debian 12, guests panic (cmpxchg16b).
	debian trixie "$1" qemu-system-x86
	mkdir "$1"/vm "$1"/vm/{image,run,logs}
}

make_image() { # DIR ROOTFS UNIT
	local root=$1/root unit
	debian trixie "$root" \
		systemd systemd-sysv udev dbus linux-image-cloud-amd64 kmod util-linux procps psmisc iproute2 attr strace \
		busybox-static python3 htop sysstat tmux nodejs fuse3 lxc lxcfs crun runc \
		incus-base incus-client podman containerd uidmap default-jre-headless nginx-light musl

	cp -a "$2" "$root/srv/rootfs"
	echo guest >"$root/etc/hostname"
	echo root:666000:65536 | tee "$root/etc/subuid" >"$root/etc/subgid"

	mkdir "$root/job"
	ln -s job/job.sh job/t "$root/"
	echo "$3" >"$root/etc/systemd/system/job.service"
	ln -s ../job.service "$root/etc/systemd/system/multi-user.target.wants/"
	ln -s /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

	# LXCFS and container managers are for tests to start. The rest costs seconds of emulated time, and no job wants it.
	for unit in netavark-{dhcp-proxy,firewalld-reload}.{socket,service} incus.{socket,service} incus-startup incus-user.{socket,service} containerd nginx podman.{socket,service} podman-{auto-update,restart,clean-transient}; do
		[[ $unit == *.* ]] || unit+=.service
		rm -f "$root"/etc/systemd/system/*.wants/"$unit"
	done
	rm -f "$root"/etc/systemd/system/timers.target.wants/podman-auto-update.timer
	for unit in lxcfs lxc lxc-net lxc-monitord getty@tty1 getty-static systemd-logind systemd-pstore systemd-binfmt \
		{apt-daily,apt-daily-upgrade,dpkg-db-backup,fstrim,systemd-tmpfiles-clean}.timer; do
		[[ $unit == *.timer ]] || unit+=.service
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	touch "$root"/{etc,var}/.updated # no ldconfig, sysusers and the like at every first boot

	# Of Debian 12, Linux 6.1: what it is like without FUSE_NOTIFY_RESEND.
	debian bookworm "$1/old" linux-image-cloud-amd64 kmod
	cp -a "$1"/old/lib/modules/* "$root/usr/lib/modules/"
	mv "$1"/old/boot/vmlinuz-* "$1/vmlinuz-old"
	rm -rf "$1/old"
	echo virtio_console >"$root/etc/modules-load.d/console.conf" # built into the newer one

	# No initrd: NVMe and ext4 are built into this kernel, which saves ten seconds of a boot.
	mv "$root"/boot/vmlinuz-* "$1/vmlinuz"
	rm "$root"/boot/initrd.img-*
	mke2fs -q -t ext4 -d "$root" "$1/disk.img" 6G >/dev/null
	rm -rf "$root"
}

make() {
	emulator=$(cached emulator make_emulator)
	image=$(cached image make_image "$("$here/../rootfs.sh" trixie)" "$(<"$here/guest/job.service")")
}

# disk JOB [FILE…] makes the disk with what the guest is to run.
disk() {
	local job=$1 files=$work/files file size
	shift
	mkdir -p "$files/t"
	cp "$here/guest/run" "$files/run"
	cp "$job" "$files/job.sh"
	for file in "$@"; do
		cp -rH "$file" "$files/t/"
		[[ -d $file ]] || chmod 755 "$files/t/$(basename "$file")"
	done
	size=$(du -sm --apparent-size "$files" | cut -f1)
	mke2fs -q -t ext4 -d "$files" "$work/job.img" "$((size * 5 / 4 + 64))M" >/dev/null
	rm -rf "$files"
}

# boot starts the emulator in the background. The folders that it needs are bound into its chroot in a mount namespace
# that ends with it, and it ends with this script. The image is shared: snapshot=on writes elsewhere, to a file without a name.
boot() {
	local folders options command_line
	folders=("$image:image" "$work:run" "$logs:logs")
	command_line=(
		root=/dev/nvme0n1 rw console=ttyS0 psi=1 mitigations=off panic=-1
		systemd.mask=serial-getty@{ttyS0,hvc0}.service modprobe.blacklist=ahci
	)
	options=(
		-accel "tcg,thread=multi" -machine q35 -cpu "max,-svm" -smp 8 -m 2048
		-nodefaults -display none -no-reboot
		-kernel "/vm/image/vmlinuz${OLD_KERNEL:+-old}"
		-append "${command_line[*]}"
		-serial file:/vm/logs/boot.log
		-device virtio-serial -chardev "file,id=job,path=/vm/logs/out.log" -device "virtconsole,chardev=job"
		# Only the root disk is NVMe: the kernel names several in any order.
		-drive "file=/vm/image/disk.img,if=none,id=root,format=raw,cache=unsafe,snapshot=on" -device "nvme,serial=root,drive=root"
		-drive "file=/vm/run/job.img,if=virtio,format=raw,cache=unsafe"
		-drive "file=/vm/run/swap.img,if=virtio,format=raw,cache=unsafe"
	)
	# shellcheck disable=SC2016
	setpriv --pdeathsig KILL unshare -m bash -euc '
		emulator=$1
		while shift; [[ $1 != -- ]]; do mount --bind "${1%:*}" "$emulator/vm/${1##*:}"; done
		shift
		exec chroot "$emulator" qemu-system-x86_64 "$@"
	' bash "$emulator" "${folders[@]}" -- "${options[@]}" &
	machine=$!
}

stop() {
	if [[ $machine ]]; then
		kill -KILL "$machine" 2>/dev/null || true
		wait "$machine" 2>/dev/null || true
		machine=''
	fi
}

# attempt boots the machine, waits for its end and sets booted (seconds; empty if it did not) and timed_out.
attempt() {
	local start=$SECONDS
	booted='' timed_out=''
	: >"$logs/out.log"
	: >"$logs/boot.log"
	boot
	while kill -0 "$machine" 2>/dev/null; do
		if [[ ! $booted ]] && has_booted; then
			booted=$((SECONDS - start))
		fi
		if ((SECONDS - start > (booted ? limit : boot_limit))); then
			timed_out=yes
			break
		fi
		sleep 0.5
	done
	if [[ ! $booted ]] && has_booted; then
		booted=$((SECONDS - start))
	fi
	[[ $timed_out ]] || wait "$machine" || echo "vm: the emulator ended with status $?" >&2
	stop
	echo "vm: ${booted:+booted after $booted s, }ended after $((SECONDS - start)) s" >&2
}

has_booted() { grep -qs '^machine booted' "$logs/out.log"; }

run() {
	local status
	logs=$here/../out/vm
	if [[ ${1:-} == -o ]]; then
		logs=${2:?}
		shift 2
	fi
	[[ $# -gt 0 ]] || usage
	mkdir -p "$logs"
	logs=$(readlink -f "$logs")
	rm -f "$logs/boot-1.log"

	make
	machine=''
	work=$(mktemp -d)
	trap 'stop; rm -rf "$work"' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	disk "$@"
	truncate -s 512M "$work/swap.img"

	attempt
	if [[ ! $booted ]]; then # the machine's fault, not the job's
		echo "vm: the machine did not boot: once more" >&2
		mv "$logs/boot.log" "$logs/boot-1.log"
		tail -n 20 "$logs/boot-1.log" >&2
		attempt
	fi

	cat "$logs/out.log"
	status=$(sed -n 's/.*job exit status: \([0-9]\+\)$/\1/p' "$logs/out.log" | tail -n 1)
	if [[ ! $booted ]]; then
		echo "vm: the machine did not boot, twice" >&2
	elif [[ $timed_out ]]; then
		echo "vm: the job did not end in $limit s" >&2
		status=''
	elif [[ ! $status ]]; then
		echo "vm: the machine stopped before the job ended" >&2
	fi
	status=${status:-1}
	if ((status)); then
		echo "vm: the end of $logs/boot.log:" >&2
		tail -n 40 "$logs/boot.log" >&2
	fi
	exit "$status"
}

usage() {
	echo "usage: vm.sh make | vm.sh run [-o DIR] JOB [FILE…]" >&2
	exit 2
}

case ${1:-} in
make)
	make
	echo "$image"
	;;
run) run "${@:2}" ;;
*) usage ;;
esac
