package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestPages(t *testing.T) {
	dir := t.TempDir()
	r := uniform(goodRates, goodCPU)
	r.skip("something")
	r.skip("something")
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := loadReport(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	goals := again.judge()
	if err := again.writePage(dir, goals); err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(dir, "docs", "benchmarks.md")
	if err := again.writeDoc(doc, goals); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{`src="`, `href="http`, "@import", "url(http"} {
		if bytes.Contains(page, []byte(other)) {
			t.Errorf("the page needs something else: it has %s", other)
		}
	}
	if n := bytes.Count(page, []byte("<svg")); n < 5 {
		t.Errorf("%d figures", n)
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "**something**"); n != 1 {
		t.Errorf("what was skipped stands there %d times", n)
	}
	if !strings.Contains(string(text), "| own view of meminfo") {
		t.Errorf("no goals:\n%s", text)
	}
}

// A series adds up what a reader sent through the pipe.
func TestSeries(t *testing.T) {
	h := newHistogram()
	for i := range int64(1000) {
		if err := h.RecordValue(1000 + i); err != nil {
			t.Fatal(err)
		}
	}
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	var s series
	for range 2 {
		if err := s.add(reply{Reads: 1000, Took: 2 * time.Second, Latency: text}, time.Second, 5); err != nil {
			t.Fatal(err)
		}
	}
	x := s.Samples[1]
	if len(s.Samples) != 2 || x.PerSecond != 500 || x.CPU != 1e6 || x.Cores != 0.5 || x.P50 < 1490 || x.P50 > 1510 {
		t.Errorf("%+v", x)
	}
	if last := s.Latency[len(s.Latency)-1]; last.Of != 1-1.0/2000 || last.NS < 1998 {
		t.Errorf("the slowest: %+v", last)
	}
	for i := 1; i < len(s.Latency); i++ {
		if s.Latency[i].NS < s.Latency[i-1].NS || s.Latency[i].Of <= s.Latency[i-1].Of {
			t.Fatalf("not rising: %+v", s.Latency)
		}
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.0123: "0.0123", 1: "1.00", 12.345: "12.3", 99.96: "100.0", 1234567: "1\u202f234\u202f567", -3: "-3.00"} {
		if got := digits(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
	if got := times(spread{Median: 2, Min: 1, Max: 4}); got != "2.00 × (1.00–4.00)" {
		t.Error(got)
	}
}

func TestNames(t *testing.T) {
	for short, full := range map[string]string{"meminfo": "proc/meminfo", "cpu/online": "sys/devices/system/cpu/online", "pressure/cpu": "proc/pressure/cpu"} {
		if got := fullName(short); got != full {
			t.Errorf("%s is %s, want %s", short, got, full)
		}
		if got := shortName(full); got != short {
			t.Errorf("%s is %s for short, want %s", full, got, short)
		}
	}
}

func TestHostText(t *testing.T) {
	dir := t.TempDir()
	if err := bigHost.write(dir); err != nil {
		t.Fatal(err)
	}
	count := func(file, what string) int {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count("\n"+string(text), what)
	}
	if n := count("proc/cpuinfo", "\nprocessor\t: "); n != 256 {
		t.Errorf("cpuinfo has %d CPUs", n)
	}
	if n := count("proc/cpuinfo", "\n\n"); n != 256 {
		t.Errorf("cpuinfo has %d empty lines", n)
	}
	if n := count("proc/stat", "\ncpu"); n != 257 {
		t.Errorf("stat has %d lines of CPUs", n)
	}
	if n := count("proc/stat", " 1000"); n != 2000 {
		t.Errorf("stat has %d interrupts", n)
	}
	if n := count("sys/devices/system/cpu/online", "0-255\n"); n != 1 {
		t.Error("online")
	}
}
