package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/seed-a18b2dc9/workpool"
)

// encoded returns a PNG of the given size, red on the left and blue on the
// right.
func encoded(t *testing.T, size image.Point) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rectangle{Max: size})
	for y := range size.Y {
		for x := range size.X {
			c := color.RGBA{255, 0, 0, 255}
			if x >= size.X/2 {
				c = color.RGBA{0, 0, 255, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	var data bytes.Buffer
	if err := png.Encode(&data, img); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// repeated yields an image n times, and counts how often it was pulled.
func repeated(data []byte, n int) (images iter.Seq[source], pulled *atomic.Int64) {
	pulled = new(atomic.Int64)
	return func(yield func(source) bool) {
		for i := range n {
			pulled.Add(1)
			if !yield(source{fmt.Sprint(i), data}) {
				return
			}
		}
	}, pulled
}

func dropped(context.Context, thumbnail) error { return nil }

func TestPipeline_ASlowSecondStageHoldsBackTheFirst(t *testing.T) {
	data := encoded(t, image.Pt(8, 8))
	for _, workers := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 500
				images, pulled := repeated(data, n)
				proceed := make(chan struct{})
				var got summary
				var err error
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					got, err = process(t.Context(), images, workers, func(context.Context, thumbnail) error {
						<-proceed
						return nil
					})
				}()
				for released := range 20 {
					synctest.Wait() // until nothing moves any more
					flying := int(pulled.Load()) - released
					if flying > bound(workers) || flying < workers+queueDepth {
						t.Errorf("%d images in flight after %d, want %d to %d", flying, released, workers+queueDepth, bound(workers))
					}
					proceed <- struct{}{}
				}
				close(proceed)
				<-ended
				if err != nil || got.thumbnails != n || len(got.failures) != 0 {
					t.Errorf("%d thumbnails, failures: %v, error: %v", got.thumbnails, got.failures, err)
				}
				if got.peak > bound(workers) {
					t.Errorf("%d images in flight, more than %d", got.peak, bound(workers))
				}
			})
		})
	}
}

func TestPipeline_ABrokenImageStopsNoOther(t *testing.T) {
	good, broken := encoded(t, image.Pt(8, 8)), encoded(t, image.Pt(400, 400))
	broken = broken[:len(broken)/2]
	images := func(yield func(source) bool) {
		for i := range 30 {
			s := source{fmt.Sprint(i), good}
			if i == 15 {
				s.data = broken
			}
			if !yield(s) {
				return
			}
		}
	}
	full := errors.New("disk is full")
	got, err := process(t.Context(), images, 2, func(_ context.Context, s thumbnail) error {
		if s.name == "20" {
			return full
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.thumbnails != 28 || len(got.failures) != 2 {
		t.Fatalf("%d thumbnails, failures: %v", got.thumbnails, got.failures)
	}
	failures := errors.Join(got.failures...)
	if !errors.Is(failures, full) || !strings.Contains(failures.Error(), "15: png: ") || !strings.Contains(failures.Error(), "20: disk") {
		t.Errorf("failures: %v", failures)
	}
}

func TestPipeline_EndsWithItsContext(t *testing.T) {
	data := encoded(t, image.Pt(8, 8))
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		images, pulled := repeated(data, n)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		var stored atomic.Int64
		go func() {
			synctest.Wait() // until all workers of the second pool are at the upload
			cancel(stop)
		}()
		got, err := process(ctx, images, 2, func(ctx context.Context, _ thumbnail) error {
			if stored.Add(1) <= 5 {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, stop) {
			t.Errorf("error: %v", err)
		}
		if got.thumbnails != 5 || len(got.failures) != 0 {
			t.Errorf("%d thumbnails, failures: %v", got.thumbnails, got.failures)
		}
		if pulled.Load() > int64(5+bound(2)) {
			t.Errorf("%d images pulled", pulled.Load())
		}
	})
}

func TestPipeline_ABrokenSourceIsReported(t *testing.T) {
	images, _ := repeated(encoded(t, image.Pt(8, 8)), 20)
	got, err := process(t.Context(), func(yield func(source) bool) {
		images(yield)
		panic("the camera is on fire")
	}, 2, dropped)
	var panicked *workpool.PanicError
	if !errors.As(err, &panicked) || panicked.Value != "the camera is on fire" {
		t.Errorf("error: %v", err)
	}
	if got.thumbnails != 20 || len(got.failures) != 0 {
		t.Errorf("%d thumbnails, failures: %v", got.thumbnails, got.failures)
	}
}

func TestPipeline_ThumbnailsLookLikeTheirImages(t *testing.T) {
	var mu sync.Mutex
	var thumbnails []thumbnail
	images, _ := repeated(encoded(t, image.Pt(400, 200)), 1)
	got, err := process(t.Context(), images, 1, func(_ context.Context, s thumbnail) error {
		mu.Lock()
		defer mu.Unlock()
		thumbnails = append(thumbnails, s)
		return nil
	})
	if err != nil || len(thumbnails) != 1 {
		t.Fatalf("%d thumbnails, error: %v", len(thumbnails), err)
	}
	if got.in.size != image.Pt(400, 200) || got.out.size != image.Pt(160, 80) {
		t.Errorf("from %v to %v", got.in.size, got.out.size)
	}
	img, err := jpeg.Decode(bytes.NewReader(thumbnails[0].data))
	if err != nil {
		t.Fatal(err)
	}
	if img.Bounds() != image.Rect(0, 0, 160, 80) {
		t.Fatalf("bounds %v", img.Bounds())
	}
	for _, test := range []struct {
		at   image.Point
		want color.RGBA
	}{
		{image.Pt(40, 40), color.RGBA{255, 0, 0, 255}},
		{image.Pt(120, 40), color.RGBA{0, 0, 255, 255}},
	} {
		got := color.RGBAModel.Convert(img.At(test.at.X, test.at.Y)).(color.RGBA)
		for i, difference := range []int{int(got.R) - int(test.want.R), int(got.G) - int(test.want.G), int(got.B) - int(test.want.B)} {
			if difference < -5 || difference > 5 {
				t.Errorf("at %v: %v, want %v (channel %d)", test.at, got, test.want, i)
			}
		}
	}
}

func TestFit(t *testing.T) {
	// A board of black and white squares of one pixel is gray from afar.
	board := image.NewGray(image.Rect(10, 10, 18, 14))
	for y := 10; y < 14; y++ {
		for x := 10; x < 18; x++ {
			board.SetGray(x, y, color.Gray{uint8((x + y) % 2 * 255)})
		}
	}
	got := fit(board, 4)
	if got.Bounds() != image.Rect(0, 0, 4, 2) {
		t.Fatalf("bounds %v", got.Bounds())
	}
	for y := range 2 {
		for x := range 4 {
			if c := got.RGBAAt(x, y); c != (color.RGBA{128, 128, 128, 255}) {
				t.Errorf("at %d, %d: %v", x, y, c)
			}
		}
	}
	for _, test := range []struct{ from, want image.Point }{
		{image.Pt(3, 2), image.Pt(3, 2)},
		{image.Pt(4, 4), image.Pt(4, 4)},
		{image.Pt(5, 5), image.Pt(4, 4)},
		{image.Pt(1, 100), image.Pt(1, 4)},
		{image.Pt(100, 1), image.Pt(4, 1)},
		{image.Pt(101, 67), image.Pt(4, 2)},
	} {
		if got := fit(image.NewRGBA(image.Rectangle{Max: test.from}), 4).Bounds().Size(); got != test.want {
			t.Errorf("fit(%v): got %v, want %v", test.from, got, test.want)
		}
	}
}

func TestPipeline_RefusesAnImageThatClaimsToBeHuge(t *testing.T) {
	data := encoded(t, image.Pt(8, 8))
	header := data[12:29] // the type, width, height, and so on of the first chunk
	binary.BigEndian.PutUint32(header[4:], 10_000)
	binary.BigEndian.PutUint32(header[8:], 5_001)
	binary.BigEndian.PutUint32(data[29:], crc32.ChecksumIEEE(header))
	images, _ := repeated(data, 1)
	got, err := process(t.Context(), images, 1, dropped)
	if err != nil || len(got.failures) != 1 || !strings.Contains(got.failures[0].Error(), "too many") {
		t.Errorf("failures: %v, error: %v", got.failures, err)
	}
}

func TestRun_RefusesWhatItCannotUse(t *testing.T) {
	for _, args := range [][]string{
		{"extra"},
		{"-n", "-1"},
		{"-delay", "-1s"},
		{"-broken", "-1"},
		{"-workers", "0"},
	} {
		if err := run(t.Context(), args, io.Discard); exitStatus(err) != 2 {
			t.Errorf("run(%q): status %d, %v", args, exitStatus(err), err)
		}
	}
}

func TestRun_Interrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, nil, io.Discard); exitStatus(err) != 130 {
		t.Errorf("status %d, %v", exitStatus(err), err)
	}
}

func TestRun_WritesThumbnails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var out bytes.Buffer
	err := run(t.Context(), []string{"-n", "10", "-workers", "2", "-broken", "5", "-out", dir}, &out)
	if exitStatus(err) != 1 || !strings.Contains(out.String(), "8 thumbnails") || !strings.Contains(out.String(), "failed: image-0005: ") {
		t.Errorf("error: %v, output:\n%s", err, out.String())
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 8 {
		t.Errorf("%d files", len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		config, err := jpeg.DecodeConfig(bytes.NewReader(data))
		if err != nil || max(config.Width, config.Height) != thumbnailSide {
			t.Errorf("%s: %d x %d, error: %v", file.Name(), config.Width, config.Height, err)
		}
	}
}
