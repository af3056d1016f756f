package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"lensfs/fs"
	"lensfs/fs/keeper"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var w which
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say who serves and since when, which containers, what they ask, what went wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := keeper.Status(w.stateDir(), w.dir())
			if err != nil {
				return err
			}
			if asJSON {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				return err
			}
			s, err := parseStatus(text)
			if err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all of it, for programs: keys are never renamed")
	return cmd
}

// status is what a daemon said of itself.
type status struct {
	keeper.Report
	at     time.Time
	worker fs.Report // nothing in it while there is no worker
}

func askStatus(w *which) (*status, error) {
	text, err := keeper.Status(w.stateDir(), w.dir())
	if err != nil {
		return nil, err
	}
	return parseStatus(text)
}

func parseStatus(text []byte) (*status, error) {
	s := &status{at: time.Now()}
	if err := json.Unmarshal(text, &s.Report); err != nil {
		return nil, fmt.Errorf("what the daemon answers is not understood, is it of another version? %w", err)
	}
	if len(s.Serves) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(s.Serves, &s.worker); err != nil {
		return nil, fmt.Errorf("what the worker answers is not understood, is it of another version? %w", err)
	}
	return s, nil
}

// rows are a table, its heading first.
type rows [][]string

func (r rows) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range r {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func (s *status) print(out io.Writer) error {
	for i, part := range []rows{s.head(), s.files(), s.errors(), s.containers()} {
		if i > 0 && len(part) > 0 {
			fmt.Fprintln(out)
		}
		if err := part.print(out); err != nil {
			return err
		}
	}
	return nil
}

// head says who serves, and where.
func (s *status) head() rows {
	p := s.worker.Process
	r := rows{{"keeper", strconv.Itoa(s.Keeper.Pid), "version " + printable(s.Keeper.Version), "up " + age(s.Keeper.Since)}}
	worker := []string{"worker", "none", "one is being started"}
	if s.Worker.Pid != 0 {
		worker = []string{"worker", strconv.Itoa(s.Worker.Pid), "version " + printable(s.Worker.Version), "up " + age(s.Worker.Since),
			fmt.Sprintf("%.1f s of CPU time, at most %s resident", p.CPU, units.BytesSize(float64(p.Resident)))}
	}
	r = append(r, worker)
	restarts := []string{"restarts", strconv.Itoa(s.Worker.Restarts)}
	if s.Worker.LastEnd != "" {
		restarts = append(restarts, "the last: "+printable(s.Worker.LastEnd))
	}
	r = append(r, restarts)
	for _, m := range s.Mounts {
		r = append(r, []string{m.Kind, m.Dir, fmt.Sprintf("FUSE 7.%d", m.Protocol)})
	}
	r = append(r, []string{"kernel", s.Kernel.Release, "cgroups " + cmp.Or(s.Worker.Cgroups, "not known")})
	r = append(r, []string{"abilities", "resend " + yes(s.Kernel.Resend), "no flush " + yes(s.Kernel.NoFlush)})
	if s.worker.Unveiled {
		r = append(r, []string{"views", "off", "every container is shown the host's values, until the next SIGUSR2"})
	}
	return r
}

// files tells of those that anybody asked for.
func (s *status) files() rows {
	r := rows{{"FILE", "GETATTRS", "READS", "RENDERED", "KEPT", "GETATTR P50", "P99", "MAX", "READ P50", "P99", "MAX"}}
	for _, f := range s.worker.Files {
		if f.GetAttrs+f.Reads == 0 {
			continue
		}
		row := []string{f.File, number(f.GetAttrs), number(f.Reads), number(f.Rendered), number(f.Kept)}
		r = append(r, append(append(row, latency(f.GetAttr)...), latency(f.Read)...))
	}
	if len(r) == 1 {
		return rows{{"no file has been asked for since the worker began"}}
	}
	return r
}

func (s *status) errors() rows {
	e := s.worker.Errors
	var r rows
	for _, c := range []struct {
		count uint64
		what  string
	}{
		{e.Panics, "panics: a bug, please report it with the log"},
		{e.Refused, "requests answered EIO: each worker that tried them ended"},
		{e.HostText, "answers with the host's text: the container could not be read"},
		{e.Stale, "answers with an older text: the container has ended, or could not be read"},
		{e.Unresolved, "callers answered as processes of the host: they could not be seen"},
		{e.Resumed, "requests taken over from a worker before"},
		{e.Unsent, "answers that nobody waited for any more: the reader was killed"},
		{e.Others, "failures of more kinds than are counted"},
	} {
		if c.count > 0 {
			r = append(r, []string{number(c.count), c.what})
		}
	}
	for _, f := range e.Faults {
		r = append(r, []string{number(f.Count), printable(f.Subject + ": " + f.Error), "the last " + age(f.Last) + " ago", printable(firstLine([]byte(f.Text)))})
	}
	if len(r) == 0 {
		return rows{{"no errors or fallbacks"}}
	}
	return append(rows{{"COUNT", "ERROR OR FALLBACK"}}, r...)
}

func (s *status) containers() rows {
	r := rows{{"CONTAINER", "NUMBER", "INIT", "AGE", "MEMORY", "LIMIT", "CPUS", "QUOTA", "CPU TIME", "REQUESTS"}}
	for _, c := range s.worker.Containers {
		r = append(r, []string{printable(c.Name), number(c.Number), strconv.Itoa(int(c.Init)), lifetime(c), size(c.Memory), size(c.Limit), shown(c), quota(c.Quota), cpuTime(c.CPU), number(c.Requests)})
	}
	if len(r) == 1 {
		r = rows{{"no container has been seen"}}
	}
	if n := s.worker.LeftOut; n > 0 {
		r = append(r, []string{fmt.Sprintf("and %d more, with fewer requests", n)})
	}
	return r
}
