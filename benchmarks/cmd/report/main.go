// Report runs the benchmarks of this module in interleaved rounds, so that what
// else the machine does meets all implementations alike, and writes what it has
// measured:
//
//	go run ./cmd/report                                   # all of it
//	go run ./cmd/report -only 'Collect/producers=1/' -rounds 9
//	go run ./cmd/report -from ../docs/benchmarks.txt      # tables and plots of earlier runs
//
// The files are:
//
//   - benchmarks.txt: every run, for benchstat
//   - benchmarks.md: tables of medians, with ratios to the hand-written channels
//   - throughput, latency and memory as SVG, for light and dark pages
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each benchmark is run")
	only := flag.String("only", "", "run only the benchmarks whose name matches this regular expression")
	out := flag.String("out", filepath.Join("..", "docs"), "the folder to write to")
	from := flag.String("from", "", "write the tables and plots of this file of earlier runs, and run nothing")
	flag.Parse()
	if err := report(*rounds, *only, *out, *from); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(rounds int, only, out, from string) error {
	if rounds < 1 {
		return fmt.Errorf("-rounds %d: there is at least one round", rounds)
	}
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	var runs []byte
	if from == "" {
		if runs, err = measure(rounds, pattern); err != nil {
			return err
		}
	} else if runs, err = os.ReadFile(from); err != nil {
		return err
	}
	results, err := parse(runs, cmp.Or(from, "the runs"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if from == "" {
		if err := os.WriteFile(filepath.Join(out, "benchmarks.txt"), runs, 0o644); err != nil {
			return err
		}
	}
	var page strings.Builder
	writeTables(&page, results)
	fmt.Print(page.String())
	if err := os.WriteFile(filepath.Join(out, "benchmarks.md"), []byte(page.String()), 0o644); err != nil {
		return err
	}
	return writePlots(out, results)
}

// today is a date for what was measured.
func today() string { return time.Now().Format(time.DateOnly) }
