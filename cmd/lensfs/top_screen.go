package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"
)

// maxFileRows bounds the table of files on a screen: the rest is for containers. It can be scrolled.
const maxFileRows = 9

// screen shows it in a terminal, until somebody presses q.
func (t *top) screen(ctx context.Context) error {
	app := tview.NewApplication()
	head := tview.NewTextView()
	files, containers := newTable(), newTable()
	containers.SetSelectable(true, false)
	page := tview.NewFlex().SetDirection(tview.FlexRow)
	keys := tview.NewTextView().SetText("q quit   sort by: r requests  c CPU  m memory  n name   Tab: files, containers")
	page.AddItem(head, 4, 0, false).AddItem(files, maxFileRows, 0, false).AddItem(containers, 0, 1, true).AddItem(keys, 1, 0, false)

	show := func() {
		state := "sorted by " + string(t.by)
		if t.failed != nil {
			state = t.failed.Error()
		}
		head.SetText(fmt.Sprintf("lensfs top  %s  keeper %d up %s  worker %d up %s\n%s\n%s", t.now.at.Format(time.TimeOnly),
			t.now.Keeper.Pid, age(t.now.Keeper.Since), t.now.Worker.Pid, age(t.now.Worker.Since), t.summary(), state))
		fill(files, t.now.files())
		fill(containers, t.table())
		page.ResizeItem(files, min(maxFileRows, files.GetRowCount()+1), 0)
	}
	show()
	app.SetInputCapture(func(e *tcell.EventKey) *tcell.EventKey {
		switch by, ok := map[rune]order{'r': byRequests, 'c': byCPU, 'm': byMemory, 'n': byName}[e.Rune()]; {
		case ok:
			t.by = by
			show()
			return nil
		case e.Rune() == 'q':
			app.Stop()
			return nil
		case e.Key() == tcell.KeyTab && files.HasFocus():
			app.SetFocus(containers)
			return nil
		case e.Key() == tcell.KeyTab:
			app.SetFocus(files)
			return nil
		}
		return e
	})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go t.refresh(ctx, app, show)
	if err := app.SetRoot(page, true).Run(); err != nil {
		return fmt.Errorf("this terminal (TERM=%s) cannot be drawn on: \"lensfs top | cat\" prints: %w", os.Getenv("TERM"), err)
	}
	return nil
}

// refresh looks again and again, not while the screen is drawn.
func (t *top) refresh(ctx context.Context, app *tview.Application, show func()) {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	for n := 1; n != t.count; n++ {
		select {
		case <-ctx.Done():
			app.Stop()
			return
		case <-ticker.C:
		}
		s, err := t.ask()
		app.QueueUpdateDraw(func() {
			if t.failed = err; err == nil {
				t.before, t.now = t.now, s
			}
			show()
		})
	}
	app.Stop()
}

func newTable() *tview.Table {
	return tview.NewTable().SetFixed(1, 1)
}

func fill(table *tview.Table, r rows) {
	table.Clear()
	for i, row := range r {
		for j, text := range row {
			cell := tview.NewTableCell(tview.Escape(text))
			if j > 0 {
				cell.SetAlign(tview.AlignRight)
			}
			if i == 0 {
				cell.SetSelectable(false).SetAttributes(tcell.AttrBold)
			}
			table.SetCell(i, j, cell)
		}
	}
}
