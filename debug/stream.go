package debug

import (
	"encoding/json"
	"net/http"
	"time"
)

const (
	interval = time.Second     // between two events
	patience = 5 * time.Second // with a client that does not read
)

// stream sends what the page shows, once a second, until the client leaves or does not read, or
// the page is closed.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	done := p.done()
	select {
	case <-done:
		http.Error(w, "the page is closed: the program is shutting down", http.StatusServiceUnavailable)
		return
	default:
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for proxies that would collect events
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close") // which has deadlines that are not the server's
	}
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	// The timeouts of the server are for short answers. Where there is no deadline to set, there
	// is none to be dropped by.
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Now().Add(patience))
	if err := control.Flush(); err != nil {
		http.Error(w, "no live view through this server: "+err.Error(), http.StatusNotImplemented)
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		_ = control.SetWriteDeadline(time.Now().Add(patience))
		if _, err := w.Write(event(p.look())); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-done:
			return
		}
	}
}

// event returns the body of the page as an event. It is a JSON string, and so has no line ends of
// its own.
func event(s snapshot) []byte {
	text, _ := json.Marshal(string(render("pools", s))) // a string can always be marshalled
	return append(append([]byte("data: "), text...), "\n\n"...)
}
