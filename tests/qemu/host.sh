#!/bin/busybox sh
# Init of the test host: KVM, FUSE and a file system on a disk, then the script. The script's output
# goes to the second serial port; the kernel's messages and the status to the first.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tracefs tracing /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
ip link set lo up
while read -r module; do
	case $module in
	*.xz) unxz -c "/modules/$module" >/run/module.ko && insmod /run/module.ko ;;
	*) insmod "/modules/$module" ;;
	esac
done </modules/order
mount -t fusectl fusectl /sys/fs/fuse/connections
mke2fs -F -m 0 -i 65536 /dev/vda >/dev/null && mount -t ext4 -o noatime /dev/vda /tmp
chmod 1777 /tmp
stty -F /dev/ttyS1 raw
cd /tmp
sh /script </dev/null >/dev/ttyS1 2>&1
echo "status $?" >/dev/ttyS0
poweroff -f
