package debug

import (
	"math/bits"
	"strconv"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets: one for all below 256 ns, then four for each doubling,
// up to more than an hour. A duration that is taken from it is at most an eighth off.
type histogram struct {
	counts [buckets]atomic.Uint32
	most   atomic.Int64
}

const (
	smallest = 8 // the first bucket ends at 1<<smallest ns
	doubling = 34
	buckets  = 1 + 4*doubling
)

func bucketOf(d time.Duration) int {
	n := bits.Len64(uint64(max(0, d)))
	if n <= smallest {
		return 0
	}
	quarter := int(d>>(n-3)) & 3
	return min(1+4*(n-smallest-1)+quarter, buckets-1)
}

// middle returns the middle of a bucket.
func middle(bucket int) time.Duration {
	if bucket == 0 {
		return 1 << (smallest - 1)
	}
	double, quarter := (bucket-1)/4, (bucket-1)%4
	return time.Duration(2*(4+quarter)+1) << (smallest - 3 + double)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	for most := h.most.Load(); int64(d) > most; most = h.most.Load() {
		if h.most.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
	h.most.Store(0)
}

// A sum is what several histograms have counted.
type sum struct {
	counts [buckets]uint64
	n      uint64
	most   time.Duration
}

func (s *sum) add(h *histogram) {
	for i := range h.counts {
		n := uint64(h.counts[i].Load())
		s.counts[i] += n
		s.n += n
	}
	s.most = max(s.most, time.Duration(h.most.Load()))
}

// percentile returns a duration that p percent of what was counted do not exceed.
func (s *sum) percentile(p uint64) time.Duration {
	rest := (s.n*p + 99) / 100
	for i, n := range s.counts {
		if n > 0 && n >= rest {
			return min(middle(i), s.most)
		}
		rest -= n
	}
	return s.most
}

// A summary is what is told of a histogram.
type summary struct {
	Count uint64  `json:"count"`
	P50   seconds `json:"p50"`
	P90   seconds `json:"p90"`
	P99   seconds `json:"p99"`
	Max   seconds `json:"max"`
}

// summaryOf returns nil if nothing was counted.
func summaryOf(h *histogram) *summary {
	var s sum
	s.add(h)
	return s.summary()
}

func (s *sum) summary() *summary {
	if s.n == 0 {
		return nil
	}
	return &summary{s.n, seconds(s.percentile(50)), seconds(s.percentile(90)), seconds(s.percentile(99)), seconds(s.most)}
}

// seconds is a time that JSON has as a number of seconds.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'g', -1, 64), nil
}
