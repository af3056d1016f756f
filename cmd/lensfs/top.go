package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"lensfs/fs"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// order is by what containers are sorted.
type order string

const (
	byRequests order = "requests"
	byCPU      order = "cpu"
	byMemory   order = "memory"
	byName     order = "name"
)

func parseOrder(s string) (order, error) {
	switch o := order(s); o {
	case byRequests, byCPU, byMemory, byName:
		return o, nil
	}
	return "", fmt.Errorf("--sort: %q: it is one of requests, cpu, memory, name", s)
}

func topCommand() *cobra.Command {
	var w which
	var interval time.Duration
	var count int
	var by string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch which containers ask how much, what that costs and how long it takes",
		Long: "top shows what status does, live: rates since the last look. Keys: r, c, m, n sort by requests, CPU, memory, name; arrows scroll; q ends.\n" +
			"Where its output is no terminal it prints the containers once for each interval.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := parseOrder(by)
			if err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return fmt.Errorf("--interval: %v is too short: 100ms is the least", interval)
			}
			first, err := askStatus(&w)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(orBackground(cmd.Context()), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
			defer stop()
			t := &top{ask: func() (*status, error) { return askStatus(&w) }, now: first, by: o, interval: interval, count: count}
			if term.IsTerminal(int(os.Stdout.Fd())) {
				return t.screen(ctx)
			}
			return t.lines(ctx, cmd.OutOrStdout())
		},
	}
	w.flags(cmd)
	f := cmd.Flags()
	f.DurationVar(&interval, "interval", time.Second, "look again after this `time`")
	f.IntVar(&count, "count", 0, "end after so many looks; 0: never")
	f.StringVar(&by, "sort", string(byRequests), "`what` to sort containers by: requests, cpu, memory, name")
	return cmd
}

// top is what the last two looks have found.
type top struct {
	ask         func() (*status, error)
	before, now *status // before is nil at first
	failed      error   // of the last look
	by          order
	interval    time.Duration
	count       int
}

// look is one look at the daemon. If it fails, what was seen before stays.
func (t *top) look() {
	s, err := t.ask()
	if t.failed = err; err == nil {
		t.before, t.now = t.now, s
	}
}

// lines prints without a terminal, until ctx is done or whoever reads has gone.
func (t *top) lines(ctx context.Context, out io.Writer) error {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		t.look()
		if t.failed != nil {
			fmt.Fprintln(out, t.failed)
		} else {
			fmt.Fprintln(out, t.now.at.Format(time.TimeOnly), t.summary())
			if err := t.table().print(out); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(out); err != nil || n == t.count {
			return err
		}
	}
}

// live is a container and what it did since the look before; negative where that is not known.
type live struct {
	fs.ContainerReport
	requests float64 // a second
	cpu      float64 // CPUs
}

// since gives what a counter has grown by in a second.
func since(before, now, seconds float64) float64 {
	if seconds <= 0 || now < before {
		return -1
	}
	return (now - before) / seconds
}

func (t *top) containers() []live {
	type key struct {
		name string
		init uint32
	}
	before := map[key]fs.ContainerReport{}
	seconds := 0.0
	if t.before != nil {
		seconds = t.now.at.Sub(t.before.at).Seconds()
		for _, c := range t.before.worker.Containers {
			before[key{c.Name, c.Init}] = c
		}
	}
	var all []live
	for _, c := range t.now.worker.Containers {
		l := live{c, -1, -1}
		if was, ok := before[key{c.Name, c.Init}]; ok {
			if t.before.Worker.Pid == t.now.Worker.Pid { // else it counts from 0 again
				l.requests = since(float64(was.Requests), float64(c.Requests), seconds)
			}
			if was.CPU != nil && c.CPU != nil {
				l.cpu = since(*was.CPU, *c.CPU, seconds)
			}
		}
		all = append(all, l)
	}
	slices.SortStableFunc(all, t.compare)
	return all
}

func (t *top) compare(a, b live) int {
	switch t.by {
	case byCPU:
		return cmp.Or(cmp.Compare(b.cpu, a.cpu), cmp.Compare(value(b.CPU), value(a.CPU)), strings.Compare(a.Name, b.Name))
	case byMemory:
		return cmp.Or(cmp.Compare(value(b.Memory), value(a.Memory)), strings.Compare(a.Name, b.Name))
	case byName:
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	default:
		return cmp.Or(cmp.Compare(b.requests, a.requests), cmp.Compare(b.Requests, a.Requests), strings.Compare(a.Name, b.Name))
	}
}

func value[T uint64 | float64](v *T) T {
	if v == nil {
		return 0
	}
	return *v
}

// table is the containers, sorted.
func (t *top) table() rows {
	r := rows{{"CONTAINER", "INIT", "AGE", "MEMORY", "LIMIT", "CPUS", "QUOTA", "CPU%", "REQUESTS/S", "REQUESTS"}}
	for _, c := range t.containers() {
		r = append(r, []string{printable(c.Name), strconv.Itoa(int(c.Init)), lifetime(c.ContainerReport), size(c.Memory), size(c.Limit),
			shown(c.ContainerReport), quota(c.Quota), rate(100 * c.cpu), rate(c.requests), number(c.Requests)})
	}
	if n := t.now.worker.LeftOut; n > 0 {
		r = append(r, []string{fmt.Sprintf("and %d more, with fewer requests", n)})
	}
	return r
}

func rate(v float64) string {
	if v < 0 {
		return unknown
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// summary is the whole in one line.
func (t *top) summary() string {
	requests, cpu := -1.0, -1.0
	if t.before != nil && t.before.Worker.Pid == t.now.Worker.Pid {
		seconds := t.now.at.Sub(t.before.at).Seconds()
		requests = since(t.before.requests(), t.now.requests(), seconds)
		cpu = since(t.before.worker.Process.CPU, t.now.worker.Process.CPU, seconds)
	}
	return fmt.Sprintf("%s requests/s, worker %d takes %s %% of a CPU, %d containers, %d restarts",
		rate(requests), t.now.Worker.Pid, rate(100*cpu), len(t.now.worker.Containers)+t.now.worker.LeftOut, t.now.Worker.Restarts)
}

func (s *status) requests() float64 {
	n := uint64(0)
	for _, f := range s.worker.Files {
		n += f.GetAttrs + f.Reads
	}
	return float64(n)
}
