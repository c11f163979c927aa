package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/term"
)

// benchtimes says how much is run of each benchmark at a time: numbers rather
// than times, since rounds are to be alike.
var benchtimes = map[string]string{
	"Collect":  "300000x",
	"Batch":    "1000000x",
	"Call":     "100000x",
	"Mixed":    "20000x",
	"Life":     "2000x",
	"Few":      "20000x",
	"Requests": "400000x",
	"Sleepers": "1x",

	"CPU/task=1µs":   "100000x",
	"CPU/task=20µs":  "10000x",
	"CPU/task=200µs": "1000x",

	"Languages/task=noop": "200000x",
	"Languages/task=20µs": "10000x",
}

func benchtime(name string) (string, error) {
	for prefix, n := range benchtimes {
		if strings.HasPrefix(name, prefix+"/") {
			return n, nil
		}
	}
	return "", fmt.Errorf("no benchtime is set for benchmark %s", name)
}

// measure builds the benchmarks and runs those that match, each in a process of
// its own, in rounds. It returns what they print.
func measure(rounds int, only *regexp.Regexp) ([]byte, error) {
	dir, err := os.MkdirTemp("", "report")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "benchmarks.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the benchmarks, in the folder of their module: %w", err)
	}
	names, err := list(binary, only)
	if err != nil {
		return nil, err
	}
	var runs bytes.Buffer
	command := fmt.Sprintf("go run ./cmd/report -rounds %d", rounds)
	if only.String() != "" {
		command += fmt.Sprintf(" -only '%s'", only)
	}
	fmt.Fprintf(&runs, "# %s, %s, %s\n", command, runtime.Version(), today())
	begin := time.Now()
	for round := range rounds {
		for i, name := range names {
			progress("round %d of %d, %d of %d, %v: %s", round+1, rounds, i+1, len(names), time.Since(begin).Round(time.Second), name)
			n, err := benchtime(name)
			if err != nil {
				return nil, err
			}
			printed, err := bench(binary, exactly(name), n)
			if err != nil {
				return nil, err
			}
			if round+i == 0 {
				runs.Write(printed)
				continue
			}
			keepResults(&runs, printed)
		}
		if only.MatchString("Languages/") {
			progress("")
			if err := runLanguages(&runs, dir, round == 0); err != nil {
				return nil, err
			}
		}
	}
	progress("")
	return runs.Bytes(), nil
}

// progress replaces the last line of a terminal. Elsewhere there is none to replace.
func progress(format string, args ...any) {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Fprintf(os.Stderr, "\r\033[K"+format, args...)
	}
}

func keepResults(runs *bytes.Buffer, printed []byte) {
	for line := range bytes.Lines(printed) {
		if bytes.HasPrefix(line, []byte("Benchmark")) {
			runs.Write(line)
		}
	}
}

// runLanguages runs the same jobs in other languages, where they are installed.
func runLanguages(runs *bytes.Buffer, dir string, first bool) error {
	rust := filepath.Join(dir, "rust")
	for _, program := range []struct {
		needs string
		steps [][]string
	}{
		{"python3", [][]string{{"python3", "languages/pool.py"}}},
		{"java", [][]string{{"java", "languages/Pool.java"}}},
		{"rustc", [][]string{{"rustc", "-O", "-o", rust, "languages/pool.rs"}, {rust}}},
	} {
		if _, err := exec.LookPath(program.needs); err != nil {
			if first {
				fmt.Fprintf(os.Stderr, "%s is not installed, and left out\n", program.needs)
			}
			continue
		}
		for _, step := range program.steps {
			command := exec.Command(step[0], step[1:]...)
			var wrong bytes.Buffer
			command.Stderr = &wrong
			printed, err := command.Output()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", strings.Join(step, " "), err, &wrong)
			}
			keepResults(runs, printed)
		}
	}
	return nil
}

// list runs every benchmark once to learn their names, without "Benchmark" and
// the number of processors.
func list(binary string, only *regexp.Regexp) (names []string, err error) {
	printed, err := bench(binary, ".", "1x")
	if err != nil {
		return nil, err
	}
	all, err := parse(printed, "the benchmarks, run once")
	if err != nil {
		return nil, err
	}
	for _, name := range all.order {
		if only.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no benchmark matches -only '%s'", only)
	}
	return names, nil
}

// exactly returns a pattern that only this benchmark matches.
func exactly(name string) string {
	parts := strings.Split("Benchmark"+name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

func bench(binary, pattern, benchtime string) ([]byte, error) {
	command := exec.Command(binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", benchtime)
	var printed bytes.Buffer
	command.Stdout, command.Stderr = &printed, &printed
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("benchmark %s: %w\n%s", pattern, err, &printed)
	}
	return printed.Bytes(), nil
}
