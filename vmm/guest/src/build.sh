#!/bin/sh
# Builds the guest programs into DIR (default: the directory above), where Go embeds them.
# The same compiler gives the same bytes; `compiler` records which one made those in the repository.
set -eu
cd "$(dirname "$0")"
out=${1:-..}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
CFLAGS="-std=gnu11 -O2 -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-pic -fno-pie
	-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -Wall -Wextra -Werror"
LDFLAGS="-nostdlib -static -no-pie -Wl,-T,guest.ld -Wl,--build-id=none -Wl,-z,noexecstack
	-Wl,--no-warn-rwx-segments"
mkdir -p "$out/bin"
for program in stream heap idle random; do
	gcc $CFLAGS $LDFLAGS -o "$tmp/elf" start.S "$program.c" pages.c rng.c progress.c
	objcopy -O binary "$tmp/elf" "$out/bin/$program.bin"
done
gcc $CFLAGS $LDFLAGS -o "$tmp/elf" start.S pair.c progress.c
objcopy -O binary "$tmp/elf" "$out/bin/pair.bin"
gcc $CFLAGS $LDFLAGS -o "$tmp/elf" registers.S
objcopy -O binary "$tmp/elf" "$out/bin/registers.bin"
{ gcc --version | head -n 1; objcopy --version | head -n 1; } >"$out/bin/compiler"
