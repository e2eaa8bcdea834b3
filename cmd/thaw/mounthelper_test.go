package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What mount(8) passes, and what thaw is called with; "!" is an error with these words.
func TestMountHelperOptions(t *testing.T) {
	for _, c := range []struct{ call, want string }{
		{"/st /mnt", "mount --daemon -- /st /mnt"},
		{"/st /mnt -o rw", "mount --daemon --read-only=false -- /st /mnt"},
		{"/st /mnt -o ro", "mount --daemon --read-only -- /st /mnt"},
		{"-- -st /mnt", "mount --daemon -- -st /mnt"},
		{"/st /mnt -o defaults,_netdev,nofail,noauto,auto,user,users,owner,group,comment=a=b",
			"mount --daemon -- /st /mnt"},
		{"/st /mnt -o x-systemd.requires=a.service,x-mount.mkdir,X-own,nodev,nosuid,noexec,noatime",
			"mount --daemon -- /st /mnt"},
		{"/st /mnt -o restore=lazy,prefetch_cap_time=3s,metrics-listen=127.0.0.1:1",
			"mount --daemon --restore=lazy --prefetch-cap-time=3s --metrics-listen=127.0.0.1:1 -- /st /mnt"},
		{"/st /mnt -o allow_other -o learn,,fill", "mount --daemon --allow-other --learn --fill -- /st /mnt"},
		{"/st /mnt -o fill=50MB,learn=false", "mount --daemon --fill=50MB --learn=false -- /st /mnt"},
		{"/st /mnt -n -v -t thaw", "mount --daemon --verbose -- /st /mnt"},
		{"/st /mnt -sv -o nosuch,other=1,learn", "mount --daemon --verbose --learn -- /st /mnt"},
		{"/st /mnt -f -o learn", ""},
		{"/st /mnt -f -o nosuch,learn,x=1", "! no such option: nosuch, x=1"},
		{"/st /mnt -o nosuch", "! no such option: nosuch"},
		// Flags that are no option: what this call is, and those that are hidden.
		{"/st /mnt -o daemon", "! no such option: daemon"},
		{"/st /mnt -o no_push", "! no such option: no_push"},
		{"/st /mnt -o help", "! no such option: help"},
		{"/st /mnt -o json", "! no such option: json"},
		{"/st /mnt -o restore", "! the option restore needs a value"},
		{"/st /mnt -o remount,ro", "! cannot be changed"},
		{"/st /mnt -N 3", "! nsenter"},
		{"/st", "! accepts 2 arg(s)"},
		{"/st /mnt --other", "! unknown flag"},
	} {
		var got []string
		cmd := newMountHelperCommand(func(m mountCall) (err error) {
			got, err = m.flags()
			if m.fake {
				got = nil
			}
			return err
		})
		cmd.SetArgs(strings.Fields(c.call))
		err := cmd.Execute()
		if why, fails := strings.CutPrefix(c.want, "! "); fails {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v, and not: %s", c.call, err, why)
			}
			continue
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.call, err, diff)
		}
	}
}

// What is known as an option of others is not a flag of ours by the same name.
func TestMountHelperHidesNoFlag(t *testing.T) {
	for _, name := range strings.Fields("auto owner group comment sync dev exec loud") {
		if newMountCommand(&app{}).Flags().Lookup(name) != nil {
			t.Errorf(`"-o %s" cannot reach the flag --%s`, name, name)
		}
	}
}

// "user" lets a user mount, "user=NAME" of root's is who serves, and of a user's the name of that user.
func TestMountHelperUser(t *testing.T) {
	for option, ofRoot := range map[string]bool{"user": false, "user=vm": true} {
		args, err := mountCall{store: "st", mnt: "mnt", lists: []string{option}}.flags()
		flag := slices.Contains(args, "--user=vm")
		if want := ofRoot && os.Geteuid() == 0; err != nil || flag != want {
			t.Errorf("%s became %q: %v", option, args, err)
		}
	}
}

// mount(8) and scripts tell failures apart by these.
func TestMountHelperStatus(t *testing.T) {
	for call, want := range map[string]int{
		"--help":                       0,
		"/nowhere /nowhere -f":         0,
		"/nowhere /nowhere -o nosuch":  1,
		"/nowhere":                     1,
		"/nowhere /nowhere -o fill=no": 1,
		"/nowhere /nowhere":            32,
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out}
		args := append([]string{"/sbin/mount.thaw"}, strings.Fields(call)...)
		if got := a.start(t.Context(), args); got != want {
			t.Errorf("%s: status %d, not %d\n%s", call, got, want, out.String())
		}
	}
}

func FuzzMountHelper(f *testing.F) {
	f.Add("restore=lazy,_netdev,x-a=b,fill")
	f.Add("ro,rw,,=,a=")
	f.Fuzz(func(t *testing.T, options string) {
		args, err := mountCall{store: "st", mnt: "mnt", lists: []string{options}}.flags()
		if err != nil {
			return
		}
		if n := len(args); args[0] != "mount" || args[n-3] != "--" {
			t.Fatalf("%q", args)
		}
		for _, arg := range args[1 : len(args)-3] {
			if !strings.HasPrefix(arg, "--") || len(arg) < 3 {
				t.Errorf("%q became the argument %q", options, arg)
			}
		}
	})
}
