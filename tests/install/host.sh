#!/bin/bash
# What is done on the host of TestInstalled, as root, from its boot on: the first time with the argument
# "first", then with "again". /deb/1 and /deb/2 have the packages, the older one in 1.
set -Eeuo pipefail

failed() {
	echo "line $1 failed"
	systemctl --no-pager --full status thaw@web mnt-fstab.mount || true
	journalctl --no-pager -b -n 60 || true
}
trap 'failed $LINENO' ERR

step() { echo "== $*"; }
refused() { # COMMAND...: it must fail
	if "$@" >/tmp/refused 2>&1; then
		echo "it is not refused: $*"
		return 1
	fi
}
await() { # COMMAND...: until it succeeds
	local i
	for i in $(seq 600); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1 # it polls what has no event for this
	done
	echo "it does not become so: $*"
	return 1
}
property() { systemctl show -P "$1" "${2:-thaw@web}"; }
is() { # PROPERTY VALUE [UNIT]
	[ "$(property "$1" "${3:-thaw@web}")" = "$2" ]
}
gone() { ! mounted "$1"; }
mounted() { grep -q " $1 fuse\.thaw " /proc/self/mounts; }
right() { cmp "$1/vm/memory" /root/saved/memory; }

machine() { # runs a machine from the mount, or, without /dev/kvm, what looks at its memory all the time
	if [ -e /dev/kvm ]; then
		systemd-run -q --unit=machine thaw vm restore /mnt/thaw/vm --api /run/machine.sock
		await thaw vm status /run/machine.sock
	else
		systemd-run -q --unit=machine bash -c 'exec 3</mnt/thaw/vm/memory; touch /run/machine.sock
			while cmp /root/saved/memory /proc/self/fd/3; do sleep 0.1; done'
		await test -e /run/machine.sock
	fi
}

first() {
	step install
	rm -f /var/lib/man-db/auto-update # its index of all manual pages is not needed
	apt-get install -y /deb/1/thaw_*.deb
	dpkg --verify thaw
	man -w thaw thaw-import thaw-service mount.thaw >/dev/null
	[ -z "$(systemctl list-units --no-legend 'thaw@*')" ]
	old=$(thaw version)

	step a checkpoint
	mkdir /root/saved
	if [ -e /dev/kvm ]; then
		rmdir /root/saved
		systemd-run -q --unit=origin thaw vm run heap --memory 64MiB --api /run/origin.sock
		await thaw vm status /run/origin.sock
		thaw vm checkpoint /run/origin.sock /root/saved --stop
	else
		head -c 16M /dev/urandom >/root/saved/memory
	fi
	thaw import /srv/store /root/saved --name vm

	step enable
	refused systemctl start thaw@web # there is no /etc/thaw/web.conf
	mkdir -p /mnt/thaw
	cp /usr/share/doc/thaw/examples/example.conf /etc/thaw/web.conf
	systemctl enable --now thaw@web
	is ActiveState active
	mounted /mnt/thaw # in the namespace of the host
	right /mnt/thaw
	pid=$(property MainPID)
	# as late as this host lets a process be chosen
	score=$(bash -c 'echo -900 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj' 2>/dev/null)
	[ "$(cat /proc/"$pid"/oom_score_adj)" = "$score" ]
	[ "$(readlink /proc/"$pid"/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]
	journalctl -b -u thaw@web >/tmp/journal
	refused grep -i 'not permitted' /tmp/journal

	step upgrade under a machine
	machine
	apt-get install -y /deb/2/thaw_*.deb
	[ "$(thaw version)" != "$old" ]
	is MainPID "$pid"
	is ActiveState active machine
	right /mnt/thaw
	thaw stats /mnt/thaw
	thaw import /srv/store /root/saved/memory --name later # the new version beside the old server
	cmp /mnt/thaw/later/memory /root/saved/memory

	step removal is refused
	refused apt-get remove -y thaw
	grep 'not removed: /mnt/thaw is mounted' /tmp/refused
	dpkg -s thaw | grep '^Status: install ok installed'
	is MainPID "$pid"
	is ActiveState active machine

	step stop waits for the machine
	systemctl stop --no-block thaw@web
	await gone /mnt/thaw
	is ActiveState deactivating
	is ActiveState active machine
	systemctl stop machine
	await is ActiveState inactive
	is Result success

	step the new version
	systemctl start thaw@web
	[ "$(property MainPID)" != "$pid" ]
	right /mnt/thaw

	step killed
	pid=$(property MainPID)
	kill -9 "$pid"
	await is NRestarts 1
	await is ActiveState active
	right /mnt/thaw

	step ended by hand
	thaw umount /mnt/thaw
	await is ActiveState inactive
	is Result success

	step wrong options are not tried again
	echo OPTIONS=--nosuch >>/etc/thaw/web.conf
	refused systemctl start thaw@web
	is NRestarts 0
	is ExecMainStatus 4
	sed -i '$d' /etc/thaw/web.conf

	step a server that dies at each start
	mkdir -p /run/systemd/system/thaw@web.service.d
	printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >/run/systemd/system/thaw@web.service.d/dies.conf
	systemctl daemon-reload
	systemctl reset-failed thaw@web
	refused systemctl start thaw@web
	await is NRestarts 5
	await is ActiveState failed
	rm /run/systemd/system/thaw@web.service.d/dies.conf
	systemctl daemon-reload
	systemctl reset-failed thaw@web

	step fstab
	cp -a /srv/store /srv/second
	mkdir -p /mnt/fstab
	echo '/srv/second /mnt/fstab thaw nofail,restore=lazy,x-systemd.mount-timeout=30s 0 0' >>/etc/fstab
	systemctl daemon-reload
	systemctl start mnt-fstab.mount
	is ActiveState active mnt-fstab.mount
	right /mnt/fstab
	mount -a # it is there already
	[ "$(grep -c ' /mnt/fstab ' /proc/self/mounts)" = 1 ]
	umount /mnt/fstab
	await is ActiveState inactive mnt-fstab.mount
	mount /mnt/fstab
	right /mnt/fstab
	pid=$(sed -n 's/^pid \([0-9]*\).*/\1/p' /srv/second/lock)
	systemctl stop mnt-fstab.mount
	await test ! -e /proc/"$pid"

	step a user mounts
	useradd -m tester
	install -d -o tester /srv/own /mnt/own
	cp -a /root/saved/memory /home/tester/memory
	chown tester /home/tester/memory
	runuser -u tester -- thaw import /srv/own/store /home/tester/memory --name vm
	echo '/srv/own/store /mnt/own thaw user,noauto 0 0' >>/etc/fstab
	runuser -u tester -- mount /mnt/own
	runuser -u tester -- cmp /mnt/own/vm/memory /home/tester/memory
	refused cat /mnt/own/vm/memory
	runuser -u tester -- umount /mnt/own
	gone /mnt/own
}

again() {
	step both are there after the boot
	is ActiveState active
	is ActiveState active mnt-fstab.mount
	right /mnt/thaw
	right /mnt/fstab

	step remove
	apt-get remove -y thaw
	gone /mnt/thaw
	gone /mnt/fstab
	await is ActiveState inactive
	[ -e /etc/thaw/web.conf ]
	[ ! -e /usr/bin/thaw ]
	apt-get purge -y thaw
}

"$1"
step "$1" is done
