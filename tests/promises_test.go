package tests

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesHaveTests: the tests that the page on security names exist, and each paragraph that promises
// something names one.
func TestPromisesHaveTests(t *testing.T) {
	var names []string
	scripts := map[string]bool{}
	for _, file := range tracked(t) {
		switch {
		case strings.HasSuffix(file, "_test.go"):
			names = append(names, readFile(t, filepath.Join("..", file)))
		case strings.HasSuffix(file, ".txtar"):
			scripts[filepath.Base(file)] = true
		}
	}
	sources := strings.Join(names, "\n")
	page := readFile(t, "../cmd/thaw/help/security.md")
	cited := 0
	for _, list := range regexp.MustCompile(`\[([^\]]*)\]`).FindAllStringSubmatch(page, -1) {
		for _, name := range regexp.MustCompile(`[\s,]+`).Split(list[1], -1) {
			cited++
			if !scripts[name] && !strings.Contains(sources, "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("there is no test %s", name)
			}
		}
	}
	if cited < 10 {
		t.Errorf("only %d tests are named", cited)
	}
	for _, part := range strings.Split(page, "\n\n") {
		head, _, _ := strings.Cut(part, ".")
		switch head {
		case "FILES", "MACHINES", "CONTROL", "STORES AND STREAMS", "A SERVER WITHOUT ROOT":
			if !strings.Contains(part, "[") {
				t.Errorf("no test of what is said under %s", head)
			}
		}
	}
}
