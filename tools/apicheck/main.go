// Command apicheck compares the API of modules with what it was, and fails where an
// incompatible change is not named in the changelog.
//
// A change is named where its identifier stands between backticks, by itself, in a
// section "Changed" or "Removed" above the heading of the release that it is compared
// with. The identifier is written as users write it, with the name of the package, but
// without that of the main one: `Map`, `Pool.Submit`, `jobqueue.Queue.Submit`.
package main

import (
	"errors"
	"flag"
	"fmt"
	"go/types"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/tools/go/packages"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("apicheck: ")
	old := flag.String("old", "", "folder of the repository as it was")
	since := flag.String("since", "", "the release that -old is, such as v0.1.0; empty if there is none yet")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: apicheck -old FOLDER [-since VERSION] REPOSITORY MODULE...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *old == "" || flag.NArg() < 2 {
		flag.Usage()
		os.Exit(2)
	}
	changed, err := check(*old, flag.Arg(0), flag.Args()[1:])
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(flag.Arg(0), "CHANGELOG.md"))
	if err != nil {
		log.Fatal(err)
	}
	named := changelog(string(text), *since)
	failed := false
	for _, c := range changed {
		fmt.Printf("%s: %s\n", c.pkg, c.message)
		if !named[c.identifier] {
			failed = true
			fmt.Printf("\tincompatible, and `%s` is not named under \"Changed\" or \"Removed\" in CHANGELOG.md\n", c.identifier)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// A change is one that can keep a program from compiling.
type change struct {
	pkg        string
	identifier string
	message    string
}

// check compares modules of two folders. A module that is new has not changed.
func check(old, repository string, modules []string) ([]change, error) {
	var changed []change
	for _, module := range modules {
		_, err := os.Stat(filepath.Join(old, module, "go.mod"))
		if errors.Is(err, os.ErrNotExist) {
			fmt.Printf("%s: new\n", module)
			continue
		}
		if err != nil {
			return nil, err
		}
		before, err := load(filepath.Join(old, module))
		if err != nil {
			return nil, err
		}
		after, err := load(filepath.Join(repository, module))
		if err != nil {
			return nil, err
		}
		for _, path := range slices.Sorted(maps.Keys(before)) {
			pkg := before[path]
			now, ok := after[path]
			if !ok {
				changed = append(changed, change{path, pkg.Name(), "package removed"})
				continue
			}
			for _, c := range apidiff.Changes(pkg, now).Changes {
				if !c.Compatible {
					changed = append(changed, change{path, identifier(pkg.Name(), c.Message), c.Message})
				}
			}
		}
	}
	return slices.Compact(changed), nil // apidiff lists some methods twice
}

// load returns the packages of a module that others can import, by path.
func load(dir string) (map[string]*types.Package, error) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps,
		Dir:  dir,
	}, "./...")
	if err != nil {
		return nil, err
	}
	found := make(map[string]*types.Package)
	for _, p := range loaded {
		for _, err := range p.Errors {
			return nil, fmt.Errorf("%s in %s: %w", p.PkgPath, dir, err)
		}
		if p.Name != "main" && !strings.Contains(p.PkgPath+"/", "/internal/") {
			found[p.PkgPath] = p.Types
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no packages to import in %s", dir)
	}
	return found, nil
}

var brackets = regexp.MustCompile(`\[[^][]*\]`)

// identifier finds what a message of apidiff is about, in a message such as
// "(*Pool[T, R]).Submit: changed from ...".
func identifier(pkg, message string) string {
	for brackets.MatchString(message) {
		message = brackets.ReplaceAllString(message, "")
	}
	name, _, _ := strings.Cut(message, ":")
	name, _, _ = strings.Cut(name, ",")
	name = strings.NewReplacer("(", "", ")", "", "*", "").Replace(name)
	if pkg == "workpool" {
		return name
	}
	return pkg + "." + name
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// changelog returns what the sections "Changed" and "Removed" above the heading of a
// release have between backticks.
func changelog(text, release string) map[string]bool {
	named := make(map[string]bool)
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case release != "" && strings.HasPrefix(line, "## ["+strings.TrimPrefix(release, "v")+"]"):
			return named
		case strings.HasPrefix(line, "#"):
			inside = line == "### Changed" || line == "### Removed"
		case inside:
			for _, span := range codeSpan.FindAllStringSubmatch(line, -1) {
				named[span[1]] = true
			}
		}
	}
	return named
}
