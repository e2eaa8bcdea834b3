package main

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// hintsOf are the hints in a file: what is given to WithHint, what functions ...Hint make, and the table of
// errors.
func hintsOf(file *ast.File) (hints []string) {
	collect := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if text := constant(e); text != "" {
					hints = append(hints, text)
					return false
				}
			}
			return true
		})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "WithHint" && len(n.Args) == 3 {
				collect(n.Args[2])
			}
		case *ast.FuncDecl:
			if strings.HasSuffix(n.Name.Name, "Hint") || n.Name.Name == "classes" {
				collect(n.Body)
			}
		}
		return true
	})
	return hints
}

// No hint tells to remove what a user may not get again, and one that ends machines says so.
func TestHintsDoNoHarm(t *testing.T) {
	removes := regexp.MustCompile(`\b(rm|remove|delete|truncate|format)\b`)
	n := 0
	for _, s := range sources(t) {
		for _, hint := range hintsOf(s.file) {
			n++
			if strings.Contains(hint, "--abort") && !strings.Contains(hint, "machines") {
				t.Errorf("%s: a hint does not say what is lost: %s", s.name, hint)
			}
			if removes.MatchString(hint) {
				t.Errorf("%s: a hint tells to remove something: %s", s.name, hint)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d hints were found", n)
	}
}
