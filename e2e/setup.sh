#!/bin/bash
# Machine set-up for the root tests that is more than packages. Doing it twice changes nothing.
set -eu

# LXCFS: its hook and its binary are what lensfs is tested with and against. Its daemon must not start: it would serve the directory that the tests serve.
# nginx is one of the programs that are looked at; as a service nobody asked for it.
for package in lxcfs nginx-light; do
	if ! dpkg-query -W -f '${Status}' $package 2>/dev/null | grep -q 'ok installed'; then
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $policy ]; then
			printf '#!/bin/sh\nexit 101\n' >$policy
			chmod 755 $policy
			trap 'rm -f $policy' EXIT
		fi
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $package >/dev/null
	fi
done

# Unprivileged containers: the range of ids that root may map.
for f in /etc/subuid /etc/subgid; do
	grep -qs '^root:666000:65536$' $f || echo root:666000:65536 >>$f
done
