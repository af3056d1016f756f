package main

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// sheet is a table, for the terminal, the page and the document alike. The first column is words, the others numbers.
type sheet struct {
	Title string
	Note  string
	Head  []string
	Rows  [][]string
	Words int // so many of the first columns are words
}

func (s sheet) table() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	var columns []table.ColumnConfig
	for i := s.Words; i < len(s.Head); i++ {
		columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	t.AppendHeader(row(s.Head))
	for _, r := range s.Rows {
		t.AppendRow(row(r))
	}
	return t
}

func row(cells []string) (r table.Row) {
	for _, c := range cells {
		r = append(r, c)
	}
	return r
}

// print writes the report to a terminal.
func (r *report) print(w io.Writer, goals []goal) {
	for _, s := range append(r.sheets(), goalSheet(goals)) {
		fmt.Fprintf(w, "\n%s\n%s\n", s.Title, s.table().Render())
		if s.Note != "" {
			fmt.Fprintln(w, s.Note)
		}
	}
	fmt.Fprintf(w, "\n%s\n%s\n%d rounds, %v\n", r.Machine, r.versions(), r.Rounds, r.Took)
	for _, s := range r.remarks() {
		fmt.Fprintln(w, "!", s)
	}
}

// remarks are what a reader has to know of this run before he believes it.
func (r *report) remarks() []string {
	var all []string
	if r.Quick {
		all = append(all, "A quick run: it shows that things work and the direction, no numbers to be quoted.")
	}
	if r.Machine.busy() {
		all = append(all, fmt.Sprintf("The machine was busy with something else when the run began (load averages %s on %d CPUs).", r.Machine.Load, r.Machine.CPUs))
	}
	return append(all, r.Skipped...)
}

func goalSheet(goals []goal) sheet {
	s := sheet{
		Title: "Goals",
		Note:  "Median of the rounds (smallest–largest); ratios are taken within a round. × is times.",
		Head:  []string{"what", "goal", "measured", "", ""}, Words: 2,
	}
	for _, g := range goals {
		s.Rows = append(s.Rows, []string{g.What, g.Goal, g.Measured, g.Note, g.Verdict})
	}
	return s
}

// sheets are the tables of all scenarios that were run.
func (r *report) sheets() (all []sheet) {
	for _, w := range ways {
		all = append(all, r.readSheet(w))
	}
	all = append(all, r.fleetSheet(), r.noisySheet(), r.bigHostSheet(), r.churnSheet(), r.loadSheet(), r.stallSheet())
	n := 0
	for _, s := range all {
		if len(s.Rows) > 0 {
			all[n] = s
			n++
		}
	}
	return all[:n]
}
