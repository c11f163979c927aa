package migrating

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the code of the packages into the page")

// snippet is a block of code on the page, below a comment with the name of its function.
var snippet = regexp.MustCompile("(?s)(<!-- ((?:before|after)\\.\\w+) -->\n+```go\n)(.*?)```")

// TestPage_HasTheCode also finds a function that the page does not show. After a change
// of the code, go test ./migrating -update brings the page up to date.
func TestPage_HasTheCode(t *testing.T) {
	const file = "../../docs/migrating.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code := functions(t, "before", "after")
	shown := map[string]int{}
	updated := snippet.ReplaceAllFunc(page, func(block []byte) []byte {
		parts := snippet.FindSubmatch(block)
		name := string(parts[2])
		shown[name]++
		if code[name] == "" {
			t.Errorf("the page shows %s, which does not exist", name)
			return block
		}
		if string(parts[3]) != code[name] && !*update {
			t.Errorf("the page and the code differ, run 'go test ./migrating -update'; page:\n%s\ncode:\n%s", parts[3], code[name])
		}
		return fmt.Appendf(nil, "%s%s```", parts[1], code[name])
	})
	for name := range code {
		if shown[name] != 1 {
			t.Errorf("the page shows %s %d times, not once", name, shown[name])
		}
	}
	if blocks := bytes.Count(page, []byte("```go\n")); blocks != len(code) {
		t.Errorf("the page has %d blocks of code, of which only those of the %d functions are tested", blocks, len(code))
	}
	if *update && !bytes.Equal(page, updated) {
		if err := os.WriteFile(file, updated, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// functions returns the source of all functions of these packages, without their comments, by
// the name of package and function. Tabs are four spaces: pages show them as eight, and two
// columns don't fit.
func functions(t *testing.T, packages ...string) map[string]string {
	t.Helper()
	code := map[string]string{}
	for _, name := range packages {
		files, err := filepath.Glob(name + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no code of package %s: %v", name, err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			positions := token.NewFileSet()
			parsed, err := parser.ParseFile(positions, file, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, declared := range parsed.Decls {
				if f, ok := declared.(*ast.FuncDecl); ok {
					from, to := positions.Position(f.Pos()).Offset, positions.Position(f.End()).Offset
					code[name+"."+f.Name.Name] = strings.ReplaceAll(string(source[from:to]), "\t", "    ") + "\n"
				}
			}
		}
	}
	return code
}
