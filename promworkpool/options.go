package promworkpool

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// An Option changes a [Collector] that [New] makes.
type Option interface{ apply(*options) error }

type options struct {
	buckets  []float64
	exemplar func(context.Context) prometheus.Labels
}

type optionFunc func(*options) error

func (f optionFunc) apply(o *options) error { return f(o) }

// defaultBuckets go from 100 µs to 5 minutes.
var defaultBuckets = []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300}

// WithBuckets sets the upper bounds of the classic buckets of both histograms, in seconds
// and in increasing order. The default is 13 bounds from 100 µs to 5 minutes. WithBuckets()
// leaves the classic buckets out. A server that asks for native histograms gets native
// buckets in any case.
func WithBuckets(bounds ...float64) Option {
	bounds = slices.Clone(bounds)
	return optionFunc(func(o *options) error {
		for i, b := range bounds {
			if math.IsNaN(b) || i > 0 && b <= bounds[i-1] {
				return fmt.Errorf("WithBuckets(%v): the bounds have to increase", bounds)
			}
		}
		o.buckets = bounds
		return nil
	})
}

// WithExemplar adds exemplars to the histograms: observations with labels, such as a trace ID,
// that lead from a bucket to one of its tasks. Exemplars are part of OpenMetrics and of native
// histograms, but not of the plain text format.
//
// labels is called at the beginning and at the end of every attempt, by many goroutines at once. It
// returns the labels, or nil for an observation without an exemplar. An exemplar takes more than
// a microsecond, so return nil for traces that are not sampled. An observation also has no
// exemplar if Prometheus would refuse its labels. That is so if a name has characters other than
// letters, digits and underscores, or begins with a digit or two underscores; if a value is not
// valid UTF-8; or if all names and values together have more than [prometheus.ExemplarMaxRunes]
// characters.
//
// The context has the values of the caller's context, and those added by observers that were given
// to the pool earlier. To have the span of each task in its exemplars, give the pool the observer
// that starts spans first.
func WithExemplar(labels func(ctx context.Context) prometheus.Labels) Option {
	return optionFunc(func(o *options) error {
		if labels == nil {
			return fmt.Errorf("WithExemplar(nil): leave the option out for no exemplars")
		}
		o.exemplar = labels
		return nil
	})
}

// usable tells whether labels make an exemplar that Prometheus accepts. The client library
// panics if they do not, and older servers refuse the whole scrape because of a
// name in quotes.
func usable(labels prometheus.Labels) bool {
	size := 0
	for name, value := range labels {
		if !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || !utf8.ValidString(value) {
			return false
		}
		size += len(name) + utf8.RuneCountInString(value)
	}
	return size > 0 && size <= prometheus.ExemplarMaxRunes
}
