package main

import (
	"embed"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// helpTexts are the pages of `thaw help TOPIC`: the first line of a file says what it is about.
//
//go:embed help/*.md
var helpTexts embed.FS

// newTopics makes a help topic of each page: a command without Run shows up under "Additional help
// topics".
func newTopics() []*cobra.Command {
	files, err := helpTexts.ReadDir("help")
	if err != nil {
		panic(err) // it was built in
	}
	var topics []*cobra.Command
	for _, f := range files {
		text, err := helpTexts.ReadFile(path.Join("help", f.Name()))
		if err != nil {
			panic(err)
		}
		about, _, _ := strings.Cut(string(text), "\n")
		topics = append(topics, &cobra.Command{
			Use:   strings.TrimSuffix(f.Name(), ".md"),
			Short: strings.TrimSuffix(about, "."),
			Long:  strings.TrimSuffix(string(text), "\n"),
		})
	}
	return topics
}

// knownTopics makes "thaw help WORD" an error where nothing has that name.
func knownTopics(root *cobra.Command) {
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // cobra has made it
	}
	help.Long += exitStatus(exitcode.NotFound)
	help.Example = "  thaw help import\n  thaw help qemu"
	show := help.Run
	help.Run, help.RunE = nil, func(cmd *cobra.Command, args []string) error {
		if _, _, err := root.Find(args); err != nil {
			return exitcode.WithHint(exitcode.NotFound, fmt.Errorf("there is no help about %q",
				strings.Join(args, " ")), `"thaw --help" lists the commands and the topics`)
		}
		show(cmd, args)
		return nil
	}
}
