// Command versitygw serves a directory as an S3 service, for tests: versitygw DIRECTORY ADDRESS. The keys are
// in the environment, ROOT_ACCESS_KEY and ROOT_SECRET_KEY. It ends when its standard input does.
//
// It is a module of its own, because what versitygw imports is ten times what thaw does (clients of Azure,
// Kafka, LDAP, Vault), and none of it belongs into thaw's go.mod.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: %s DIRECTORY ADDRESS", os.Args[0])
	}
	dir, address := os.Args[1], os.Args[2]
	if err := (meta.XattrMeta{}).Test(dir); err != nil {
		return fmt.Errorf("%s: its file system has no attributes of users: %w", dir, err)
	}
	back, err := posix.New(dir, meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return embedgw.RunVersityGW(ctx, back, &embedgw.Config{
		RootUserAccess: os.Getenv("ROOT_ACCESS_KEY"), RootUserSecret: os.Getenv("ROOT_SECRET_KEY"),
		Ports: []string{address}, MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000,
		Quiet: true, KeepAlive: true,
	})
}
