#!/bin/busybox sh
# Init of the guest whose kernel is saved in mid-boot: a workload with hashes, then the end. Lines
# that begin with "random" differ from run to run, all others do not.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
while read -r module; do insmod /modules/$module; done </modules/order
echo "cpus $(nproc)"
echo "disk $(sha1sum </dev/vda)"
mount -t tmpfs tmpfs /tmp
sum=
for round in 1 2 3 4 5 6; do
	# On all CPUs: data made and hashed, and the disk read and hashed.
	seq $((round * 10000)) $((round * 10000 + 20000)) >/tmp/data.$round &
	disk=$(sha1sum </dev/vda)
	wait
	sum=$(cat /tmp/data.* | sha1sum; echo "$disk $sum")
	echo 3 >/proc/sys/vm/drop_caches
	echo "round $round $(echo "$sum" | sha1sum)"
	echo "random $(head -c 16 /dev/hwrng | sha1sum)"
done
echo "done $(echo "$sum" | sha1sum)"
poweroff -f
