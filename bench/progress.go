package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// progress is the bar on a terminal; elsewhere, as in CI, a line for each scenario.
type progress struct {
	bar *progressbar.ProgressBar
}

func newProgress(steps int) progress {
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err != nil {
		return progress{}
	}
	return progress{progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)}
}

// say tells what comes now.
func (p progress) say(what string) {
	if p.bar == nil {
		fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), what)
		return
	}
	p.bar.Describe(what)
}

// step counts one of the steps. On a terminal it also says which is next.
func (p progress) step(format string, args ...any) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf(format, args...))
		p.bar.Add(1)
	}
}

func (p progress) end() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
