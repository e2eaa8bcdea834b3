package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs}
	code := a.run(t.Context(), []string{"generate", dir})
	if code != exitcode.OK {
		t.Fatal(code, errs.String())
	}
	for file, want := range map[string]string{
		"thaw.1": ".SH SYNOPSIS", "thaw-import.1": "--profile", "thaw-ws-record.1": "--reset",
		"thaw-mount.1":      "  MNT/NAME/memory           the image",
		"thaw-exit-codes.1": "  12   corrupt           damage",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, without %q", file, err, want)
		}
	}
}

// Every command is a manual: a word of what it does, in a group where it shows up, what it means
// when it fails, and an example that is not out of date.
func TestEveryCommandIsExplained(t *testing.T) {
	root := newRootCommand(&app{})
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", path, c.Short)
		}
		if c.Parent() == root && c.Runnable() && c.GroupID == "" {
			t.Errorf("%s is in no group", path)
		}
		if c.Long == "" || c.Long == c.Short {
			t.Errorf("%s has no manual", path)
		}
		if regexp.MustCompile(`(?m)^[^ \n].*\n  |^  .*\n[^ \n]`).MatchString(c.Long) {
			t.Errorf("%s: what is indented does not stand apart, as the manual pages need it", path)
		}
		for line := range strings.Lines(c.Long) {
			if n := len(strings.TrimSuffix(line, "\n")); n > 96 {
				t.Errorf("%s: a line of %d columns: %s", path, n, line)
			}
		}
		if c.Runnable() && !c.HasSubCommands() {
			if c.Example == "" {
				t.Errorf("%s has no example", path)
			}
			if c.Name() != "version" && !strings.Contains(c.Long, "Exit status") {
				t.Errorf("%s does not say what its exit status means", path)
			}
		}
		checkExample(t, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// checkExample parses the lines of an example that call thaw.
func checkExample(t *testing.T, c *cobra.Command) {
	t.Helper()
	for line := range strings.Lines(c.Example) {
		for _, part := range regexp.MustCompile(`[|;>&]+`).Split(line, -1) {
			words := strings.Fields(part)
			if len(words) == 0 || words[0] != "thaw" {
				continue
			}
			cmd, args, err := newRootCommand(&app{}).Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(args)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: example %q: %v", c.CommandPath(), strings.TrimSpace(part), err)
			}
		}
	}
}
