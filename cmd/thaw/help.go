package main

import (
	"embed"
	"path"
	"strings"

	"github.com/spf13/cobra"
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
