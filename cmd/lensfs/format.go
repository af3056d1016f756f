package main

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"lensfs/fs"

	"github.com/docker/go-units"
)

// unknown stands for what is not counted, or has no limit.
const unknown = "-"

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func age(since time.Time) string { return time.Since(since).Round(time.Second).String() }

func lifetime(c fs.ContainerReport) string {
	if !c.Alive {
		return "ended"
	}
	return (time.Duration(c.Age) * time.Second).String()
}

func latency(l fs.LatencyReport) []string {
	if l.Timed == 0 {
		return []string{unknown, unknown, unknown}
	}
	var r []string
	for _, d := range []time.Duration{l.P50, l.P99, l.Max} {
		r = append(r, rounded(d).String())
	}
	return r
}

// rounded is d with three digits.
func rounded(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

func size(n *uint64) string {
	if n == nil {
		return unknown
	}
	return units.BytesSize(float64(*n))
}

func shown(c fs.ContainerReport) string {
	if c.CPUCount == 0 {
		return unknown
	}
	return c.CPUs
}

func quota(q *float64) string {
	if q == nil {
		return unknown
	}
	return strconv.FormatFloat(*q, 'f', 2, 64)
}

func cpuTime(seconds *float64) string {
	if seconds == nil {
		return unknown
	}
	return (time.Duration(*seconds*100) * 10 * time.Millisecond).String()
}

// printable keeps what others have named, a cgroup perhaps, from being more to a terminal than text.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
