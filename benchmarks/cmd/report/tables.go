package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// baseline is what the others are compared with.
const baseline = "channels"

// titles says what the workloads are.
var titles = map[string]string{
	"Collect":   "One task at a time, submitted and collected, no-op",
	"Batch":     "A batch, no-op",
	"Call":      "Question and answer, no-op",
	"CPU":       "Tasks that compute",
	"Languages": "The same in other languages",
	"Mixed":     "Sixteen callers, one task in a hundred sleeps for 1 ms",
	"Requests":  "10,000 callers at once, whose tasks wait for 10 ms",
	"Sleepers":  "A million tasks that sleep for 10 ms, on 50,000 workers",
	"Life":      "Make a pool of eight workers, run eight tasks, close it",
	"Few":       "Eight tasks that are known at the start, pool included",
}

// units are shown in this order. Those with a lower number are all of a kind:
// less is better.
var units = []struct{ name, title string }{
	{"ns/op", "time per operation"},
	{"p50-ns", "latency, median"},
	{"p99-ns", "latency, 99th percentile"},
	{"p99.9-ns", "latency, 99.9th percentile"},
	{"fast-p50-ns", "latency of the fast tasks, median"},
	{"fast-p99-ns", "latency of the fast tasks, 99th percentile"},
	{"peak-MiB", "peak memory, MiB"},
	{"allocs/op", "allocations per operation"},
}

// writeTables writes a table for each workload and unit: medians, and in
// parentheses the ratio to the baseline.
func writeTables(w io.Writer, r *results) {
	fmt.Fprintf(w, "# Benchmarks\n\nMedians, and in parentheses the ratio to the hand-written channels in the same run; less is better. ")
	command, when := r.command, ""
	if i := strings.LastIndex(command, ", go"); i >= 0 { // the version of Go and the date
		command, when = command[:i], command[i:]
	}
	fmt.Fprintf(w, "`%s`, in the folder benchmarks, on %s%s.\n", command, r.cpu, when)
	for _, g := range r.groups() {
		first, parameters, _ := strings.Cut(g.name, "/")
		fmt.Fprintf(w, "\n## %s", titles[first])
		if parameters != "" {
			fmt.Fprintf(w, " (%s)", strings.ReplaceAll(parameters, "/", ", "))
		}
		fmt.Fprintln(w)
		if p, ok := pictures[g.name]; ok && len(p.lines(g, r)) > 0 {
			fmt.Fprintf(w, "\n%s", p.embed())
		}
		for _, unit := range units {
			if slices.ContainsFunc(g.impls, func(impl string) bool { _, ok := r.median(g.full(g.workers[0], impl), unit.name); return ok }) {
				writeTable(w, r, g, unit.name, unit.title)
			}
		}
	}
}

func writeTable(w io.Writer, r *results, g *group, unit, title string) {
	fmt.Fprintf(w, "\n| %s; workers: | %s |\n|---|%s\n", title, strings.Join(g.workers, " | "), strings.Repeat("---|", len(g.workers)))
	for _, impl := range g.impls {
		fmt.Fprintf(w, "| %s |", impl)
		for _, workers := range g.workers {
			value, ok := r.median(g.full(workers, impl), unit)
			if !ok {
				fmt.Fprint(w, " |")
				continue
			}
			fmt.Fprintf(w, " %s", format(value, unit))
			if base, ok := r.median(g.full(workers, baseline), unit); ok && base > 0 && impl != baseline {
				fmt.Fprintf(w, " (%.2f)", value/base)
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
}

func format(value float64, unit string) string {
	if !strings.Contains(unit, "ns") {
		return fmt.Sprintf("%.4g", value)
	}
	switch {
	case value >= 1e9:
		return fmt.Sprintf("%.2f s", value/1e9)
	case value >= 1e6:
		return fmt.Sprintf("%.2f ms", value/1e6)
	case value >= 1e4:
		return fmt.Sprintf("%.1f µs", value/1e3)
	case value >= 999.5: // which three digits would round to 1e+03
		return fmt.Sprintf("%.2f µs", value/1e3)
	}
	return fmt.Sprintf("%.3g ns", value)
}
