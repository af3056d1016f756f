package docs

import (
	_ "embed"
	"path"
	"strings"
)

//go:embed what-stays-the-hosts.md
var staysTheHosts string

// Stay is one row of what-stays-the-hosts.md: fields of a file that a container sees as the host has them.
type Stay struct {
	File   string   // beneath the tree: "proc/meminfo"
	Fields []string // patterns as of path.Match
	When   string   // "" is always
}

// Stays gives the rows of what-stays-the-hosts.md.
func Stays() []Stay {
	var rows []Stay
	for line := range strings.Lines(staysTheHosts) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		for _, file := range quoted(cells[1]) {
			rows = append(rows, Stay{file, quoted(cells[2]), strings.TrimSpace(cells[3])})
		}
	}
	return rows
}

// quoted gives what stands in code quotes: "`a`, `b`".
func quoted(cell string) (words []string) {
	for i, word := range strings.Split(cell, "`") {
		if i%2 == 1 {
			words = append(words, word)
		}
	}
	return words
}

// Covers says whether one of the row's patterns is about a field, and which.
func (s Stay) Covers(file, field string) (pattern string, ok bool) {
	if file != s.File {
		return "", false
	}
	for _, p := range s.Fields {
		if ok, err := path.Match(p, field); ok && err == nil {
			return p, true
		}
	}
	return "", false
}
