package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// results is what was measured.
type results struct {
	command string // the first line of the file
	cpu     string
	order   []string                        // of names, as they were run
	values  map[string]map[string][]float64 // by name and unit
}

// parse reads the output of benchmarks, whose first line may be a comment with the command.
func parse(runs []byte, file string) (*results, error) {
	all := &results{values: map[string]map[string][]float64{}}
	if rest, ok := bytes.CutPrefix(runs, []byte("# ")); ok {
		first, _, _ := bytes.Cut(rest, []byte("\n"))
		all.command = string(first)
	}
	reader := benchfmt.NewReader(bytes.NewReader(runs), file)
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, record
		case *benchfmt.Result:
			all.cpu = record.GetConfig("cpu")
			all.add(record)
		}
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	if len(all.order) == 0 {
		return nil, fmt.Errorf("%s: there are no results of benchmarks", file)
	}
	return all, nil
}

func (r *results) add(result *benchfmt.Result) {
	name := nameOf(result.Name)
	units := r.values[name]
	if units == nil {
		units = map[string][]float64{}
		r.values[name] = units
		r.order = append(r.order, name)
	}
	for _, v := range result.Values {
		value, unit := v.Value, v.Unit
		if v.OrigUnit != "" { // seconds, where the benchmark has ns
			value, unit = v.OrigValue, v.OrigUnit
		}
		units[unit] = append(units[unit], value)
	}
}

// median returns the median of what was measured, and whether there is any.
func (r *results) median(name, unit string) (float64, bool) {
	values := r.values[name][unit]
	if len(values) == 0 {
		return 0, false
	}
	sample := benchmath.NewSample(values, &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, 0.95).Center, true
}

// nameOf takes the number of processors off a name.
func nameOf(name benchfmt.Name) string {
	_, parts := name.Parts()
	if n := len(parts); n > 0 && parts[n-1][0] == '-' {
		name = bytes.TrimSuffix(name, parts[n-1])
	}
	return string(name)
}

// split splits a name into what is measured, in how many workers, by whom.
func split(name string) (group, workers, impl string) {
	base, parts := benchfmt.Name(name).Parts()
	group = string(base)
	for _, part := range parts {
		switch key, value, _ := strings.Cut(string(part), "="); key {
		case "/workers":
			workers = value
		case "/impl":
			impl = value
		default:
			group += string(part)
		}
	}
	return group, workers, impl
}

// A group is the results of one workload: for each implementation, by number of
// workers.
type group struct {
	name    string
	workers []string
	impls   []string
}

// groups returns the workloads, in the order in which they were run.
func (r *results) groups() (all []*group) {
	byName := map[string]*group{}
	for _, name := range r.order {
		named, workers, impl := split(name)
		g := byName[named]
		if g == nil {
			g = &group{name: named}
			byName[named] = g
			all = append(all, g)
		}
		if !slices.Contains(g.workers, workers) {
			g.workers = append(g.workers, workers)
		}
		if !slices.Contains(g.impls, impl) {
			g.impls = append(g.impls, impl)
		}
	}
	return all
}

func (g *group) full(workers, impl string) string {
	return g.name + "/workers=" + workers + "/impl=" + impl
}
