package main

import (
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
)

func TestCheckGuest(t *testing.T) {
	good := lab.Guest{Program: "heap", Args: []string{"set=64MiB"}, Memory: 1 << 30}
	if err := checkGuest(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*lab.Guest){
		"guest":  func(g *lab.Guest) { g.Program = "none" },
		"memory": func(g *lab.Guest) { g.Memory = 5 },
		"arg":    func(g *lab.Guest) { g.Args = []string{"seed"} },
	} {
		g := good
		change(&g)
		err := checkGuest(g)
		if code, _ := classify(err); err == nil || code.Name() != "usage" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
