package debug

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	maxFailures = 16
	maxText     = 1 << 10 // bytes
	maxStack    = 8 << 10
)

// A failure is an error with which attempts of tasks have ended, told apart by its text.
type failure struct {
	Number  int       `json:"-"`
	Text    string    `json:"text"`
	Panic   bool      `json:"panic"`
	Stack   string    `json:"stack,omitempty"` // of the first
	Count   int       `json:"count"`
	Last    time.Time `json:"last"`
	Task    uint64    `json:"task"` // this and what follows are of the last
	Worker  int       `json:"worker"`
	Attempt int       `json:"attempt"`
	Retried bool      `json:"retried"`
}

// failures are the last different ones of a pool.
type failures struct {
	mu   sync.Mutex // guards what follows
	list []failure  // the latest at the end
	made int
}

// add notes the failure of e. Only the texts are kept, not the error.
func (f *failures) add(e workpool.Event) {
	text, retried, panicked := describe(e.Err)
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.list, func(old failure) bool {
		return old.Text == text && old.Panic == (panicked != nil)
	})
	var found failure
	if i >= 0 {
		found = f.list[i]
		f.list = slices.Delete(f.list, i, i+1)
	} else {
		f.made++
		found = failure{Number: f.made, Text: text, Panic: panicked != nil}
		if panicked != nil {
			found.Stack = stackOf(panicked)
		}
		if len(f.list) == maxFailures {
			f.list = slices.Delete(f.list, 0, 1)
		}
	}
	found.Count++
	found.Last = time.Now()
	found.Task, found.Worker, found.Attempt, found.Retried = e.Index, e.Worker, e.Attempt, retried
	f.list = append(f.list, found)
}

// latest returns the failures, the latest first.
func (f *failures) latest() []failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := append([]failure{}, f.list...)
	slices.Reverse(list)
	return list
}

// describe asks err, whose methods are the user's and may panic, for its text, and whether
// it asks for another attempt.
func describe(err error) (text string, retried bool, panicked *workpool.PanicError) {
	defer func() {
		if v := recover(); v != nil {
			text = cmp.Or(text, fmt.Sprintf("an error of type %T, a method of which panics", err))
		}
	}()
	text = cut(err.Error(), maxText)
	_, retried = workpool.RetryDelay(err)
	errors.As(err, &panicked)
	return text, retried, panicked
}

// stackOf returns the stack of a panic from where it began, without the frames of those who have
// recovered it.
func stackOf(e *workpool.PanicError) string {
	stack := string(e.Stack[:min(len(e.Stack), 2*maxStack)])
	if _, after, found := strings.Cut(stack, "\npanic("); found {
		if _, after, found = strings.Cut(after, "\n\t"); found {
			if _, after, found = strings.Cut(after, "\n"); found {
				stack = after
			}
		}
	}
	return cut(strings.TrimSpace(stack), maxStack)
}

// cut returns text as valid UTF-8 of about n bytes at most.
func cut(text string, n int) string {
	if len(text) > n {
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n] + " …"
	}
	return strings.Clone(strings.ToValidUTF8(text, "\uFFFD"))
}
