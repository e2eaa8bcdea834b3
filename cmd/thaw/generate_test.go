package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs}
	code := a.run(t.Context(), []string{"generate", "--man", dir, "--bash-completion",
		filepath.Join(dir, "bash"),
		"--zsh-completion", filepath.Join(dir, "zsh"), "--fish-completion", filepath.Join(dir, "fish")})
	if code != exitcode.OK {
		t.Fatal(code, errs.String())
	}
	for file, want := range map[string]string{
		"thaw.1": ".SH SYNOPSIS", "thaw-import.1": "--profile", "thaw-ws-record.1": "--reset",
		"thaw-mount.1":      "  MNT/NAME/memory           the image",
		"thaw-exit-codes.1": "  12   corrupt           damage",
		"bash":              "complete", "zsh": "compdef", "fish": "complete",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, without %q", file, err, want)
		}
	}
}

// Every command is a manual: a word of what it does, in a group where it shows up.
func TestEveryCommandIsExplained(t *testing.T) {
	root := newRootCommand(&app{})
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && c.Parent() == root && c.GroupID == "" {
			t.Errorf("%s is in no group", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
