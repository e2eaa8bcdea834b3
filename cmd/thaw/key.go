package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/keys"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
)

const keyFlags = "--key-file, --key-command or --key-keyring"

func newKeyCommand(a *app) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "key",
		Short: "Keys of sealed stores",
		Long: `Make, show and change the keys of sealed stores: see "thaw help sealed". A store has a key of
its own, which the user's keys open; so they can change without its packs being written
again, and there can be several.`,
	}, newKeyNewCommand(a), newKeyIDCommand(a), newKeyShowCommand(a), newKeyVerifyCommand(a),
		newKeyChangeCommand(a), newKeyForgetCommand(a))
}

func newKeyNewCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Write a new key into a file",
		Long: `Write a new random key into a new file that only its user can read: 64 hexadecimal digits.
Keep a copy of it elsewhere: what it seals is lost without it.` + exitStatus(exitcode.Exists),
		Example: `  thaw key new /root/store.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			k := seal.NewKey()
			if err := writeKey(args[0], k); err != nil {
				return named(err, "write a new key")
			}
			return a.printKey(k)
		},
	}
}

// writeKey writes a key into a new file, durably.
func writeKey(path string, k seal.Key) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return exitcode.WithHint(exitcode.Exists, err, "keys are not overwritten: choose another name")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(k.Text())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (a *app) printKey(k seal.Key) error {
	if a.json {
		return a.printJSON(map[string]string{"id": k.ID()})
	}
	a.printf("%s\n", k.ID())
	return nil
}

func newKeyIDCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "id",
		Short: "Print which key is given",
		Long: `Print the ID of the key that is given. An ID tells keys apart, and nothing of the key.` +
			exitStatus(exitcode.Key),
		Example: `  thaw key id --key-file /root/store.key`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := a.keys.Must(cmd.Context(), keyFlags)
			if err != nil {
				return named(err, "key id")
			}
			return a.printKey(k)
		},
	}
}

func newKeyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show STORE",
		Short: "Say which keys open a store",
		Long: `Print the IDs of the keys that open a store. It needs none of them.` +
			exitStatus(exitcode.NotStore),
		Example: `  thaw key show /srv/store`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runKeyShow(cmd.Context(), a, args[0]), "key show %s", args[0])
		},
	}
}

// keyReply is a key of a store in JSON.
type keyReply struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

func runKeyShow(ctx context.Context, a *app, path string) error {
	store, err := access.Whole(ctx, path)
	if err != nil {
		return err
	}
	h, err := index.SealOf(store)
	if err != nil {
		return err
	}
	slots := []keyReply{}
	if h != nil {
		for _, s := range h.Keys {
			slots = append(slots, keyReply{s.ID, s.Created})
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"sealed": h != nil, "keys": slots})
	}
	if h == nil {
		a.printf("not sealed\n")
		return nil
	}
	var rows [][]string
	for _, s := range slots {
		rows = append(rows, []string{s.ID, s.Created.Format("2006-01-02 15:04:05")})
	}
	a.table([]string{"key", "since (UTC)"}, rows)
	return nil
}

func newKeyVerifyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify STORE",
		Short: "Find out whether the given key opens a store",
		Long: `Find out whether the key that is given opens a store. Its packs are not read.` +
			exitStatus(exitcode.NotStore, exitcode.Key),
		Example: `  thaw key verify /srv/store --key-file /backup/store.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := access.Whole(cmd.Context(), args[0])
			if err == nil {
				err = verifyKey(cmd.Context(), a, store)
			}
			return named(err, "key verify %s", args[0])
		},
	}
}

func verifyKey(ctx context.Context, a *app, store string) error {
	v, err := index.OpenVault(ctx, store, a.keys.Get)
	switch {
	case err != nil:
		return err
	case v == nil:
		return index.ErrNotSealed
	}
	a.note("the key opens it")
	return nil
}

func newKeyChangeCommand(a *app) *cobra.Command {
	next, keep := new(keys.Source), false
	cmd := &cobra.Command{
		Use:   "change STORE",
		Short: "Give a store another key",
		Long: `Make another key one that opens a store, instead of the one that is given, or beside it with
--keep. No pack is written again, and a server goes on, until it is started again.

Whoever has the old key and an old copy of thaw-store.json can still read the store. If
the key is known to others, import what is in it into a new store.` +
			exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Key),
		Example: `  thaw key change /srv/store --key-file old.key --new-key-file new.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(changeKey(cmd.Context(), a, args[0], next, keep), "key change %s", args[0])
		},
	}
	next.AddFlags(cmd.Flags(), "new-", "the new key")
	cmd.Flags().BoolVar(&keep, "keep", false, "the old key opens the store, too")
	return cmd
}

func changeKey(ctx context.Context, a *app, path string, next *keys.Source, keep bool) error {
	store, err := access.Whole(ctx, path)
	if err != nil {
		return err
	}
	if !next.Given() {
		return exitcode.Errorf(exitcode.Usage, "which new key? \"thaw key new\" makes one for --new-key-file")
	}
	old, err := a.keys.Must(ctx, keyFlags)
	if err != nil {
		return err
	}
	other, err := next.Must(ctx, "--new-key-file")
	if err != nil {
		return err
	}
	return changeSeal(ctx, store, func(h seal.Header) (seal.Header, error) {
		h, err := h.Add(old, other)
		if err != nil || keep || old.ID() == other.ID() {
			return h, err
		}
		return h.Remove(old.ID())
	})
}

func newKeyForgetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "forget STORE ID",
		Short: "Take a key away from a store",
		Long: `Make a key, whose ID is given, one that does not open a store any more. It needs another one of
its keys.` + exitStatus(exitcode.NotStore, exitcode.Locked, exitcode.Key),
		Example: `  thaw key forget /srv/store 0123456789abcdef --key-file other.key`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(forgetKey(cmd.Context(), a, args[0], args[1]), "key forget %s %s", args[0], args[1])
		},
	}
}

func forgetKey(ctx context.Context, a *app, path, id string) error {
	store, err := access.Whole(ctx, path)
	if err != nil {
		return err
	}
	k, err := a.keys.Must(ctx, keyFlags)
	if err != nil {
		return err
	}
	return changeSeal(ctx, store, func(h seal.Header) (seal.Header, error) {
		if _, err := h.Open(k); err != nil {
			return h, err
		}
		if k.ID() == id {
			return h, exitcode.Errorf(exitcode.Usage, "it is the key that is given: give another one of the store")
		}
		return h.Remove(id)
	})
}

// sealWait is how long a command that changes keys waits for one that writes to the store.
const sealWait = 30 * time.Second

func changeSeal(ctx context.Context, store string, change func(seal.Header) (seal.Header, error)) error {
	if err := index.ChangeSeal(ctx, store, sealWait, change); err != nil {
		return fmt.Errorf("the keys are as they were: %w", err)
	}
	return nil
}
