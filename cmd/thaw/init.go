package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// initReply is what `thaw init --json` prints.
type initReply struct {
	Store  string `json:"store"`
	Sealed bool   `json:"sealed"`
}

func newInitCommand(a *app) *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "init STORE",
		Short: "Make a store",
		Long: `Make a store in the directory STORE, which is made if it is missing (for its owner only).
Other files that are in it stay, and are never touched. A store is not made where one is.

"thaw import" makes a store, too, where STORE is missing or empty.

With a key (--key-file and the like, or $THAW_KEY_FILE) the store is sealed: see "thaw
help sealed". A store that was made without one cannot be sealed later.` +
			exitStatus(exitcode.NotStore, exitcode.Exists, exitcode.NoSpace, exitcode.ReadOnly, exitcode.Key),
		Example: `  thaw init /srv/store
  thaw init /srv/store --key-file /root/store.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runInit(cmd.Context(), a, args[0], profile), "init %s", args[0])
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", `how pages are stored: "default" or "fast" (see import)`)
	complete(cmd, "profile", index.ProfileDefault.String(), index.ProfileFast.String())
	return cmd
}

func runInit(ctx context.Context, a *app, dir, profile string) error {
	o := index.OpenOptions{Create: true, Among: true}
	var err error
	if o.Profile, err = index.ParseProfile(profile); err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	if err := access.Answering(ctx, dir); err != nil {
		return err
	}
	if index.IsStore(dir) {
		return exitcode.WithHint(exitcode.Exists, fmt.Errorf("%s is a store already", dir),
			fmt.Sprintf(`"thaw ls %s" lists its checkpoints; nothing was changed`, dir))
	}
	sealed, err := access.Write(ctx, a.stores, dir, o, func(s *index.Store) (bool, error) {
		return s.Sealed(), nil
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(initReply{dir, sealed})
	}
	if sealed {
		a.note("it is sealed: without its key, and without %s, nobody can read it", storeFile)
	}
	a.note("%s is a store; put checkpoints into it with: thaw import %s PATH", dir, dir)
	return nil
}
