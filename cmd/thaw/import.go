package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/index"
)

type importOptions struct {
	name, profile    string
	layout           string
	ignoreWorkingSet bool
	replace          bool
	init             bool
	maxShare         maxShareFlag
	parent           string
	from             importer.Options
}

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import {STORE | MNT} PATH...",
		Short: "Put a saved machine's memory into a store",
		Long: `Put checkpoints into a store, which is made if STORE is missing or empty; with --init also
if it is a directory with other files, as the root of a new disk.

PATH is a checkpoint directory (its "memory" and the files beside it: "state",
"working-set", "info.json"), a bare memory file, whose size must be a multiple of
4096, or what another VMM saved: Firecracker, Cloud Hypervisor, QEMU, libvirt, VMware,
ELF cores, LiME dumps. "-" is the standard input, and PATH
may be a pipe. "thaw help formats" has the details:
how they are recognised, what is checked, from what a machine can be restored. A file
that begins like another format is never taken for memory, but with --raw.

Of a differential checkpoint ("thaw vm checkpoint --diff") the whole memory is
imported, including the pages of its parents. Holes of sparse files are not read.
Pages that the store has already, from this or any other checkpoint, are not stored
again, nor are pages of zeros.

A "working-set" file must fit the image: its pages are copied into a segment for one
sequential prefetch, in the order in which they were first touched (traced pages
first, then pages that are known only from reads and access bits). Of a set that is
larger than --max-share only the first part is copied, with a warning: prefetching
more would make the restore slower.

Pages are stored in blocks of 16, and one fault reads a whole block. The pages of the
working set come first, by the vCPU that touched them; then pages that are neighbours
in the guest's address spaces, by its page tables (64-bit x86). If "info.json" does
not say where these are ("paging": see go doc ./wss/pagetable Info), they are searched
for in the image. The other pages, and with --layout=physical all pages that are in no
working set, are stored by page number. The blocks stay as they are: a set that is
recorded or set later gets a segment, and "thaw repack" stores its pages in another way, but
in the same blocks.

A memory is refused if its size is not the one in "state" or "info.json", or if it
changes while it is read. PATH may be on the mount of the same store, and so may the
parents of a differential checkpoint.

With --replace the checkpoint that has the name stays until the new one is whole; it must
not be open on the mount.

A store that is made while a key is given (--key-file and the like, $THAW_KEY_FILE) is
sealed: see "thaw help sealed".

If the import is killed or the disk is full, there is no new checkpoint. If the store is
mounted, the mount shows the new checkpoint at once.

Of several PATHs those that cannot be imported are named at the end, and the others are there.
One command for many is much quicker than one for each.

With --json: the checkpoint's info.json and what the import took; of several an array.` +
			exitStatus(exitcode.Partial, exitcode.NotStore, exitcode.Locked, exitcode.Version, exitcode.NotFound,
				exitcode.Exists, exitcode.BadName, exitcode.NotImage, exitcode.NoSpace,
				exitcode.WorkingSet, exitcode.ReadOnly, exitcode.Key, exitcode.Interrupted),
		Example: `  thaw import /srv/store /var/lib/vm/checkpoint --name web-1
  thaw import /srv/store /var/lib/vm/memory.raw --name raw
  thaw import /srv/store snapshot --vmstate vm.snap --memory vm.mem
  ssh host zstd -c vm.mem | thaw import /srv/store - --name remote`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Of a large image it remembers the hashes. Without this, as much again would be garbage before
			// that is collected. There are no pointers in them, so it costs little.
			debug.SetGCPercent(40)
			return runImports(cmd.Context(), a, args[0], args[1:], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the checkpoint (default: the last element of PATH)")
	f.BoolVar(&o.replace, "replace", false,
		"take the name over from a checkpoint that has it, as soon as the new one is whole")
	f.BoolVar(&o.init, "init", false, "make a store in a directory that has other files")
	f.StringVar(&o.profile, "profile", "",
		`"default" is stored quickly, and made small when the store is repacked; "small" is repacked before
import returns; "fast" makes faults faster and takes up to twice the space`)
	complete(cmd, "profile", index.ProfileDefault.String(), index.ProfileFast.String(), profileSmall)
	f.StringVar(&o.layout, "layout", layoutVirtual,
		`order of pages in no working set: "virtual", by the guest's page tables, or "physical"`)
	f.BoolVar(&o.ignoreWorkingSet, "ignore-working-set", false, "ignore a working-set file")
	o.maxShare.addTo(f, "cut a working set")
	f.StringVar(&o.from.VMState, "vmstate", "", "the vmstate file of a Firecracker snapshot")
	f.StringVar(&o.from.Memory, "memory", "", "the memory file of a Firecracker snapshot")
	f.StringVar(&o.parent, "parent", "", "PATH is a diff of Firecracker over this checkpoint")
	f.BoolVar(&o.from.Raw, "raw", false, "import a file byte for byte, whatever format it seems to have")
	return cmd
}

// importReply is what one import prints with --json.
type importReply struct {
	importer.Reply
	Repacked *index.RepackReport `json:"repacked,omitempty"`
}

func runImports(ctx context.Context, a *app, path string, paths []string, o importOptions) error {
	store, err := access.Whole(ctx, path)
	switch {
	case err != nil:
	case len(paths) > 1 && (o.name != "" || o.ofOne() || slices.Contains(paths, stdinPath)):
		err = exitcode.Errorf(exitcode.Usage,
			"--name, --vmstate, --memory, --parent and - are for one PATH, not for %d", len(paths))
	case o.replace && len(paths) > 1:
		err = distinct(ctx, paths)
	}
	if err != nil {
		return named(err, "import")
	}
	done, failed := []importReply{}, []error(nil)
	w := access.NewWriter(a.stores, store)
	for _, path := range paths {
		reply, err := runImport(ctx, a, w, store, path, o)
		if err != nil {
			failed = append(failed, named(err, "import %s", path))
		} else {
			done = append(done, reply)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := w.Close(); err != nil {
		failed = append(failed, named(err, "import"))
	}
	err = errors.Join(failed...)
	if len(done) == 0 {
		return err
	}
	if a.json {
		var v any = done
		if len(paths) == 1 {
			v = done[0]
		}
		if err := a.printJSON(v); err != nil {
			return err
		}
	}
	return exitcode.With(exitcode.Partial, err)
}

// distinct refuses paths of which one would take the name of another one over.
func distinct(ctx context.Context, paths []string) error {
	if err := access.Answering(ctx, paths...); err != nil {
		return err
	}
	by := map[string]string{}
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		name := defaultName(abs)
		if other, twice := by[name]; twice {
			return exitcode.Errorf(exitcode.Usage, "%s and %s would both be called %s", other, path, name)
		}
		by[name] = path
	}
	return nil
}

func runImport(ctx context.Context, a *app, w *access.Writer, store, path string, o importOptions) (
	reply importReply, err error,
) {
	// Errors in the arguments are found before a store is made.
	r, open, err := o.request(a)
	if err != nil {
		return reply, err
	}
	if path != stdinPath {
		if err := access.Answering(ctx, path); err != nil {
			return reply, err
		}
		if path, err = filepath.Abs(path); err != nil {
			return reply, err
		}
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !o.ofOne() {
			return reply, exitcode.With(exitcode.NotFound, err)
		}
	}
	if r.Name, err = checkpointName(o.name, path); err != nil {
		return reply, err
	}
	if err := o.checkPaths(path); err != nil {
		return reply, err
	}
	if o.replace {
		if err := letGo(ctx, store, r.Name); err != nil {
			return reply, err
		}
	}
	if reply.Reply, err = importCheckpoint(ctx, a, w, path, open, o.from, r); err != nil {
		return reply, err
	}
	if o.profile == profileSmall {
		if err := w.Close(); err != nil {
			return reply, err
		}
		if reply.Repacked, err = squeeze(ctx, a, store, reply.Checkpoint.Name); err != nil {
			return reply, err
		}
	}
	a.silent = access.Follow(ctx, store)
	if !a.json {
		a.imported(reply.Reply)
	}
	if s := reply.Repacked; s != nil && !a.json {
		a.note("repacked its %s packs: %s smaller", count(s.Repacked), size(s.FreedBytes()))
	}
	return reply, nil
}

// request is what the flags ask for.
func (o *importOptions) request(a *app) (r importer.Request, open index.OpenOptions, err error) {
	r = importer.Request{Parent: o.parent, Replace: o.replace, IgnoreWorkingSet: o.ignoreWorkingSet, Log: a.log}
	o.from.Diff = o.parent != ""
	open = index.OpenOptions{Create: true, Among: o.init}
	if r.Policy, err = o.maxShare.policy(); err != nil {
		return r, open, err
	}
	if open.Profile, _, err = parseProfile(o.profile); err != nil {
		return r, open, err
	}
	if o.profile != "" {
		r.Profile = &open.Profile
	}
	r.Physical, err = physical(o.layout)
	return r, open, err
}

// ofOne says whether flags name the files of one checkpoint.
func (o *importOptions) ofOne() bool {
	return o.from.VMState != "" || o.from.Memory != "" || o.parent != ""
}

// checkPaths refuses flags that say different things of one path.
func (o *importOptions) checkPaths(path string) error {
	if o.ofOne() && (o.from.Raw || path == stdinPath) {
		return exitcode.Errorf(exitcode.Usage,
			"--vmstate, --memory and --parent are for the files of a Firecracker snapshot, not for --raw or -")
	}
	return nil
}

// checkpointName is the name that was asked for, or the one that a path suggests.
func checkpointName(name, path string) (string, error) {
	switch {
	case name != "":
	case path == stdinPath, strings.HasPrefix(path, "/dev/fd/"), strings.HasPrefix(path, "/proc/"):
		return "", exitcode.Errorf(exitcode.Usage, "what comes from a pipe needs a name (--name)")
	default:
		name = defaultName(path)
	}
	return name, index.CheckName(name)
}

// imported says what an import did.
func (a *app) imported(reply importer.Reply) {
	st := reply.Stats
	if reply.Saw != "" {
		a.note("%s: %s", reply.Checkpoint.Name, reply.Saw)
	}
	a.note("imported %s: %s of memory, %s pages stored, %s known already, %s zero; "+
		"the store grew by %s in %.1f s (%s/s)",
		reply.Checkpoint.Name, size(st.MemoryBytes), count(st.NewPages), count(st.DupPages),
		count(st.ZeroPages), size(st.StoredBytes+st.SegmentBytes), st.Seconds,
		size(int64(float64(st.MemoryBytes)/max(st.Seconds, 1e-9))))
	if reply.Reading != "" {
		a.note("it is for reading only: %s", reply.Reading)
	}
	a.warn(reply.Note)
	a.warn(reply.Warning)
	if l := reply.Layout; l.AddressSpaces > 0 {
		a.note("%s pages are stored by the page tables of %d address spaces (read in %.2f s)",
			count(l.VirtualPages), l.AddressSpaces, l.Seconds)
	}
}

// importCheckpoint imports what is at path, and shows how far that is.
func importCheckpoint(ctx context.Context, a *app, w *access.Writer, path string, o index.OpenOptions,
	from importer.Options, r importer.Request) (reply importer.Reply, err error) {
	src, err := openSource(ctx, a, path, from)
	if err != nil {
		return reply, err
	}
	defer src.Close()
	return access.Next(ctx, w, o, func(s *index.Store) (importer.Reply, error) {
		p := a.progress()
		defer p.done()
		r.Progress = p.set
		return src.Import(ctx, s, r)
	})
}

// openSource finds out what there is to be imported.
func openSource(ctx context.Context, a *app, path string, from importer.Options) (*importer.Source, error) {
	switch {
	case path == stdinPath:
	case isPipe(path):
		return openPipe(ctx, path, from.Raw)
	default:
		return importer.Open(ctx, path, from)
	}
	r := a.stdin
	if f, ok := r.(*os.File); ok {
		r = stdin{ctx, f}
	}
	return importer.OpenStream("the standard input", r, from.Raw)
}

// profileSmall imports by the default profile, and repacks what that has stored.
const profileSmall = "small"

// parseProfile reads the flag --profile.
func parseProfile(flag string) (_ index.Profile, small bool, err error) {
	if flag == profileSmall {
		return index.ProfileDefault, true, nil
	}
	p, err := index.ParseProfile(flag)
	if err != nil {
		return p, false, exitcode.With(exitcode.Usage, fmt.Errorf("%w, or %q", err, profileSmall))
	}
	return p, false, nil
}

// squeeze repacks the packs that nobody but one checkpoint refers to: those that its import has made. The
// checkpoint is there already, whatever comes of it.
func squeeze(ctx context.Context, a *app, store, name string) (*index.RepackReport, error) {
	p := a.progress()
	defer p.done()
	known, err := a.lessons(ctx, store)
	if err != nil {
		return nil, err
	}
	o := index.RepackOptions{Names: []string{name}, Own: true, Seen: known.seen, Progress: p.set}
	report, err := repack(ctx, a, store, o, true)
	if err != nil {
		return nil, fmt.Errorf("%s is imported, but not squeezed: %w", name, err)
	}
	return &report, nil
}

// Values of the flag --layout, for the pages in no working set.
const (
	layoutVirtual  = "virtual"  // by the guest's page tables, where there are any
	layoutPhysical = "physical" // by guest frame number
)

// physical says whether a layout is the physical one; empty is the default.
func physical(layout string) (bool, error) {
	switch layout {
	case "", layoutVirtual, layoutPhysical:
		return layout == layoutPhysical, nil
	}
	return false, exitcode.Errorf(exitcode.Usage, "unknown layout %q: want %s or %s", layout,
		layoutVirtual, layoutPhysical)
}

// defaultName is the last element of the path; of MEMORYFILE.EXT without the extension, and of a
// directory's memory file the directory's name.
func defaultName(abs string) string {
	base := filepath.Base(abs)
	if st, err := os.Stat(abs); err == nil && !st.IsDir() {
		if base == "memory" {
			return filepath.Base(filepath.Dir(abs))
		}
		base = strings.TrimSuffix(base, filepath.Ext(base))
	}
	return base
}
