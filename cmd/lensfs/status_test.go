package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"lensfs/fs"
)

func ptr[T any](v T) *T { return &v }

func testStatus(pid int, at time.Time, containers ...fs.ContainerReport) *status {
	s := &status{at: at, worker: fs.Report{Containers: containers}}
	s.Worker.Pid = pid
	return s
}

func names(t *top) (all []string) {
	for _, c := range t.containers() {
		all = append(all, c.Name)
	}
	return all
}

// Rates are of what happened between two looks, and containers are sorted by them.
func TestTopSortsAndRates(t *testing.T) {
	at := time.Now()
	before := testStatus(1, at,
		fs.ContainerReport{Name: "a", Init: 1, Requests: 1000, CPU: ptr(5.0)},
		fs.ContainerReport{Name: "b", Init: 2, Requests: 10, CPU: ptr(1.0)},
		fs.ContainerReport{Name: "c", Init: 3, Requests: 9999, CPU: ptr(100.0)})
	now := testStatus(1, at.Add(2*time.Second),
		fs.ContainerReport{Name: "a", Init: 1, Requests: 1010, CPU: ptr(6.0), Memory: ptr(uint64(7))},
		fs.ContainerReport{Name: "b", Init: 2, Requests: 40, CPU: ptr(1.5), Memory: ptr(uint64(9))},
		fs.ContainerReport{Name: "c", Init: 4, Requests: 5, CPU: ptr(0.1)}) // another one of that name
	top := &top{before: before, now: now}
	for by, want := range map[order][]string{byRequests: {"b", "a", "c"}, byCPU: {"a", "b", "c"}, byMemory: {"b", "a", "c"}, byName: {"a", "b", "c"}} {
		top.by = by
		if got := names(top); !slices.Equal(got, want) {
			t.Errorf("by %s: %v, want %v", by, got, want)
		}
	}
	top.by = byName
	rows := top.table()
	if got := strings.Join(rows[1], " "); got != "a 1 ended 7B - - - 50.0 5.0 1010" {
		t.Errorf("%q", got)
	}
	if got := rows[3]; got[7] != unknown || got[8] != unknown {
		t.Errorf("rates of a container that was not there before: %q", got)
	}
	now.Worker.Pid = 2 // counts from 0 again
	if got := top.table()[1]; got[7] != "50.0" || got[8] != unknown {
		t.Errorf("the first look at another worker: %q", got)
	}
}

// A look that fails leaves what was seen before, and says why.
func TestTopGoesOn(t *testing.T) {
	top := &top{now: testStatus(1, time.Now(), fs.ContainerReport{Name: "a"}), ask: func() (*status, error) { return nil, errors.New("nobody there") }}
	top.interval, top.count = time.Millisecond, 2
	var out strings.Builder
	if err := top.lines(t.Context(), &out); err != nil || strings.Count(out.String(), "nobody there") != 2 {
		t.Errorf("%v: %q", err, out.String())
	}
	if len(top.containers()) != 1 {
		t.Error("what was seen before is gone")
	}
}

// What a container has named cannot do anything to the operator's terminal.
func TestStatusIsPrintable(t *testing.T) {
	s := testStatus(1, time.Now(), fs.ContainerReport{Name: "evil\x1b[2J"})
	s.worker.Errors.Faults = []fs.FaultReport{{Subject: "x", Error: "y", Text: "/\x1b]0;title\a: no"}}
	s.Worker.LastEnd = "\x1b[31m"
	s.worker.LeftOut = 3
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\a") || !strings.Contains(out.String(), `"evil\x1b[2J"`) || !strings.Contains(out.String(), "and 3 more") {
		t.Errorf("%q", out.String())
	}
}

func TestParseStatusOfAnotherVersion(t *testing.T) {
	for _, text := range []string{"", "[]", `{"serves":[]}`} {
		if _, err := parseStatus([]byte(text)); err == nil || !strings.Contains(err.Error(), "another version") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if s, err := parseStatus([]byte(`{"worker":{"pid":0,"last_end":"it ended"}}`)); err != nil || s.print(&strings.Builder{}) != nil {
		t.Errorf("without a worker: %v", err)
	}
}
