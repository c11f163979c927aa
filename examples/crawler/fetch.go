package main

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const maxPage = 4 << 20 // bytes; links beyond are not found

func newClient(o options) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = max(1, o.workers)
	return &http.Client{
		Transport: transport,
		Timeout:   o.timeout,
		// A redirect is a page with one link. Were it followed here, its
		// target could be fetched twice.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch gets one page and returns the links on it, each once.
func (c *crawler) fetch(ctx context.Context, address string) (status int, links []string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return resp.StatusCode, nil, err
	}
	switch target, err := resp.Location(); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400 && err == nil:
		links = append(links, clean(target).String())
	case resp.StatusCode < 300 && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		links = extract(req.URL, string(body))
	}
	return resp.StatusCode, links, nil
}

// anchor finds the href of an a element. It is good enough for an example: it
// also finds links in comments and scripts, and ignores <base>. A real crawler
// uses a parser, such as golang.org/x/net/html.
var anchor = regexp.MustCompile(`(?i)<a\s(?:[^>]*?\s)?href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)

// extract returns the links in the text of a page, each once, in order.
func extract(base *url.URL, text string) []string {
	var links []string
	found := make(map[string]bool)
	for _, match := range anchor.FindAllStringSubmatch(text, -1) {
		href := html.UnescapeString(match[1] + match[2] + match[3])
		u, err := base.Parse(strings.TrimSpace(href))
		if err != nil || !followable(u) {
			continue // mailto: and the like
		}
		if link := clean(u).String(); !found[link] {
			found[link] = true
			links = append(links, link)
		}
	}
	return links
}

func followable(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// clean makes the URLs of one page equal.
func clean(u *url.URL) *url.URL {
	cleaned := *u
	cleaned.Host = strings.ToLower(u.Host)
	cleaned.Fragment, cleaned.RawFragment = "", ""
	if cleaned.Path == "" {
		cleaned.Path = "/"
	}
	return &cleaned
}
