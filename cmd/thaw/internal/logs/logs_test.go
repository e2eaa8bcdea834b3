package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFormats(t *testing.T) {
	var f Format
	if err := f.Set("xml"); err == nil || f != Plain {
		t.Errorf("a format that there is not: %v, %q", err, f)
	}
	if err := f.Set("json"); err != nil || f.String() != "json" {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(Handler(&out, f, slog.LevelInfo)).Info("x", "took", 1500*time.Millisecond, "err", errors.New("e"))
	var line struct {
		Time       time.Time
		Level, Msg string
		Took       float64
		Err        string
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Time.IsZero() || line.Level != "INFO" ||
		line.Msg != "x" || line.Took != 1.5 || line.Err != "e" {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	slog.New(Handler(&out, Text, slog.LevelWarn)).Info("x")
	slog.New(Handler(&out, Text, slog.LevelWarn)).Warn("y", "err", errors.New("a b"))
	if s := out.String(); !strings.HasPrefix(s, "time=2") || !strings.HasSuffix(s,
		" level=WARN msg=y err=\"a b\"\n") {
		t.Error(s)
	}
}

// However often something is logged, at most the burst and one a second of each message are written, all of
// them are accounted for, and one message does not keep another from being logged.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(Limit(Handler(&out, JSON, slog.LevelInfo)))
		rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
		begin := time.Now()
		logged := map[string]int{}
		for range 20000 {
			message := fmt.Sprint("m", rng.IntN(3))
			logged[message]++
			log.With("x", 1).WithGroup("g").Warn(message, "y", rng.IntN(9))
			if rng.IntN(100) == 0 {
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
			}
		}
		most := burst + int(time.Since(begin)/interval) + 1
		time.Sleep(burst * interval)
		log.Info("m0") // each says what was left out of it
		log.Info("m1")
		log.Info("m2")
		written, leftOut := map[string]int{}, map[string]int{}
		for text := range strings.Lines(out.String()) {
			var line struct {
				Msg     string
				LeftOut int `json:"left_out"`
				G       struct {
					LeftOut int `json:"left_out"`
				}
			}
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatal(err)
			}
			written[line.Msg]++
			leftOut[line.Msg] += line.LeftOut + line.G.LeftOut
		}
		for message, n := range logged {
			if written[message]+leftOut[message] != n+1 || written[message] > most+1 {
				t.Errorf("%s: %d of %d written, %d left out, at most %d", message, written[message], n,
					leftOut[message], most)
			}
		}
	})
}

// Messages that were put together do not make it grow.
func TestLimitIsBounded(t *testing.T) {
	l := &limiter{messages: map[string]*budget{}}
	passed := 0
	for i := range 10 * maxMessages {
		if _, ok := l.allows(fmt.Sprint(i), time.Unix(1, 0)); ok {
			passed++
		}
	}
	if len(l.messages) > maxMessages+1 || passed != maxMessages+burst {
		t.Errorf("%d messages are known, %d were logged", len(l.messages), passed)
	}
	// A clock that is set back does not silence it.
	for range burst {
		l.allows("0", time.Unix(100, 0))
	}
	if _, ok := l.allows("0", time.Unix(50, 0)); ok {
		t.Error("it is not limited")
	}
	if _, ok := l.allows("0", time.Unix(52, 0)); !ok {
		t.Error("it is silent until the clock is where it was")
	}
}
