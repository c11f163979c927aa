package embedded

import (
	"fmt"
	"log/slog"
)

// A logger passes on what the server says, and keeps why it can't start.
type logger struct {
	log   *slog.Logger
	fatal chan string // holds the first
}

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log, fatal: make(chan string, 1)}
}

func (l *logger) Noticef(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l *logger) Warnf(format string, args ...any)   { l.log.Warn(fmt.Sprintf(format, args...)) }
func (l *logger) Errorf(format string, args ...any)  { l.log.Error(fmt.Sprintf(format, args...)) }
func (l *logger) Debugf(string, ...any)              {} // of the server's own authors
func (l *logger) Tracef(string, ...any)              {}

// Fatalf takes what a server of its own would end the process for. The first is for
// Start to return, and so is not logged.
func (l *logger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	select {
	case l.fatal <- text:
	default:
		l.log.Error(text)
	}
}
