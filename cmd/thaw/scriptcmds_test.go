package main

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// usage ends a script that calls a command wrongly.
func usage(ts *testscript.TestScript, wrong bool, how string) {
	if wrong {
		ts.Fatalf("usage: %s", how)
	}
}

// cmdFails runs a program that must end with a status of the table.
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "fails NAME COMMAND ARGS...")
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	code := exitcode.OK
	if exit != nil {
		code = exitcode.Code(exit.ExitCode())
	}
	known := false
	for _, e := range exitcode.Table() {
		known = known || e.Name == args[0]
	}
	switch {
	case !known:
		ts.Fatalf("the table of exit codes has no %q", args[0])
	case code != exitcode.ByName(args[0]):
		ts.Fatalf("ended with status %d (%s), not %s: %v", code, code.Name(), args[0], err)
	}
}

// cmdImage writes a sparse image: of three pages one is a hole, one compressible, one a copy of an
// earlier one.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 3, "image FILE SIZE SEED")
	n, err := parseSize(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	r := rand.New(rand.NewPCG(seed, 0))
	page := make([]byte, wss.PageSize)
	for off := int64(0); off+wss.PageSize <= n; off += wss.PageSize {
		switch off / wss.PageSize % 3 {
		case 0:
			continue
		case 1:
			for i := range page {
				page[i] = byte(r.Uint32N(7))
			}
		}
		_, err := f.WriteAt(page, off)
		ts.Check(err)
	}
	ts.Check(f.Truncate(n))
}

// cmdChanged writes a later image of a machine: some bytes of every other page in its first half are other
// ones.
func cmdChanged(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "changed FILE FROM")
	memory, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	for off := 0; off < len(memory)/2; off += 2 * wss.PageSize {
		for i := 100; i < wss.PageSize; i += 1000 {
			memory[off+i]++
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), memory, 0o600))
}

// cmdRecords writes an image as the memory of most programs: of records that are much alike, from page to
// page too.
func cmdRecords(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 3, "records FILE SIZE SEED")
	n, err := parseSize(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	r := rand.New(rand.NewPCG(seed, 0))
	words := make([][24]byte, 300)
	for i := range words {
		for j := range words[i] {
			words[i][j] = byte(r.Uint32())
		}
	}
	memory := make([]byte, n)
	for at := 0; at+32 <= len(memory); at += 32 {
		copy(memory[at:], words[r.IntN(len(words))][:])
		binary.LittleEndian.PutUint32(memory[at+24:], r.Uint32()>>20)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), memory, 0o644))
}

// cmdFlip changes one byte of the last file that a pattern has.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "flip PATTERN OFFSET")
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	file := files[len(files)-1]
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	data, err := os.ReadFile(file)
	ts.Check(err)
	if off < 0 {
		off += int64(len(data))
	}
	if off < 0 || off >= int64(len(data)) {
		ts.Fatalf("%s has %d bytes", file, len(data))
	}
	data[off] ^= 0x40
	ts.Check(os.WriteFile(file, data, 0o644))
}

// cmdAwait waits until a file that another process writes, or serves, matches.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "await RE FILE")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var text []byte
	for end := time.Now().Add(waitTimeout); time.Now().Before(end); {
		text, err = os.ReadFile(ts.MkAbs(args[1]))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Check(err)
		}
		if re.Match(text) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	ts.Fatalf("%s never matched; it has (%v)\n%s", args[1], err, text)
}

// cmdFetch gets what an HTTP server answers, whose address a file tells.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "fetch RE FILE")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	found := re.FindStringSubmatch(ts.ReadFile(args[1]))
	if len(found) != 2 {
		ts.Fatalf("%s has no %s with one address in parentheses", args[1], args[0])
	}
	client := http.Client{Timeout: waitTimeout,
		Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(found[1])
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s answers %s", found[1], resp.Status)
	}
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// serversKey is the key of a script's map from mount points to servers that were asked to end.
type serversKey struct{}

// cmdKillServer sends a signal to the server of a mount. By SIGKILL it ends, and the mount stays
// behind, dead. A server that had another one before is known by that: it may not answer any more.
func cmdKillServer(ts *testscript.TestScript, neg bool, args []string) {
	sig := unix.SIGKILL
	if len(args) == 2 && strings.HasPrefix(args[0], "-") {
		sig = unix.SignalNum("SIG" + args[0][1:])
		args = args[1:]
	}
	usage(ts, neg || len(args) != 1 || sig == 0, "killserver [-TERM] MNT")
	servers := ts.Value(serversKey{}).(map[string]process.Watched)
	p, ok := servers[args[0]]
	if !ok {
		pid, err := serverOf(ts.MkAbs(args[0]))
		ts.Check(err)
		p = process.Watch(pid)
		ts.Defer(p.Close)
		servers[args[0]] = p
	}
	ts.Check(p.Signal(sig))
	if sig == unix.SIGSTOP {
		awaitStop(ts, p.PID)
	}
	if sig != unix.SIGKILL {
		return
	}
	delete(servers, args[0])
	if !p.Wait(waitTimeout) {
		ts.Fatalf("the server survives kill -9")
	}
}

// awaitStop waits until every thread of a process has stopped: a signal only begins that.
func awaitStop(ts *testscript.TestScript, pid int) {
	for end := time.Now().Add(waitTimeout); time.Now().Before(end); {
		threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
		ts.Check(err)
		running := slices.ContainsFunc(threads, func(name string) bool {
			text, err := os.ReadFile(name)
			_, after, _ := strings.Cut(string(text), ") ")
			return err == nil && !strings.HasPrefix(after, "T")
		})
		if len(threads) > 0 && !running {
			return
		}
		time.Sleep(time.Millisecond)
	}
	ts.Fatalf("process %d does not stop", pid)
}

// cmdServerGone waits for a server that was asked to end.
func cmdServerGone(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "servergone MNT")
	servers := ts.Value(serversKey{}).(map[string]process.Watched)
	p, ok := servers[args[0]]
	if !ok {
		ts.Fatalf("killserver -TERM %s comes first", args[0])
	}
	if !p.Wait(waitTimeout) {
		ts.Fatalf("the server does not end")
	}
	delete(servers, args[0])
}

// cmdUmount removes a mount, whichever process serves it.
func cmdUmount(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "umount MNT")
	if os.Geteuid() == 0 {
		ts.Check(unix.Unmount(ts.MkAbs(args[0]), unix.UMOUNT_NOFOLLOW))
		return
	}
	ts.Check(ts.Exec("fusermount3", "-u", ts.MkAbs(args[0])))
}

// serverOf asks a mount for the process number of its server.
func serverOf(mnt string) (int, error) {
	m, err := access.Resolve(context.Background(), mnt)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	server, err := m.Server(ctx)
	if err != nil {
		return 0, err
	}
	st, err := server.Status(ctx)
	return st.PID, err
}

// cmdVMState writes the vmstate of a Firecracker snapshot of a machine with so many MiB, in the format of
// Firecracker 1.13.
func cmdVMState(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "vmstate FILE MIB")
	mib, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), vmState(mib), 0o644))
}

// vmState is a vmstate of Firecracker.
func vmState(mib uint64) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, 0x0710_1984_8664_0000)
	b = append(le.AppendUint64(b, 5), "8.0.0"...)
	b = append(le.AppendUint64(b, mib), "the state"...)
	sum := ^crc64.Update(^uint64(0), crc64.MakeTable(0x95AC9329AC4BC9B5), b)
	return le.AppendUint64(b, sum)
}

// cmdGuest is a machine that is restored from a mount whose server learns.
func cmdGuest(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 3, "guest STORE FILE FIRST+COUNT...")
	before := watchedRestores(ts, args[0])
	f, err := os.Open(ts.MkAbs(args[1]))
	ts.Check(err)
	defer f.Close()
	page := make([]byte, wss.PageSize)
	for _, run := range args[2:] {
		first, count, _ := strings.Cut(run, "+")
		gfn, err := strconv.ParseInt(first, 10, 64)
		ts.Check(err)
		n, err := strconv.ParseInt(count, 10, 64)
		ts.Check(err)
		for ; n > 0; gfn, n = gfn+1, n-1 {
			_, err := f.ReadAt(page, gfn*wss.PageSize)
			ts.Check(err)
		}
	}
	awaitWatched(ts, args[0], before+1)
}

// cmdWatched waits until the records of a store know of so many restores.
func cmdWatched(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "watched STORE COUNT")
	n, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	awaitWatched(ts, args[0], n)
}

func awaitWatched(ts *testscript.TestScript, store string, want uint64) {
	for end := time.Now().Add(waitTimeout); watchedRestores(ts, store) < want; {
		if time.Now().After(end) {
			ts.Fatalf("%d restores are known, and not %d", watchedRestores(ts, store), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// watchedRestores is how many restores the records of a store know.
func watchedRestores(ts *testscript.TestScript, store string) (n uint64) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(store), lessonsDir, "*"+learnedSuffix))
	ts.Check(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		ts.Check(err)
		r, err := learn.Parse(text)
		ts.Check(err)
		n += r.Restores
	}
	return n
}
