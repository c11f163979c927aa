// Package queries holds the tests of the queries that promworkpool comes with: those of its
// dashboard, and those of the alerts in its README. It is a module of its own, so that who uses
// promworkpool does not depend on the Prometheus server, whose parser it needs.
package queries

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

// A metric is what queries may know of one.
type metric struct {
	gauge  bool
	labels map[string][]string // the values of each
}

// exposed returns the metrics of a Collector with one pool, by the names they have in queries.
func exposed(t *testing.T) map[string]metric {
	t.Helper()
	collector, err := promworkpool.New()
	require.NoError(t, err)
	pool, err := workpool.New(workpool.Call[int], workpool.WithName("p"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	require.NoError(t, collector.Add(pool))
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(collector))
	families, err := registry.Gather()
	require.NoError(t, err)

	metrics := map[string]metric{}
	for _, f := range families {
		values := map[string][]string{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
		metrics[f.GetName()] = metric{f.GetType() == dto.MetricType_GAUGE, values} // a histogram by this name is native
		if f.GetType() == dto.MetricType_HISTOGRAM {
			metrics[f.GetName()+"_sum"] = metric{labels: values}
			metrics[f.GetName()+"_count"] = metric{labels: values}
			metrics[f.GetName()+"_bucket"] = metric{labels: map[string][]string{"pool": values["pool"], "le": nil}}
		}
	}
	return metrics
}

// check returns what is wrong with a query, and with a text that names labels of its result as
// legends and annotations do: {{pool}} or {{ $labels.pool }}.
func check(metrics map[string]metric, query, text string) error {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return err
	}
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	var known, grouped []string
	grouping := false
	parser.Inspect(root, func(node parser.Node, path []parser.Node) error {
		switch node := node.(type) {
		case *parser.AggregateExpr:
			grouping = true
			grouped = append(grouped, node.Grouping...)
		case *parser.VectorSelector:
			m, ok := metrics[node.Name]
			if !ok {
				problem("no metric %s", node.Name)
				return nil
			}
			for name := range m.labels {
				known = append(known, name)
			}
			if rated := slices.ContainsFunc(path, isRate); rated == m.gauge {
				problem("%s: a gauge has no rate, and all else is read by its rate", node.Name)
			}
			for _, matcher := range node.LabelMatchers {
				values, ok := m.labels[matcher.Name]
				switch {
				case matcher.Name == "__name__" || matcher.Value == "$pool":
				case !ok:
					problem("%s has no label %s", node.Name, matcher.Name)
				case !slices.ContainsFunc(values, matcher.Matches):
					problem("no %s has %s", node.Name, matcher)
				}
				for _, value := range matcher.SetMatches() {
					if ok && !slices.Contains(values, value) {
						problem("no %s has %s=%q", node.Name, matcher.Name, value)
					}
				}
			}
		}
		return nil
	})
	for _, name := range grouped {
		if !slices.Contains(known, name) {
			problem("no label %s to group by", name)
		}
	}
	if grouping {
		known = grouped
	}
	for _, named := range namedLabel.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(known, named[1]) {
			problem("no label %s for %q", named[1], text)
		}
	}
	return errors.Join(problems...)
}

var namedLabel = regexp.MustCompile(`{{ *(?:\$labels\.)?(\w+) *}}`)

func isRate(node parser.Node) bool {
	call, ok := node.(*parser.Call)
	return ok && slices.Contains([]string{"rate", "irate", "increase"}, call.Func.Name)
}

func TestDashboard(t *testing.T) {
	metrics := exposed(t)
	data, err := os.ReadFile("../../dashboard.json")
	require.NoError(t, err)
	type source struct{ Type, UID string }
	var dashboard struct {
		Panels []struct {
			ID         int
			Title      string
			Datasource source
			GridPos    struct{ X, Y, W, H int }
			Targets    []struct {
				RefID, Expr, LegendFormat string
				Datasource                source
			}
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))

	variables := map[string]string{}
	for _, v := range dashboard.Templating.List {
		variables[v.Name] = v.Type
		if v.Type != "query" {
			continue
		}
		query, _ := v.Query.(map[string]any)
		parts := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(fmt.Sprint(query["query"]))
		require.NotNil(t, parts, query)
		require.Contains(t, metrics, parts[1])
		require.Contains(t, metrics[parts[1]].labels, parts[2])
	}
	assert.Equal(t, map[string]string{"datasource": "datasource", "pool": "query"}, variables)

	variable := source{"prometheus", "${datasource}"}
	ids, places := map[int]bool{}, map[[2]int]bool{}
	for _, panel := range dashboard.Panels {
		assert.Equal(t, variable, panel.Datasource, panel.Title)
		ids[panel.ID], places[[2]int{panel.GridPos.X, panel.GridPos.Y}] = true, true
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			assert.Equal(t, variable, target.Datasource, panel.Title)
			query := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			assert.NoError(t, check(metrics, query, target.LegendFormat), "%s, %s: %s", panel.Title, target.RefID, query)
		}
	}
	assert.Len(t, ids, len(dashboard.Panels), "each has its own ID")
	assert.Len(t, places, len(dashboard.Panels), "and its own place")
}

func TestAlerts(t *testing.T) {
	metrics := exposed(t)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)```").FindAllSubmatch(readme, -1)
	require.Len(t, blocks, 1)
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Annotations      map[string]string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(blocks[0][1], &rules))
	require.Len(t, rules.Groups, 1)
	require.NotEmpty(t, rules.Groups[0].Rules)
	for _, rule := range rules.Groups[0].Rules {
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		assert.NoError(t, check(metrics, rule.Expr, rule.Annotations["summary"]), rule.Alert)
	}
}

// TestCheck tells whether check finds anything.
func TestCheck(t *testing.T) {
	metrics := exposed(t)
	for query, want := range map[string]string{
		`rate(workpool_tasks_total[5m]`:                                              "unclosed",
		`workpool_worker`:                                                            "no metric workpool_worker",
		`rate(workpool_workers_bucket[5m])`:                                          "no metric workpool_workers_bucket",
		`workpool_workers{outcome="failed"}`:                                         "workpool_workers has no label outcome",
		`rate(workpool_tasks_total{outcome="fail"}[5m])`:                             `no workpool_tasks_total has outcome="fail"`,
		`rate(workpool_tasks_total{outcome=~"failed|paniced"}[5m])`:                  `no workpool_tasks_total has outcome="paniced"`,
		`sum by (worker) (workpool_workers)`:                                         "no label worker to group by",
		`sum(workpool_workers)`:                                                      "no label pool for",
		`rate(workpool_workers[5m])`:                                                 "a gauge has no rate",
		`workpool_retries_total`:                                                     "is read by its rate",
		`workpool_workers or workpool_tasks`:                                         "no metric workpool_tasks",
		`histogram_quantile(0.5, sum by (le) (rate(workpool_task_run_seconds[5m])))`: "no label le to group by",
	} {
		assert.ErrorContains(t, check(metrics, query, "{{pool}}"), want, query)
	}
	assert.NoError(t, check(metrics, `sum by (pool) (workpool_workers)`, "{{ $labels.pool }}"))
}
