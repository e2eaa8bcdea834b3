package bugreport

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"time"
)

// Report is what was found so far.
type Report struct {
	Names *Names
	parts []part
	lacks bytes.Buffer
}

// part is a file of the archive.
type part struct {
	name, about string
	text        []byte
}

// New begins a report.
func New(names *Names) *Report { return &Report{Names: names} }

// Add puts a file in, and what the archive says that it is. An error is noted in its place.
func (r *Report) Add(name, about string, text []byte, err error) {
	if err != nil {
		r.Lacks(name, err)
	}
	if len(text) > 0 {
		r.parts = append(r.parts, part{name, about, text})
	}
}

// AddText is Add for a text that may have private names.
func (r *Report) AddText(name, about, text string, err error) {
	r.Add(name, about, []byte(r.Names.Text(text)), err)
}

// AddJSON is Add for a value that has no private names.
func (r *Report) AddJSON(name, about string, v any, err error) {
	if err != nil {
		r.Lacks(name, err)
		return
	}
	text, err := json.MarshalIndent(v, "", "  ")
	r.Add(name, about, append(text, '\n'), err)
}

// Lacks notes why something could not be had.
func (r *Report) Lacks(name string, err error) {
	fmt.Fprintf(&r.lacks, "%s: %s\n", name, r.Names.Text(err.Error()))
}

// dir is the directory that the archive unpacks into.
const dir = "thaw-report"

// Write writes the archive, compressed. about is how its README begins.
func (r *Report) Write(w io.Writer, about string) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	now := time.Now()
	parts := append([]part{{name: "README.txt", text: []byte(r.readme(about))}}, r.parts...)
	if r.lacks.Len() > 0 {
		parts = append(parts, part{name: lacking, text: r.lacks.Bytes()})
	}
	for _, p := range parts {
		head := tar.Header{Name: path.Join(dir, p.name), Mode: 0o600, Size: int64(len(p.text)), ModTime: now}
		if err := archive.WriteHeader(&head); err != nil {
			return err
		}
		if _, err := archive.Write(p.text); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zip.Close()
}

// lacking is the file that says what could not be had.
const lacking = "lacking.txt"

func (r *Report) readme(about string) string {
	text := about + "\n"
	for _, p := range r.parts {
		text += fmt.Sprintf("%-32s %s\n", p.name, p.about)
	}
	if r.lacks.Len() > 0 {
		text += fmt.Sprintf("%-32s %s\n", lacking, "what could not be had, and why")
	}
	return text
}
