package main

import (
	"fmt"
	"math"
	"strconv"
)

// How numbers are written: three digits, and the range of the rounds in brackets where there were several.

func digits(x float64) string {
	switch {
	case x == 0:
		return "0"
	case math.Abs(x) >= 100:
		return thousands(int64(math.Round(x)))
	}
	return strconv.FormatFloat(x, 'f', max(0, 2-int(math.Floor(math.Log10(math.Abs(x))))), 64)
}

// thousands sets them apart by narrow spaces.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func with(s spread, factor float64, unit string) string {
	if s.None {
		return "–"
	}
	m := digits(s.Median*factor) + unit
	if s.Min == s.Max {
		return m
	}
	return fmt.Sprintf("%s (%s–%s)", m, digits(s.Min*factor), digits(s.Max*factor))
}

func times(s spread) string     { return with(s, 1, " ×") }
func plain(s spread) string     { return with(s, 1, "") }
func micros(s spread) string    { return with(s, 1e-3, "") }
func percent(s spread) string   { return with(s, 100, " %") }
func megabytes(s spread) string { return with(s, 1e-6, " MB") }

// median alone, for columns that would be crowded.
func median(s spread, factor float64) string {
	if s.None {
		return "–"
	}
	return digits(s.Median * factor)
}

// digits1 is digits without zeros behind the point.
func digits1(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
