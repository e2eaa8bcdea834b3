package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys of who may do everything.
const (
	AccessKey = "thaw-test"
	SecretKey = "thaw-test-secret"
)

// startTimeout bounds how long the service may take to begin.
const startTimeout = 30 * time.Second

// Builder builds the program, when it is first needed. Its zero value is ready. A test binary has one.
type Builder struct {
	once sync.Once
	path string
	err  error
}

// binary returns the program. Go's cache has it after the first time.
func (b *Builder) binary() (string, error) {
	b.once.Do(func() {
		_, here, _, _ := runtime.Caller(0)
		source := filepath.Join(filepath.Dir(here), "versitygw")
		dir, err := os.MkdirTemp("", "thaw-versitygw-")
		if err != nil {
			b.err = err
			return
		}
		b.path = filepath.Join(dir, "versitygw")
		cmd := exec.Command("go", "build", "-o", b.path, ".")
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build versitygw: %w: %s", err, bytes.TrimSpace(out))
		}
	})
	return b.path, b.err
}

// Remove deletes the program.
func (b *Builder) Remove() {
	if b.path != "" {
		os.RemoveAll(filepath.Dir(b.path))
	}
}

// Start starts the service over a new directory, with an empty bucket, until the test ends. A host on which
// it cannot be built, or has no place for its attributes, skips the test.
func (b *Builder) Start(t testing.TB, bucket string) (url string) {
	t.Helper()
	path, err := b.binary()
	if err != nil {
		t.Skip(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var said bytes.Buffer
	cmd := exec.Command(path, t.TempDir(), address)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe() // the service ends with it, also when this process is killed
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		<-done
		timer.Stop()
	})
	if !begun(address, done) {
		in.Close()
		<-done
		t.Skipf("versitygw: %s", said.Bytes())
	}
	makeBucket(t, address, bucket)
	return "http://" + address
}

// begun waits until the service accepts connections; false if it ends before.
func begun(address string, done <-chan struct{}) bool {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-done:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

func makeBucket(t testing.TB, address, bucket string) {
	t.Helper()
	transport, err := minio.DefaultTransport(false)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	c, err := minio.New(address, &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1", Transport: transport,
	})
	if err == nil {
		err = c.MakeBucket(context.Background(), bucket, minio.MakeBucketOptions{})
	}
	if err != nil {
		t.Fatalf("make bucket: %v", err)
	}
}
