package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An estate is a mount that is handed from one server process to the next. The tests hold it meanwhile, and
// never use it themselves.
type estate struct {
	t      testing.TB
	config successorConfig
	// device and ledger keep the mount when there is no server.
	device, ledger *os.File
	server         *successor
}

// successorConfig is what a server process serves.
type successorConfig struct {
	Dir        string
	Specs      []spec
	Policy     Policy
	AllowOther bool
	// Hang makes READs of this page and above never end, and HangOpen the OPEN of an image.
	Hang     uint64
	HangOpen bool
	// Slow is how long each READ takes.
	Slow time.Duration
	// TakeOver: it was given a mount to go on with; else it mounts, and gives it.
	TakeOver bool
}

// A successor is a server process as its test sees it.
type successor struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	ended bool
}

// A successorReport is what a server process says when asked.
type successorReport struct {
	Err         string
	InUse       int
	Outstanding int64
	Takeovers   int
	Stats       Stats
}

// successorMain is the life of a server process. It answers each line of its standard input.
func successorMain() int {
	var c successorConfig
	if err := json.Unmarshal([]byte(os.Getenv("THAW_FS_TEST_CONFIG")), &c); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	store := newFakeStore(c.Specs...)
	store.onRead = func(gfn uint64) error {
		if c.Hang != 0 && gfn >= c.Hang {
			select {}
		}
		time.Sleep(c.Slow)
		return nil
	}
	store.onOpen = func(string) error {
		if c.HangOpen {
			select {}
		}
		return nil
	}
	srv, err := succeed(c, store)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "drain" {
			ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
			defer cancel()
			if err := srv.Drain(ctx); err != nil {
				fmt.Println("error:", err)
				return 1
			}
			return 0
		}
		if err := json.NewEncoder(os.Stdout).Encode(srv.report(strings.Fields(in.Text()))); err != nil {
			return 1
		}
	}
	return 0
}

func succeed(c successorConfig, store Store) (*Server, error) {
	o := Options{Policy: c.Policy, Rights: Rights{Others: c.AllowOther}, TakeOver: true}
	if c.TakeOver {
		return TakeOver(context.Background(), store, Connection{Device: 3, Ledger: 4}, o)
	}
	srv, err := Mount(context.Background(), store, c.Dir, o)
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(os.NewFile(3, "holder"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	own, ok := srv.Connection()
	if !ok {
		return nil, ErrNotOurs
	}
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(own.Device, own.Ledger), nil)
	return srv, err
}

// report answers "NAME CLONE".
func (s *Server) report(words []string) (r successorReport) {
	words = append(words, "", "")
	st, err := s.Stats(words[0], words[1])
	if err != nil {
		return successorReport{Err: err.Error()}
	}
	e := s.tree.entry(words[0])
	e.mu.Lock()
	defer e.mu.Unlock()
	return successorReport{
		InUse: e.opens, Outstanding: s.demand.outstanding.Load(), Stats: st,
		Takeovers: int(s.metrics.takeovers.Load()),
	}
}

// newEstate mounts, with a server process.
func newEstate(t testing.TB, c successorConfig) *estate {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	c.Dir = mountDir(t)
	e := &estate{t: t, config: c}
	t.Cleanup(e.close)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair[0], os.NewFile(uintptr(pair[1]), "holder")
	defer unix.Close(ours)
	defer theirs.Close()
	if e.server, err = e.start(c, theirs); err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, unix.CmsgSpace(2*4))
	_, n, _, _, err := unix.Recvmsg(ours, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	list, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 2 {
		t.Fatal(fds, err)
	}
	e.device, e.ledger = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "ledger")
	if c := e.connection(); !c.Resends {
		t.Skip("the kernel does not send requests again: Linux 6.9 does")
	}
	return e
}

func (e *estate) connection() ConnectionInfo {
	e.t.Helper()
	info, err := Connection{Device: int(e.device.Fd()), Ledger: int(e.ledger.Fd())}.Info()
	if err != nil {
		e.t.Fatal(err)
	}
	return info
}

// start starts a server process and waits until it is ready.
func (e *estate) start(c successorConfig, files ...*os.File) (*successor, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := selfCommand("successor", "THAW_FS_TEST_CONFIG="+string(config))
	cmd.ExtraFiles = files
	s := &successor{t: e.t, cmd: cmd}
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(stdout)
	line, err := s.out.ReadString('\n')
	if line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("server: %s", strings.TrimSpace(line)), err, cmd.Wait())
	}
	return s, nil
}

// ask has the server say how it is.
func (e *estate) ask(name, clone string) (r successorReport) {
	e.t.Helper()
	if _, err := fmt.Fprintln(e.server.stdin, name, clone); err != nil {
		e.t.Fatal(err)
	}
	line, err := e.server.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil || r.Err != "" {
		e.t.Fatal(r.Err, err)
	}
	return r
}

// kill ends the server, whatever it does.
func (e *estate) kill() {
	e.server.ended = true
	e.server.cmd.Process.Kill()
	e.server.cmd.Wait() // its status says that it was killed
}

// drain has the server let go of the mount.
func (e *estate) drain() {
	e.t.Helper()
	e.server.ended = true
	if _, err := fmt.Fprintln(e.server.stdin, "drain"); err != nil {
		e.t.Fatal(err)
	}
	said, _ := io.ReadAll(e.server.out)
	if err := e.server.cmd.Wait(); err != nil {
		e.t.Fatalf("drain: %v: %s", err, said)
	}
}

// try starts the next server.
func (e *estate) try(change func(*successorConfig)) error {
	c := e.config
	c.TakeOver, c.Hang, c.HangOpen = true, 0, false
	if change != nil {
		change(&c)
	}
	s, err := e.start(c, e.device, e.ledger)
	if err != nil {
		return err
	}
	e.server = s
	return nil
}

// next starts the next server, which must go on.
func (e *estate) next() {
	e.t.Helper()
	if err := e.try(nil); err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) client() *proc { return startClient(e.t, e.abort, nil) }

func (e *estate) abort() {
	if err := Abort(e.config.Dir); err != nil {
		e.t.Log(err)
	}
}

func (e *estate) path(elem ...string) string {
	return filepath.Join(append([]string{e.config.Dir}, elem...)...)
}

// close takes the mount away, used or not.
func (e *estate) close() {
	if e.server != nil && !e.server.ended {
		e.kill()
	}
	if e.device != nil {
		e.device.Close()
		e.ledger.Close()
	}
	if _, err := FindMount(e.config.Dir); err == nil {
		e.abort()
	}
}
