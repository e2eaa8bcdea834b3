package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// How often a message may be logged: burst times at once, then once in every interval.
const (
	burst    = 10
	interval = time.Second
)

// maxMessages is how many messages are counted by themselves. What comes beyond is counted together: a
// message may have been put together.
const maxMessages = 1000

// Limit bounds how often a message is logged, whatever its fields are. The next one that is has in
// "left_out" how many were not.
func Limit(h slog.Handler) slog.Handler {
	return &limited{h, &limiter{messages: map[string]*budget{}}}
}

// limited is a handler that leaves records out. Those that are made of it share its limiter.
type limited struct {
	slog.Handler
	by *limiter
}

// limiter counts messages.
type limiter struct {
	mu       sync.Mutex
	messages map[string]*budget // guarded by mu
}

// budget is what one message may still do.
type budget struct {
	left    float64 // how often it may be logged now
	at      time.Time
	leftOut uint64
}

// Handle implements slog.Handler, as the following methods do.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	leftOut, ok := l.by.allows(r.Message, r.Time)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64("left_out", leftOut))
	}
	return l.Handler.Handle(ctx, r)
}

func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{l.Handler.WithAttrs(attrs), l.by}
}

func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.by}
}

// allows says whether a message may be logged now, and how many were not since the last one that was.
func (l *limiter) allows(message string, now time.Time) (leftOut uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.messages[message]
	if b == nil && len(l.messages) >= maxMessages {
		message = ""
		b = l.messages[message]
	}
	if b == nil {
		b = &budget{left: burst, at: now}
		l.messages[message] = b
	}
	if passed := now.Sub(b.at); passed > 0 { // the clock may jump back
		b.left = min(burst, b.left+passed.Seconds()/interval.Seconds())
	}
	b.at = now
	if b.left < 1 {
		b.leftOut++
		return 0, false
	}
	b.left--
	leftOut, b.leftOut = b.leftOut, 0
	return leftOut, true
}
