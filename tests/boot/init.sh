#!/bin/busybox sh
# Init of the test guest: tells what it found of the machine, and switches it off or resets it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
while read -r module; do insmod /modules/$module; done </modules/order
echo "cpus $(nproc)"
while read -r line; do echo "iomem $line"; done </proc/iomem
for d in /sys/bus/acpi/devices/*; do
	[ ! -f $d/modalias ] || echo "acpi $(cat $d/path) $(cat $d/modalias)"
done
[ ! -b /dev/vda ] || echo "disk $(sha1sum </dev/vda)"
while read -r line; do echo "interrupt $line"; done </proc/interrupts
case "$(cat /proc/cmdline)" in
*test=reset*) reboot -f ;;
*) poweroff -f ;;
esac
