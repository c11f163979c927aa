package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"iter"
	"sync"
)

const (
	thumbnailSide = 160
	maxPixels     = 50_000_000 // a small file may claim to be a huge image
)

// A source is an encoded image, the task of the first pool.
type source struct {
	name string
	data []byte
}

// A shrunk is what the first pool makes of it.
type shrunk struct {
	name  string
	from  image.Point // the size of the source
	image *image.RGBA
}

// A thumbnail is what the second pool makes of that.
type thumbnail struct {
	name string
	size image.Point
	data []byte
}

// shrink is the handler of the first pool.
func shrink(ctx context.Context, s source) (shrunk, error) {
	config, _, err := image.DecodeConfig(bytes.NewReader(s.data))
	if err != nil {
		return shrunk{}, err
	}
	if config.Width*config.Height > maxPixels {
		return shrunk{}, fmt.Errorf("%d x %d pixels are too many", config.Width, config.Height)
	}
	decoded, _, err := image.Decode(bytes.NewReader(s.data))
	if err != nil {
		return shrunk{}, err
	}
	if ctx.Err() != nil {
		return shrunk{}, context.Cause(ctx) // nobody needs the rest
	}
	return shrunk{s.name, decoded.Bounds().Size(), fit(decoded, thumbnailSide)}, nil
}

// encode is the work of the second pool.
func encode(s shrunk) (thumbnail, error) {
	var data bytes.Buffer
	if err := jpeg.Encode(&data, s.image, &jpeg.Options{Quality: 85}); err != nil {
		return thumbnail{}, err
	}
	return thumbnail{s.name, s.image.Bounds().Size(), data.Bytes()}, nil
}

// fit shrinks an image so that neither side is longer than side. It keeps the
// proportions, and images that are small enough.
func fit(img image.Image, side int) *image.RGBA {
	from := img.Bounds().Size()
	in := image.NewRGBA(image.Rectangle{Max: from})
	draw.Draw(in, in.Bounds(), img, img.Bounds().Min, draw.Src)
	longer := max(from.X, from.Y)
	if longer <= side {
		return in
	}
	to := image.Pt(max(1, from.X*side/longer), max(1, from.Y*side/longer))
	out := image.NewRGBA(image.Rectangle{Max: to})
	for y := range to.Y {
		for x := range to.X {
			box := image.Rect(x*from.X/to.X, y*from.Y/to.Y, (x+1)*from.X/to.X, (y+1)*from.Y/to.Y)
			out.SetRGBA(x, y, average(in, box))
		}
	}
	return out
}

// average returns the mean color of the pixels in box.
func average(img *image.RGBA, box image.Rectangle) color.RGBA {
	var sum [4]int
	for y := box.Min.Y; y < box.Max.Y; y++ {
		row := img.Pix[img.PixOffset(box.Min.X, y):img.PixOffset(box.Max.X, y)]
		for i := range row {
			sum[i%4] += int(row[i])
		}
	}
	n := box.Dx() * box.Dy()
	mean := func(sum int) uint8 { return uint8((sum + n/2) / n) }
	return color.RGBA{mean(sum[0]), mean(sum[1]), mean(sum[2]), mean(sum[3])}
}

// generate yields n images, and cuts off every broken-th.
func generate(n, broken int) iter.Seq[source] {
	return func(yield func(source) bool) {
		for i := 1; i <= n; i++ {
			s := source{fmt.Sprintf("image-%04d", i), paint(i)}
			if broken > 0 && i%broken == 0 {
				s.data = s.data[:len(s.data)/2]
			}
			if !yield(s) {
				return
			}
		}
	}
}

// paint draws a sun in a sky, different for each i, and returns it as PNG.
func paint(i int) []byte {
	size := image.Pt(400+i*53%400, 300+i*31%300)
	img := image.NewRGBA(image.Rectangle{Max: size})
	sun := image.Pt(size.X*(i%10+1)/11, size.Y*(i%7+1)/8)
	radius := size.Y / 8
	for y := range size.Y {
		for x := range size.X {
			c := color.RGBA{uint8(255 * y / size.Y), uint8(i * 5), uint8(255 - 255*y/size.Y), 255}
			if d := image.Pt(x, y).Sub(sun); d.X*d.X+d.Y*d.Y < radius*radius {
				c = color.RGBA{255, 220, 60, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	var data bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&data, img); err != nil {
		panic(err) // a buffer takes everything; a panic here would end the Stream as an error
	}
	return data.Bytes()
}

// A gauge counts the images in flight.
type gauge struct {
	mu        sync.Mutex
	now, peak int
}

// count adds the images of the sequence, one by one as they are pulled.
func (g *gauge) count(images iter.Seq[source]) iter.Seq[source] {
	return func(yield func(source) bool) {
		for s := range images {
			g.mu.Lock()
			g.now++
			g.peak = max(g.peak, g.now)
			g.mu.Unlock()
			if !yield(s) {
				return
			}
		}
	}
}

func (g *gauge) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
}

func (g *gauge) highest() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peak
}
