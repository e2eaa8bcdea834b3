package process

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseFiles(t *testing.T) {
	for text, want := range map[string]map[string]int{
		"":                     {},
		"fuse=7,ledger=8":      {"fuse": 7, "ledger": 8},
		"fuse=x,=4,a=-1,b=2,c": {},
		"fuse=7,fuse=9":        {"fuse": 9},
	} {
		if d := cmp.Diff(want, parseFiles(text)); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

// What systemd gives is ours only if it is meant for this process, and has our name.
func TestListenFDs(t *testing.T) {
	given := func(pid, n, names string) map[string]string {
		return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": n, "LISTEN_FDNAMES": names}
	}
	for name, c := range map[string]struct {
		env  map[string]string
		want map[string]int
	}{
		"none":     {nil, map[string]int{}},
		"ours":     {given("9", "3", "thaw-fuse:web:thaw-ledger"), map[string]int{"fuse": 3, "ledger": 5}},
		"another":  {given("8", "1", "thaw-fuse"), map[string]int{}},
		"fewer":    {given("9", "1", "thaw-fuse:thaw-x"), map[string]int{"fuse": 3}},
		"nameless": {given("9", "2", ""), map[string]int{}},
	} {
		if d := cmp.Diff(c.want, listenFDs(9, func(k string) string { return c.env[k] })); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func FuzzListenFDs(f *testing.F) {
	f.Add("fuse=7,ledger=8", "3", "thaw-fuse:web")
	f.Fuzz(func(t *testing.T, files, n, names string) {
		for name, fd := range parseFiles(files) {
			if name == "" || fd < 3 {
				t.Errorf("%q: %d", name, fd)
			}
		}
		env := map[string]string{"LISTEN_PID": "9", "LISTEN_FDS": n, "LISTEN_FDNAMES": names}
		for name, fd := range listenFDs(9, func(k string) string { return env[k] }) {
			if name == "" || fd < 3 {
				t.Errorf("%q: %d", name, fd)
			}
		}
	})
}

// What a server tells its holder arrives there, files too.
func TestHolder(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(pair[0]), "ours")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	files := Files{HolderFile: os.NewFile(uintptr(pair[1]), HolderFile)}
	h, err := FindHolder(files)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, err := range []error{h.Keep("fuse", int(null.Fd())), h.Tell("READY=1\nX=y"), h.Drop("fuse")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []Message
	for range 3 {
		m, err := ReadMessage(conn.(*net.UnixConn))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if m := got[0]; !m.Is("FDSTORE") || m.Name() != "fuse" || m.File == nil || m.Value("FDPOLL") != "0" {
		t.Errorf("%+v", m)
	} else {
		m.File.Close()
	}
	if m := got[1]; !m.Is("READY") || m.Value("X") != "y" || m.Name() != "" || m.File != nil {
		t.Errorf("%+v", m)
	}
	if m := got[2]; !m.Is("FDSTOREREMOVE") || m.Name() != "fuse" {
		t.Errorf("%+v", m)
	}
	h.Close()
	files.Close()
	if m, err := ReadMessage(conn.(*net.UnixConn)); !m.Empty() || err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %+v, %v", m, err)
	}
	var none *Holder
	if none.Tell("x") != nil || none.Keep("x", 0) != nil || none.Drop("x") != nil {
		t.Error("without a holder")
	}
}

// Whoever listens on NOTIFY_SOCKET gets files only if it says that it keeps them.
func TestHolderThatKeepsNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if h, err := FindHolder(nil); h != nil || err != nil {
		t.Error(h, err)
	}
	for fdstore, want := range map[string]bool{"": false, "0": false, "16": true} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: t.TempDir() + "/n", Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", conn.LocalAddr().String())
		t.Setenv("FDSTORE", fdstore)
		h, err := FindHolder(Files{})
		if err != nil || h.Keeps != want || h.Ours {
			t.Errorf("FDSTORE=%q: %+v, %v", fdstore, h, err)
		}
		h.Close()
		conn.Close()
	}
}

// The next process finds the files by their names.
func TestFilesGiven(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := Self("-test.run=^$")
	cmd.Env = append(os.Environ(), filesTestEnv+"=1")
	cmd.ExtraFiles = []*os.File{r}
	Files{"out": w, "in": r}.Give(cmd)
	if d := cmp.Diff(3, len(cmd.ExtraFiles)); d != "" {
		t.Error(d)
	}
	err = cmd.Run()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(r)
	if string(said) != "here" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
}

const filesTestEnv = "THAW_TEST_FILES"

// filesMain is the process of TestFilesGiven.
func filesMain() int {
	files := InheritedFiles()
	names := maps.Clone(files)
	delete(names, "in")
	delete(names, "out")
	if len(names) > 0 || os.Getenv(filesEnv) != "" {
		return 1
	}
	if _, err := files["out"].WriteString("here"); err != nil {
		return 1
	}
	return 0
}
