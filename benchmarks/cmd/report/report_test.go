package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const runs = `# go run ./cmd/report -rounds 3 -only '', go1.26.8, 2026-11-24
goos: linux
cpu: A Processor
BenchmarkCollect/producers=1/workers=1/impl=workpool-2 	 10	 30 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=1/impl=channels-2 	 10	 80 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=8/impl=workpool-2 	 10	 40 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=8/impl=channels-2 	 10	 80 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=1/impl=workpool-2 	 10	 50 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=1/impl=channels-2 	 10	 100 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=1/impl=workpool-2 	 10	 45 ns/op	 0 B/op	 0 allocs/op
BenchmarkCollect/producers=1/workers=1/impl=channels-2 	 10	 90 ns/op	 0 B/op	 0 allocs/op
BenchmarkCall/callers=8/workers=8/impl=workpool-2 	 10	 400 ns/op	 500 p50-ns	 900 p99-ns	 20000 p99.9-ns
BenchmarkSleepers/workers=50000/impl=workpool-2 	 1	 1400000000 ns/op	 141.5 peak-MiB
BenchmarkSleepers/workers=50000/impl=channels-2 	 1	 1900000000 ns/op	 137.0 peak-MiB
`

func TestReport_OfEarlierRuns(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "runs.txt")
	if err := os.WriteFile(from, []byte(runs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report(1, "", dir, from); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"| workpool | 45 ns (0.50) | 40 ns (0.50) |",
		"| channels | 90 ns | 80 ns |",
		"| workpool | 1.40 s (0.74) |",
		"| workpool | 141.5 (1.03) |",
		"go1.26.8", "A Processor",
	} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the page has no %q:\n%s", text, page)
		}
	}
	for _, name := range []string{"throughput", "latency", "memory"} {
		for _, theme := range themes {
			svg, err := os.ReadFile(filepath.Join(dir, name+"-"+theme.name+".svg"))
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(svg), "workpool") || strings.Contains(string(svg), "NaN") {
				t.Errorf("the plot of %s does not show workpool", name)
			}
		}
	}
}

func TestReport_BadInput(t *testing.T) {
	dir := t.TempDir()
	for text, err := range map[string]error{
		"-rounds 0":                     report(0, "", dir, ""),
		"-only":                         report(1, "(", dir, ""),
		"no such file":                  report(1, "", dir, filepath.Join(dir, "none")),
		"no results":                    report(1, "", dir, os.DevNull),
		"no benchtime is set for bench": func() error { _, err := benchtime("None/x"); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("no error says %q: %v", text, err)
		}
	}
}
