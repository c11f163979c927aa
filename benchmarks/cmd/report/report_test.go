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
BenchmarkCollect/producers=1/workers=1/impl=errgroup-2 	 10	 90 ns/op	 0 B/op	 0 allocs/op
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
		if !strings.Contains(string(page), `src="`+name+`-light.svg"`) {
			t.Errorf("the page does not show the plot of %s", name)
		}
		for _, theme := range themes {
			svg, err := os.ReadFile(filepath.Join(dir, name+"-"+theme.name+".svg"))
			if err != nil {
				t.Error(err)
				continue
			}
			for _, text := range []string{">workpool</text>", pictures[workloadOf(name)].y, "sans-serif"} {
				if !strings.Contains(string(svg), text) {
					t.Errorf("the plot of %s has no %q", name, text)
				}
			}
			for _, text := range []string{"NaN", "Inf", "#-", ">errgroup<"} {
				if strings.Contains(string(svg), text) {
					t.Errorf("the plot of %s has %q", name, text)
				}
			}
		}
	}
}

func workloadOf(plot string) string {
	for workload, p := range pictures {
		if p.file == plot {
			return workload
		}
	}
	return ""
}

func TestLines_AreTheFirstThatHaveAllValues(t *testing.T) {
	r := &results{values: map[string]map[string][]float64{}}
	g := &group{name: "Sleepers", workers: []string{"8"}, impls: []string{"workpool"}}
	if lines := pictures["Sleepers"].lines(g, r); len(lines) != 0 {
		t.Errorf("lines without values: %v", lines)
	}
	for _, look := range looks[1:] {
		r.values[g.full("8", look.impl)] = map[string][]float64{"peak-MiB": {100}}
	}
	lines := pictures["Sleepers"].lines(g, r)
	if len(lines) != mostLines || lines[0].look != 1 {
		t.Errorf("of %d implementations without the first: %v", len(looks), lines)
	}
}

func TestReport_BadInput(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.txt")
	if err := os.WriteFile(broken, []byte(runs+"BenchmarkX 10 fast ns/op\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, err := range map[string]error{
		"-rounds 0":                     report(0, "", dir, ""),
		"-only":                         report(1, "(", dir, ""),
		"no such file":                  report(1, "", dir, filepath.Join(dir, "none")),
		"no results":                    report(1, "", dir, os.DevNull),
		"broken.txt:16: parsing":        report(1, "", dir, broken),
		"no benchtime is set for bench": func() error { _, err := benchtime("None/x"); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("no error says %q: %v", text, err)
		}
	}
}
