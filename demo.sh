#!/bin/bash
# The main job of lensfs, to be seen: the same commands on this host and in a container of 512 MB and one CPU.
set -eu
lensfs=$(readlink -f "$1")
dir=$(mktemp -d /tmp/lensfs-demo-XXXXXX)
"$lensfs" serve --tree "$dir/tree" --views "$dir/views" --runtime-dir "$dir" 2>"$dir/log" &
daemon=$!
clean_up() {
	kill $daemon 2>/dev/null && wait $daemon || true
	rm -rf "$dir"
}
trap clean_up EXIT
until grep -q ready "$dir/log"; do
	kill -0 $daemon 2>/dev/null || { cat "$dir/log"; exit 1; }
	sleep 0.05
done

in_container() { "$lensfs" run --views "$dir/views" --memory 512M --cpus 1 --name demo -- "$@"; }
both() {
	printf '\n\033[1m%s\033[0m\n' "$1"
	printf 'host:      %s\n' "$(bash -c "$2")"
	printf 'container: %s\n' "$(in_container bash -c "$2")"
}
echo "This host, and beside it:  lensfs run --memory 512M --cpus 1 -- COMMAND"
both "free -m                       (total used free)" "free -m | awk '/Mem/{print \$2, \$3, \$4}'"
both "CPUs in /proc/cpuinfo" "grep -c ^processor /proc/cpuinfo"
both "/sys/devices/system/cpu/online" "cat /sys/devices/system/cpu/online"
both "getconf _NPROCESSORS_ONLN     (what nginx, make and the JVM's libraries ask)" "getconf _NPROCESSORS_ONLN"
both "python3: os.cpu_count()" "python3 -c 'import os; print(os.cpu_count())'"
both "uptime -p" "uptime -p"
