#!/bin/sh
# Init of the test guest: a workload that checks its own data. See package qemu for the lines
# that it prints. Every line is one printf, so that the kernel's own messages cannot split it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=60% tmpfs /data
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
echo 1 >/proc/sys/kernel/printk

# Heap pages: an associative array in one long-lived process. It counts its rounds in /run/heap
# and its failures in /run/heap.bad.
echo 0 >/run/heap.bad
awk 'BEGIN {
	for (i = 0; i < 120000; i++) { table["key" i] = "value " (i * 7919) % 100003 " of " i }
	for (i = 0; i < 120000; i++) want += length(table["key" i])
	for (round = 1; ; round++) {
		sum = 0
		for (i = round % 4; i < 120000; i += 4) sum += length(table["key" i])
		part[round % 4] = sum
		if (round > 4 && part[0] + part[1] + part[2] + part[3] != want) {
			bad++
			print bad > "/run/heap.bad"
			close("/run/heap.bad")
		}
		print round > "/run/heap"
		close("/run/heap")
		system("sleep 0.3")
	}
}' &

# Page-cache data of the guest itself: copies whose hashes are in the lists as well.
mkdir -p /data/copy
i=0
while read -r sum name; do
	i=$((i + 1))
	[ $((i % 8)) = 0 ] || continue
	cp "$name" "/data/copy/$i"
	echo "$sum  /data/copy/$i" >>/data/sums.copy
done </sums.all
echo "ready files=$i"

# Commands are read by a process of their own: a read with a time limit drops what it has of a line
# when the machine stands still for that long.
while read -r command; do
	[ "$command" != all ] || : >/run/all
done </dev/ttyS0 &

bad=0
n=0
while true; do
	n=$((n + 1))
	# New data in every round: eight generated files take turns, each checked when it is replaced.
	g=$((n % 8))
	if [ -f /data/gen.$g ]; then
		sha1sum -c -s /data/gen.$g.sum || bad=$((bad + 1))
	fi
	seq $((n * 100000)) $((n * 100000 + 30000)) >/data/gen.$g
	sha1sum /data/gen.$g >/data/gen.$g.sum
	sha1sum -c -s /sums.hot || bad=$((bad + 1))
	read -r up idle </proc/uptime
	read -r heapbad </run/heap.bad
	printf 'tick n=%d uptime=%s bad=%d\n' $n $up $((bad + heapbad))
	sleep 0.2
	if [ -f /run/all ]; then
		rm /run/all
		wrong=0
		sha1sum -c -s /sums.all || wrong=$((wrong + 1))
		sha1sum -c -s /data/sums.copy || wrong=$((wrong + 1))
		read -r heapbad </run/heap.bad
		printf 'all bad=%d files=%d\n' $((bad + heapbad + wrong)) $i
	fi
done
