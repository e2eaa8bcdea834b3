package bugreport

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Names replaces what is private. The zero value replaces nothing.
type Names struct {
	hide    bool
	words   map[string]string // what is replaced, by what
	counted map[string]int    // words of a kind
}

// HideNames makes Names that replace what they are told of.
func HideNames() *Names {
	return &Names{hide: true, words: map[string]string{}, counted: map[string]int{}}
}

// Hide returns the word for a name of a kind: "checkpoint-1".
func (n *Names) Hide(kind, name string) string {
	if !n.hide || name == "" {
		return name
	}
	if word, ok := n.words[name]; ok {
		return word
	}
	n.counted[kind]++
	word := fmt.Sprintf("%s-%d", kind, n.counted[kind])
	n.words[name] = word
	return word
}

// logged is what a log says a checkpoint or a file is called, known or not: in a line of text or of JSON.
var logged = regexp.MustCompile(
	`\b((?:checkpoint|clone|name|blob|path|dir|file|socket)(?:=|":"))(?:"((?:[^"\\]|\\.)*)"|([^"\s,}]+))`)

// Text replaces what is private in a text that was not made for this: each name that is known, and what a log
// calls a name.
func (n *Names) Text(text string) string {
	if !n.hide {
		return text
	}
	names := make([]string, 0, len(n.words))
	for name := range n.words {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // a path before what it begins with
		return len(b) - len(a)
	})
	for _, name := range names {
		text = replaceWord(text, name, n.words[name])
	}
	return logged.ReplaceAllStringFunc(text, func(field string) string {
		m := logged.FindStringSubmatch(field)
		value := m[2] + m[3]
		if value == "" || slices.Contains(n.known(), value) {
			return field
		}
		return m[1] + n.Hide("name", value)
	})
}

// known are the words that stand for names.
func (n *Names) known() (words []string) {
	for _, word := range n.words {
		words = append(words, word)
	}
	return words
}

// replaceWord replaces a word where it is not a part of a longer one.
func replaceWord(text, word, by string) string {
	var out strings.Builder
	for from := 0; ; {
		at := strings.Index(text[from:], word)
		if at < 0 {
			out.WriteString(text[from:])
			return out.String()
		}
		at += from
		end := at + len(word)
		whole := (at == 0 || !inName(text[at-1])) && ends(text[end:])
		out.WriteString(text[from:at])
		if whole {
			out.WriteString(by)
		} else {
			out.WriteString(word)
		}
		from = end
	}
}

// inName says whether a character is one of names: beside it a word is a part of a longer one.
func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("_-.", c) >= 0
}

// ends says whether a name ends before this text. A full stop after it may be that of a sentence.
func ends(text string) bool {
	text = strings.TrimLeft(text, ".")
	return text == "" || !inName(text[0])
}
