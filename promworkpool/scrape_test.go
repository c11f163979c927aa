package promworkpool_test

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

func mediaType(t *testing.T, contentType string) string {
	t.Helper()
	media, _, err := mime.ParseMediaType(contentType)
	require.NoError(t, err)
	return media
}

// TestScrape asks a server as Prometheus does, in each of its formats.
func TestScrape(t *testing.T) {
	c := newCollector(t, promworkpool.WithExemplar(traceOf))
	pool := newPool(t, c, "scraped")
	ctx := context.WithValue(t.Context(), traceKey{}, "4bf92f35")
	require.NoError(t, pool.Submit(ctx, succeed))
	require.NoError(t, pool.Close())

	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.HTTPErrorOnError,
	}))
	defer server.Close()
	scrape := func(format expfmt.Format) []byte {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		request.Header.Set("Accept", string(format))
		response, err := server.Client().Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, mediaType(t, string(format)), mediaType(t, response.Header.Get("Content-Type")))
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return body
	}

	t.Run("text", func(t *testing.T) {
		text := string(scrape(expfmt.NewFormat(expfmt.TypeTextPlain)))
		assert.Contains(t, text, `workpool_tasks_total{outcome="succeeded",pool="scraped"} 1`)
		assert.Contains(t, text, `workpool_task_run_seconds_bucket{pool="scraped",le="300"} 1`)
		assert.NotContains(t, text, "trace_id")
	})
	t.Run("OpenMetrics", func(t *testing.T) {
		format, err := expfmt.NewOpenMetricsFormat(expfmt.OpenMetricsVersion_1_0_0)
		require.NoError(t, err)
		text := string(scrape(format))
		assert.Contains(t, text, "# UNIT workpool_task_wait_seconds seconds\n")
		for _, name := range []string{"workpool_task_wait_seconds", "workpool_task_run_seconds"} {
			assert.Regexp(t, name+`_bucket\{pool="scraped",le="[0-9.e+-]+"\} 1 # \{trace_id="4bf92f35"\} `, text)
		}
		assert.Regexp(t, "# EOF\n$", text)
	})
	t.Run("protobuf", func(t *testing.T) {
		format := expfmt.NewFormat(expfmt.TypeProtoDelim)
		decoder := expfmt.NewDecoder(bytes.NewReader(scrape(format)), format)
		native := 0
		for {
			var family dto.MetricFamily
			if err := decoder.Decode(&family); err == io.EOF {
				break
			} else {
				require.NoError(t, err)
			}
			if family.GetType() != dto.MetricType_HISTOGRAM {
				continue
			}
			native++
			h := family.GetMetric()[0].GetHistogram()
			assert.EqualValues(t, 1, h.GetSampleCount())
			assert.EqualValues(t, 3, h.GetSchema(), "eight buckets from one power of two to the next")
			assert.Len(t, h.GetPositiveSpan(), 1)
			require.Len(t, h.GetExemplars(), 1)
			assert.Equal(t, "4bf92f35", h.GetExemplars()[0].GetLabel()[0].GetValue())
		}
		assert.Equal(t, 2, native)
	})
}
