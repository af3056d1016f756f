package main

import (
	_ "embed"
	"errors"
	"html/template"
	"image/color"
	"os"
	"path/filepath"

	"fmt"
)

//go:embed page.html
var pageText string

// writePage writes report.html: one file that needs no other, and no network.
func (r *report) writePage(dir string, goals []goal) error {
	figures, err := r.figures()
	if err != nil {
		return err
	}
	page, err := template.New("page").Funcs(template.FuncMap{
		"word": func(s sheet, column int) bool { return column < s.Words },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	type key struct {
		Title  string
		Colour template.CSS
	}
	var legend []key
	for _, k := range titles {
		legend = append(legend, key{k.title, css(colours[k.kind])})
	}
	file, err := os.Create(filepath.Join(dir, "report.html"))
	if err != nil {
		return err
	}
	err = page.Execute(file, map[string]any{
		"Report": r, "Machine": r.Machine.String(), "Versions": r.versions(), "Remarks": r.remarks(),
		"Goals": goals, "GoalNote": goalSheet(nil).Note, "Figures": figures, "Sheets": r.sheets(), "Legend": legend,
	})
	return errors.Join(err, file.Close())
}

func css(c color.RGBA) template.CSS { return template.CSS(fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)) }
