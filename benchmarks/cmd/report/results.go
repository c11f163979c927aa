package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// results is what was measured.
type results struct {
	command string // the first line of the file
	cpu     string
	order   []string                        // of names, as they were run
	values  map[string]map[string][]float64 // by name and unit
}

// parse reads the output of benchmarks.
func parse(r io.Reader) (*results, error) {
	all := &results{values: map[string]map[string][]float64{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "# "); ok {
			all.command = rest
		}
		if rest, ok := strings.CutPrefix(line, "cpu: "); ok {
			all.cpu = strings.TrimSpace(rest)
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := nameOf(fields[0])
		units := all.values[name]
		if units == nil {
			units = map[string][]float64{}
			all.values[name] = units
			all.order = append(all.order, name)
		}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("in the line %q: %w", line, err)
			}
			units[fields[i+1]] = append(units[fields[i+1]], value)
		}
	}
	if len(all.order) == 0 {
		return nil, fmt.Errorf("there are no results of benchmarks")
	}
	return all, lines.Err()
}

// median returns the median of what was measured, and whether there is any.
func (r *results) median(name, unit string) (float64, bool) {
	values := slices.Sorted(slices.Values(r.values[name][unit]))
	if len(values) == 0 {
		return 0, false
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2, true
}

// A sub splits a name into what is measured, in how many workers, by whom.
func split(name string) (group, workers, impl string) {
	var rest []string
	for part := range strings.SplitSeq(name, "/") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "workers":
			workers = value
		case "impl":
			impl = value
		default:
			rest = append(rest, part)
		}
	}
	return strings.Join(rest, "/"), workers, impl
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
