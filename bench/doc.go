package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeDoc writes the run as Markdown, for people who read the repository.
func (r *report) writeDoc(file string, goals []goal) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nWritten by `bench -doc` (`make bench`); not to be changed by hand.\n\n")
	fmt.Fprintf(&b, "- %s, %d rounds, %v\n- `%s`\n- %s\n- %s\n", r.Started.Format("2 January 2006"), r.Rounds, r.Took, r.Command, r.Machine, r.versions())
	for _, s := range r.remarks() {
		fmt.Fprintf(&b, "- **%s**\n", s)
	}
	fmt.Fprint(&b, "\nOnly ratios mean something on another machine. All kinds are measured in the same run, one after the other in every round.\n")
	for _, s := range append([]sheet{goalSheet(goals)}, r.sheets()...) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.Title, s.table().RenderMarkdown())
		if s.Note != "" {
			fmt.Fprintf(&b, "\n%s\n", s.Note)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
