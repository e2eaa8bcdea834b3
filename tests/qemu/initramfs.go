package qemu

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/thawfs/thaw/tests/internal/cpio"

	_ "embed"
)

//go:embed init.sh
var initScript []byte

// hotBytes is how much of the payload the workload checks in every round: about 12 MiB that a
// restored guest needs at once, a few per cent of RAM as in the machines of the literature.
const hotBytes = 12 << 20

// payloadFile is one file of the host that goes into the guest.
type payloadFile struct {
	path string
	size int64
}

// payloadRoots are searched in this order; files are taken from all of them in turn so that the
// guest's memory holds machine code, text and tables alike.
var payloadRoots = []string{
	"/usr/lib/x86_64-linux-gnu", "/lib/modules", "/usr/share/perl", "/usr/share/i18n",
	"/usr/share/locale", "/usr/share/doc", "/usr/bin", "/usr/local/go/src",
}

// choosePayload picks files of at most 8 MiB each until they have total bytes, round robin over
// the roots, in name order: the same host gives the same payload.
func choosePayload(total int64) ([]payloadFile, error) {
	var lists [][]payloadFile
	for _, root := range payloadRoots {
		if list := listFiles(root, total); len(list) > 0 {
			lists = append(lists, list)
		}
	}
	var chosen []payloadFile
	var sum int64
	used := make([]int64, len(lists))
	for sum < total && len(lists) > 0 {
		// The root that has given the fewest bytes gives the next file.
		least := 0
		for i := range used {
			if used[i] < used[least] {
				least = i
			}
		}
		f := lists[least][0]
		chosen, sum, used[least] = append(chosen, f), sum+f.size, used[least]+f.size
		if lists[least] = lists[least][1:]; len(lists[least]) == 0 {
			lists = append(lists[:least], lists[least+1:]...)
			used = append(used[:least], used[least+1:]...)
		}
	}
	if sum < total/2 {
		return nil, fmt.Errorf("this host has only %d bytes of files for the guest under %s",
			sum, strings.Join(payloadRoots, ", "))
	}
	return chosen, nil
}

// listFiles returns readable regular files between 4 KiB and 8 MiB under root, limit bytes at most.
func listFiles(root string, limit int64) []payloadFile {
	var list []payloadFile
	var sum int64
	// Errors only make the list shorter; choosePayload says when it is too short.
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() < 4096 || info.Size() > 8<<20 {
			return nil
		}
		if sum >= limit {
			return fs.SkipAll
		}
		sum += info.Size()
		list = append(list, payloadFile{path, info.Size()})
		return nil
	})
	return list
}

// WriteInitramfs writes a zstd-compressed initramfs with busybox, the workload and about
// payloadBytes of files to w.
func WriteInitramfs(w io.Writer, busybox string, payloadBytes int64) error {
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	payload, err := choosePayload(payloadBytes)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(1<<20)) // the kernel's decompressor allows 8 MiB and takes RAM for it
	if err != nil {
		return err
	}
	c := cpio.New(z)
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run", "data"} {
		c.MkdirAll(dir)
	}
	c.CharDevice("dev/console", 5, 1)
	c.File("bin/busybox", 0o755, binary)
	c.Symlink("bin/sh", "busybox")
	c.File("init", 0o755, initScript)
	var all, hot bytes.Buffer
	var hotSum int64
	for i, f := range payload {
		data, err := os.ReadFile(f.path)
		if err != nil {
			continue // gone or not readable to this user: the guest has one file less
		}
		name := fmt.Sprintf("payload/%03d/%d", i/64, i)
		c.File(name, 0o644, data)
		line := fmt.Sprintf("%x  /%s\n", sha1.Sum(data), name)
		all.WriteString(line)
		// Every fourth file is hot until there is enough: the hot set lies scattered.
		if i%4 == 0 && hotSum < hotBytes {
			hot.WriteString(line)
			hotSum += int64(len(data))
		}
	}
	c.File("sums.all", 0o644, all.Bytes())
	c.File("sums.hot", 0o644, hot.Bytes())
	if err := c.Close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}
