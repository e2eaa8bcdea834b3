package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type generateOptions struct{ man, bash, zsh, fish string }

// newGenerateCommand is for packagers, and hidden: it writes manual pages and shell completions.
func newGenerateCommand(*app) *cobra.Command {
	var o generateOptions
	cmd := &cobra.Command{
		Use:    "generate",
		Short:  "Write manual pages and shell completions",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runGenerate(cmd.Root(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.man, "man", "", "directory for manual pages (section 1)")
	f.StringVar(&o.bash, "bash-completion", "", "file for bash")
	f.StringVar(&o.zsh, "zsh-completion", "", "file for zsh")
	f.StringVar(&o.fish, "fish-completion", "", "file for fish")
	return cmd
}

func runGenerate(root *cobra.Command, o generateOptions) error {
	if o.man != "" {
		if err := os.MkdirAll(o.man, 0o755); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
		if err := writeManTree(root, o.man); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	for _, c := range []struct {
		file  string
		write func(io.Writer) error
	}{
		{o.bash, func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{o.zsh, root.GenZshCompletion},
		{o.fish, func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
	} {
		if c.file == "" {
			continue
		}
		if err := writeFile(c.file, c.write); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	return write(f)
}

// writeManTree writes thaw.1, thaw-import.1, ... for every command that is not hidden.
func writeManTree(cmd *cobra.Command, dir string) error {
	if cmd.Hidden {
		return nil
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	err := writeFile(filepath.Join(dir, name+".1"), func(w io.Writer) error {
		_, err := io.WriteString(w, manPage(cmd, name))
		return err
	})
	for _, sub := range cmd.Commands() {
		if err == nil {
			err = writeManTree(sub, dir)
		}
	}
	return err
}

// manPage is a command's help in the language of man(7). It has no date, so that it is the same
// whenever it is made.
func manPage(cmd *cobra.Command, name string) string {
	var b strings.Builder
	section := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, ".SH %s\n.nf\n%s\n.fi\n", title, roff(text))
		}
	}
	fmt.Fprintf(&b, ".TH %s 1 \"\" thaw\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(name),
		roff(cmd.Short))
	section("SYNOPSIS", cmd.UseLine())
	section("DESCRIPTION", cmd.Long)
	flags := func(title string, set *pflag.FlagSet) {
		section(title,
			strings.TrimRight(set.FlagUsages(), "\n"))
	}
	flags("OPTIONS", cmd.NonInheritedFlags())
	flags("GLOBAL OPTIONS", cmd.InheritedFlags())
	section("EXAMPLES", cmd.Example)
	var see []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			see = append(see, strings.ReplaceAll(sub.CommandPath(), " ", "-")+"(1)")
		}
	}
	if cmd.HasParent() {
		see = append(see, strings.ReplaceAll(cmd.Parent().CommandPath(), " ", "-")+"(1)")
	}
	section("SEE ALSO", strings.Join(see, ", "))
	return b.String()
}

// roff escapes text for man(7).
func roff(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
