package kfile

import (
	"bytes"
	"errors"
	"math"
)

// ErrSyntax says that a file did not hold what the kernel writes there.
var ErrSyntax = errors.New("not the kernel's format")

// Line cuts the first line off text. The line has no newline; rest is empty at the end.
func Line(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// Field cuts the first word off a line, words being parted by blanks or tabs.
func Field(line []byte) (field, rest []byte) {
	i := 0
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	j := i
	for j < len(line) && line[j] != ' ' && line[j] != '\t' {
		j++
	}
	return line[i:j], line[j:]
}

// CountFields counts the words of a line.
func CountFields(line []byte) (n int) {
	for field, rest := Field(line); len(field) > 0; field, rest = Field(rest) {
		n++
	}
	return n
}

// Counter cuts the first line off a text of lines "key number", as memory.stat and cpu.stat have them. ok is false where the line is none.
func Counter(text []byte) (key []byte, n uint64, ok bool, rest []byte) {
	line, rest := Line(text)
	key, number := Field(line)
	number, _ = Field(number)
	n, ok = Uint(number)
	return key, n, ok, rest
}

// Uint reads a decimal number and nothing else. What does not fit into 64 bits is given as the largest that does.
func Uint(s []byte) (uint64, bool) {
	if len(s) == 0 {
		return 0, false
	}
	var n uint64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			n = math.MaxUint64
			continue
		}
		n = n*10 + d
	}
	return n, true
}

// Trim cuts the newline and blanks off both ends of a file that holds one value.
func Trim(text []byte) []byte { return bytes.TrimSpace(text) }
