package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// source is a file of the command line's code, and what it says.
type source struct {
	name    string
	file    *ast.File
	strings []string
}

// sources are the files of the command line without their tests: the constants in them, those that are added
// to one another as one.
func sources(t *testing.T) (all []source) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := source{name: path, file: file}
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if text := constant(e); text != "" {
					s.strings = append(s.strings, text)
					return false
				}
			}
			return true
		})
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// constant is the text of a string, or of a sum of strings, in which what is not known is "X".
func constant(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ := strconv.Unquote(e.Value)
			return text
		}
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return ""
		}
		left, right := constant(e.X), constant(e.Y)
		switch {
		case left == "" && right == "":
			return ""
		case left == "":
			left = "X"
		case right == "":
			right = "X"
		}
		return left + right
	}
	return ""
}
