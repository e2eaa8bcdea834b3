package main

import (
	"context"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/index"
)

// remoteStore is a store whose server does the work.
type remoteStore struct{ client *control.Client }

var _ storeAPI = (*remoteStore)(nil)

// call asks for one verb whose result is a T.
func call[T any](ctx context.Context, c *control.Client, verb string, req any, p progressFunc) (T,
	error) {
	var result T
	err := c.Call(ctx, verb, req, &result, p)
	return result, err
}

func (s *remoteStore) Import(ctx context.Context, r importRequest, p progressFunc) (importReply,
	error) {
	return call[importReply](ctx, s.client, verbImport, r, p)
}

func (s *remoteStore) Export(ctx context.Context, r exportRequest, p progressFunc) error {
	return s.client.Call(ctx, verbExport, r, nil, p)
}

func (s *remoteStore) List(ctx context.Context) ([]index.Checkpoint, error) {
	return call[[]index.Checkpoint](ctx, s.client, verbList, struct{}{}, nil)
}

func (s *remoteStore) Inspect(ctx context.Context, name string) (index.Details, error) {
	return call[index.Details](ctx, s.client, verbInspect, nameRequest{Name: name}, nil)
}

func (s *remoteStore) Remove(ctx context.Context, name string) error {
	return s.client.Call(ctx, verbRemove, nameRequest{Name: name}, nil, nil)
}

func (s *remoteStore) Check(ctx context.Context, r checkRequest, p progressFunc) (index.CheckReport,
	error) {
	return call[index.CheckReport](ctx, s.client, verbCheck, r, p)
}

func (s *remoteStore) GC(ctx context.Context, r gcRequest, p progressFunc) (index.GCReport, error) {
	return call[index.GCReport](ctx, s.client, verbGC, r, p)
}

func (s *remoteStore) SetWorkingSet(ctx context.Context, name string,
	text []byte) (index.Checkpoint, error) {
	return call[index.Checkpoint](ctx, s.client, verbSetWS, setRequest{Name: name, Text: text}, nil)
}

func (s *remoteStore) ReadFile(ctx context.Context, name, file string) ([]byte, error) {
	return call[[]byte](ctx, s.client, verbReadFile, nameRequest{Name: name, File: file}, nil)
}

func (s *remoteStore) Close() error { return nil }
