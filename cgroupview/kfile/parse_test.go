package kfile

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestUint(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"0", 0, true},
		{"007", 7, true},
		{"18446744073709551615", math.MaxUint64, true},
		{"18446744073709551616", math.MaxUint64, true},
		{"18446744073709551620", math.MaxUint64, true},
		{"99999999999999999999999999", math.MaxUint64, true},
		{"184467440737095516150", math.MaxUint64, true},
		{"", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1 ", 0, false},
		{"1\n", 0, false},
		{"0x10", 0, false},
		{"99999999999999999999x", 0, false},
		{"١", 0, false},
	} {
		if got, ok := Uint([]byte(test.text)); got != test.want || ok != test.ok {
			t.Errorf("%q: got %d, %v; want %d, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func TestLine(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{"a\nb\n", []string{"a", "b"}},
		{"a\nb", []string{"a", "b"}},
		{"\n\na\n", []string{"", "", "a"}},
		{"", nil},
	} {
		var got []string
		for rest := []byte(test.text); len(rest) > 0; {
			var line []byte
			line, rest = Line(rest)
			got = append(got, string(line))
		}
		if strings.Join(got, "|") != strings.Join(test.want, "|") || len(got) != len(test.want) {
			t.Errorf("%q: got %q", test.text, got)
		}
	}
}

func TestField(t *testing.T) {
	for _, test := range []struct{ line, field, rest string }{
		{"a b c", "a", " b c"},
		{" \t a\tb", "a", "\tb"},
		{"a", "a", ""},
		{"  ", "", ""},
		{"", "", ""},
	} {
		field, rest := Field([]byte(test.line))
		if string(field) != test.field || string(rest) != test.rest {
			t.Errorf("%q: got %q, %q", test.line, field, rest)
		}
	}
}

// FuzzUint agrees with strconv, but for too large a number.
func FuzzUint(f *testing.F) {
	for _, seed := range []string{"", "0", "12", "18446744073709551615", "18446744073709551616", "-1", "1_0", "0b1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := Uint(text)
		want, err := strconv.ParseUint(string(text), 10, 64)
		if (err == nil || errors.Is(err, strconv.ErrRange)) != ok {
			t.Errorf("%q: %v, strconv says %v", text, ok, err)
		}
		if ok && got != want {
			t.Errorf("%q: %d, strconv says %d", text, got, want)
		}
	})
}

// FuzzFields cuts any text into the words that bytes.FieldsFunc finds.
func FuzzFields(f *testing.F) {
	f.Add([]byte("MemTotal:   1 kB\nx\ty\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		want := bytes.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
		var got [][]byte
		for len(text) > 0 {
			var line, field []byte
			line, text = Line(text)
			for field, line = Field(line); len(field) > 0; field, line = Field(line) {
				got = append(got, field)
			}
		}
		if !bytes.Equal(bytes.Join(got, []byte(" ")), bytes.Join(want, []byte(" "))) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
