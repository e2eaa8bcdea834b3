package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// complete tells shells which values a flag has.
func complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag,
		cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag
	}
}

// completeNames completes STORE, MNT or a checkpoint below one of them, then more checkpoints.
func completeNames(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || strings.ContainsRune(word, filepath.Separator) {
		return completePlace(cmd, nil, word)
	}
	names, _ := namesIn(cmd.Context(), args[0])
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args[1:], name) }),
		cobra.ShellCompDirectiveNoFileComp
}

// completeNameAndFile completes STORE NAME, or MNT/NAME, and then a file or directory.
func completeNameAndFile(cmd *cobra.Command, args []string, word string) ([]string,
	cobra.ShellCompDirective) {
	if len(args) == 1 {
		if names, whole := namesIn(cmd.Context(), args[0]); whole {
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
	if len(args) == 0 {
		return completePlace(cmd, args, word)
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completePlace completes one argument: STORE, MNT, or a checkpoint below one of them. On a mount a
// checkpoint is a directory, which the shell finds.
func completePlace(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	store, _ := filepath.Split(word)
	if store == "" || !index.IsStore(store) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	names, _ := namesIn(cmd.Context(), store)
	for i, name := range names {
		names[i] = store + name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeMount completes one argument that is a mount.
func completeMount(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	mounts, _ := fs.MountPoints()
	return mounts, cobra.ShellCompDirectiveNoFileComp
}

// completeDirs completes arguments that are directories.
func completeDirs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// namesIn returns the checkpoints of the store that a path names, for a shell that completes a command;
// none if they cannot be had. whole says that the path names the store, and not one of them.
func namesIn(ctx context.Context, path string) (names []string, whole bool) {
	p, err := access.Find(ctx, path)
	if err != nil {
		return nil, false
	}
	quiet := access.Stores{Note: func(string, ...any) {}}
	all, err := access.Read(ctx, quiet, p.Store, func(s *index.Store) ([]index.Checkpoint, error) {
		return s.List(ctx)
	})
	if err != nil {
		return nil, false
	}
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names, len(p.Names) == 0
}
