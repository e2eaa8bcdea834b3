package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
)

// newGenerateCommand is for the package, and hidden: it writes manual pages. Completions come from
// "thaw completion SHELL".
func newGenerateCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "generate DIR",
		Short:  "Write manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(writeMan(cmd.Root(), args[0]), "generate")
		},
	}
}

// writeMan writes thaw.1, thaw-import.1, ... for every command that is not hidden, for the topics, and
// mount.thaw.8.
func writeMan(root *cobra.Command, dir string) error {
	unix.Umask(0o022) // these are for everybody
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true // a date of the run, and nothing else
	forMarkdown(root)
	header := doc.GenManHeader{Section: "1", Source: "thaw " + buildVersion().Version,
		Manual: "thaw", Date: commitTime()}
	if err := doc.GenManTree(root, &header, dir); err != nil {
		return err
	}
	for _, c := range root.Commands() {
		if !c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePage(c, header, filepath.Join(dir, "thaw-"+c.Name())); err != nil {
			return err
		}
	}
	helper := newMountHelperCommand(nil)
	helper.DisableAutoGenTag = true
	forMarkdown(helper)
	header.Section = "8"
	return writePage(helper, header, filepath.Join(dir, mountHelper))
}

// writePage writes one page; its section is added to the name of the file.
func writePage(c *cobra.Command, header doc.GenManHeader, name string) error {
	return outfile.Write(name+"."+header.Section, 0o644, func(w io.Writer) error {
		return doc.GenMan(c, &header, w)
	})
}

// commitTime is when the source was committed, so that the pages of one build are the same whenever
// they are made; nil, which means SOURCE_DATE_EPOCH or now, where that is set or the commit is not
// known.
func commitTime() *time.Time {
	t, err := time.Parse(time.RFC3339, buildSetting("vcs.time"))
	if err != nil || os.Getenv("SOURCE_DATE_EPOCH") != "" {
		return nil
	}
	return &t
}

// forMarkdown makes the help of a command and of those below it markdown, which the manual pages
// are made from: our help is plain text, indented where its lines are to stay as they are.
func forMarkdown(cmd *cobra.Command) {
	cmd.Long = markdown(cmd.Long)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { f.Usage = markdownChars.Replace(f.Usage) })
	for _, sub := range cmd.Commands() {
		forMarkdown(sub)
	}
}

// markdown quotes a text so that it is printed as it is written. What is indented stands apart.
func markdown(text string) string {
	parts := strings.Split(text, "\n\n")
	for i, part := range parts {
		if strings.HasPrefix(part, "  ") {
			parts[i] = "    " + strings.ReplaceAll(part, "\n", "\n    ")
		} else {
			parts[i] = markdownChars.Replace(part)
		}
	}
	return strings.Join(parts, "\n\n")
}

// markdownChars quotes the characters that have a meaning within a line of markdown.
var markdownChars = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "`", "\\`", "<", `\<`,
	"[", `\[`)
