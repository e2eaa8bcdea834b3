package s3

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errTest = errors.New("test")

// reply is what a request of a test does: it begins its answer, and is done, after some time.
type reply struct {
	begins, takes time.Duration
	n             int
	err           error
}

// service answers requests with replies, one after another, and fills what it reads with their number.
func service(replies ...reply) (g get, sent *int) {
	sent = new(int)
	return func(ctx context.Context, p []byte, begun func()) (int, error) {
		i := *sent
		*sent++
		r := replies[i]
		if r.begins > 0 {
			if err := pause(ctx, r.begins); err != nil {
				return 0, err
			}
			begun()
		}
		if err := pause(ctx, r.takes); err != nil {
			return 0, err
		}
		copy(p[:r.n], bytes.Repeat([]byte{byte(i + 1)}, r.n))
		return r.n, r.err
	}, sent
}

// warm makes a hedger that has seen answers which began after 10 ms.
func warm() *hedger {
	h := newHedger()
	for range 100 {
		h.answered(10 * time.Millisecond)
	}
	return h
}

func TestHedge(t *testing.T) {
	const ms, size = time.Millisecond, 8
	for name, c := range map[string]struct {
		h       *hedger
		replies []reply
		sent    int
		first   byte // who made the bytes
		n       int
		err     error
		took    time.Duration
		won     int64
	}{
		"an answer in time is waited for": {h: warm(), replies: []reply{{begins: 9 * ms, takes: 90 * ms, n: size}},
			sent: 1, first: 1, n: size, took: 99 * ms},
		"nobody knows what is late": {h: newHedger(), replies: []reply{{begins: 900 * ms, n: size}},
			sent: 1, first: 1, n: size, took: 900 * ms},
		"the second is quicker": {h: warm(), replies: []reply{{begins: 900 * ms, n: size}, {begins: 5 * ms, n: size}},
			sent: 2, first: 2, n: size, took: 15 * ms, won: 1},
		"the first comes after all": {h: warm(), replies: []reply{{begins: 20 * ms, n: size}, {begins: 90 * ms, n: size}},
			sent: 2, first: 1, n: size, took: 20 * ms},
		"the first fails late, the second is right": {h: warm(),
			replies: []reply{{begins: 20 * ms, err: errTest}, {begins: 30 * ms, n: size}},
			sent:    2, first: 2, n: size, took: 40 * ms, won: 1},
		"the second fails, the first is right": {h: warm(),
			replies: []reply{{begins: 50 * ms, n: size}, {begins: 1 * ms, err: errTest}},
			sent:    2, first: 1, n: size, took: 50 * ms},
		"both fail: what was read most counts": {h: warm(),
			replies: []reply{{begins: 50 * ms, n: 2, err: errTest}, {begins: 1 * ms, n: 3, err: errTest}},
			sent:    2, first: 2, n: 3, err: errTest, took: 50 * ms, won: 1},
		"a failure in time is the caller's": {h: warm(), replies: []reply{{takes: 5 * ms, n: 1, err: errTest}},
			sent: 1, first: 1, n: 1, err: errTest, took: 5 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, sent := service(c.replies...)
				p := make([]byte, size)
				start := time.Now()
				n, err := c.h.read(t.Context(), p, g)
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v", took)
				}
				if n != c.n || !errors.Is(err, c.err) || *sent != c.sent || p[0] != c.first {
					t.Errorf("%d bytes of %d, %v, %d requests", n, p[0], err, *sent)
				}
				if s := c.h.Stats(); s.Requests != 1 || s.Second != int64(c.sent-1) || s.Won != c.won {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestHedgeIsBounded: however late answers are, few requests are sent twice; and none while requests fail.
func TestHedgeIsBounded(t *testing.T) {
	slow := func(err error) get {
		return func(ctx context.Context, p []byte, begun func()) (int, error) {
			if err := pause(ctx, time.Second); err != nil {
				return 0, err
			}
			return len(p), err // begun is not called: nobody gets used to it
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := warm()
		for range 1000 {
			_, _ = h.read(t.Context(), make([]byte, 1), slow(nil))
		}
		if s := h.Stats(); s.Second < 50 || s.Second > 1000*hedgeShare+hedgeBurst {
			t.Errorf("%+v", s)
		}
		h = warm()
		for range 100 {
			_, _ = h.read(t.Context(), make([]byte, 1), slow(errTest))
		}
		if s := h.Stats(); s.Second > hedgeBurst {
			t.Errorf("of those that fail: %+v", s)
		}
	})
}

// TestHedgeEnds: when its context ends, a read returns, and so have its requests.
func TestHedgeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		g, sent := service(reply{begins: time.Hour}, reply{begins: time.Hour})
		if _, err := warm().read(ctx, make([]byte, 1), g); !errors.Is(err, context.DeadlineExceeded) || *sent != 2 {
			t.Errorf("%v, %d requests", err, *sent)
		}
	})
}
