// Mirrors downloads a file from the first of several mirrors that has it. It shows
// [workpool.Pool.Stream] for a race: a few attempts run at a time, the first success
// wins, and leaving the loop cancels the others and waits for them. When all fail, the
// error says why each of them did.
//
//	go run ./examples/mirrors -o file.iso https://one.example/file.iso https://two.example/pub/file.iso
//
// Mirrors are tried in the order in which they are given, -parallel at a time. A mirror
// that takes longer than -timeout has failed, and so has one whose file does not have
// the sum that -sha256 asks for. The file appears under its name only when it is whole.
// The exit status is 1 if no mirror has the file, 2 for wrong usage, and 130 after Ctrl-C.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mirrors:", err)
	}
	os.Exit(exitStatus(err))
}

type options struct {
	target   string
	parallel int
	timeout  time.Duration
	sum      []byte // that the file has to have; nil for any
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("mirrors", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: mirrors -o FILE [flags] URL...")
		flags.PrintDefaults()
	}
	var o options
	flags.StringVar(&o.target, "o", "", "`file` to write")
	flags.IntVar(&o.parallel, "parallel", 2, "mirrors that are asked at a time")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "time for an attempt")
	sum := flags.String("sha256", "", "the `sum` that the file has to have, in hexadecimal")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	switch o.sum, err = hex.DecodeString(*sum); {
	case err != nil, len(o.sum) != 0 && len(o.sum) != sha256.Size:
		return usage("-sha256 %q: not %d hexadecimal digits", *sum, 2*sha256.Size)
	case o.target == "":
		return usage("-o is missing: name the file to write")
	case o.parallel < 1:
		return usage("-parallel %d: must be 1 or more", o.parallel)
	case o.timeout <= 0:
		return usage("-timeout %v: must be more than 0", o.timeout)
	case flags.NArg() == 0:
		return usage("no mirrors: name their URLs")
	}
	for _, arg := range flags.Args() {
		if u, err := url.Parse(arg); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return usage("%q is no http or https URL", arg)
		}
	}
	if info, err := os.Stat(o.target); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("-o %s: exists, and is no regular file: choose another name", o.target)
	}
	winner, err := download(ctx, flags.Args(), o)
	if err == nil {
		fmt.Fprintf(out, "%s: from %s\n", o.target, winner)
	}
	return err
}

// download writes the file of the first mirror that succeeds, and returns which that was.
func download(ctx context.Context, mirrors []string, o options) (winner string, err error) {
	// Each attempt writes a file of its own. The files are in the folder of the target, so that
	// one can be renamed. The others are deleted in the end.
	dir, err := os.MkdirTemp(filepath.Dir(o.target), ".mirrors-*")
	if err != nil {
		return "", fmt.Errorf("-o %s: %w", o.target, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	defer client.CloseIdleConnections()

	fetch := func(ctx context.Context, mirror string) (path string, err error) {
		return fetch(ctx, client, mirror, dir, o.sum)
	}
	pool, err := workpool.New(workpool.Timeout(fetch, o.timeout), workpool.WithWorkers(o.parallel))
	if err != nil {
		return "", err
	}
	defer pool.Close()
	var failures []error
	for r := range pool.Stream(ctx, slices.Values(mirrors)) {
		if r.Err == nil {
			return r.Task, os.Rename(r.Value, o.target) // leaving the loop cancels the other attempts
		}
		failures = append(failures, r.Err)
	}
	if ctx.Err() != nil {
		return "", errInterrupted
	}
	return "", fmt.Errorf("no mirror has the file:\n%w", errors.Join(failures...))
}

// fetch is an attempt: it downloads the file of one mirror to a file in dir.
func fetch(ctx context.Context, client *http.Client, mirror, dir string, sum []byte) (path string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, mirror, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", mirror, resp.Status)
	}
	info, _ := workpool.InfoFrom(ctx)
	file, err := os.Create(filepath.Join(dir, fmt.Sprint(info.Index))) // of this attempt alone
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), resp.Body)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", mirror, err)
	}
	if got := hash.Sum(nil); len(sum) > 0 && !slices.Equal(got, sum) {
		return "", fmt.Errorf("%s: the file has the sum %x", mirror, got)
	}
	return file.Name(), nil
}
