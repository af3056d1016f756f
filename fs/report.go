package fs

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
	"time"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// Report is what a worker says of itself, a part of what "lensfs status --json" prints. It counts from when the worker began. Keys are never renamed.
type Report struct {
	Process    ProcessReport     `json:"process"`
	Unveiled   bool              `json:"unveiled"` // every container is shown the host's values
	Files      []FileReport      `json:"files"`
	Errors     ErrorReport       `json:"errors"`
	Containers []ContainerReport `json:"containers"` // that are known, those with the most requests first
	LeftOut    int               `json:"containers_left_out"`
}

// ProcessReport is what the worker itself uses.
type ProcessReport struct {
	CPU        float64 `json:"cpu_seconds"`
	Resident   uint64  `json:"peak_resident_bytes"`
	Goroutines int     `json:"goroutines"`
}

// FileReport is of one file, in all containers. What the kernel answers out of its page cache is not in it: of that nobody knows.
type FileReport struct {
	File     string        `json:"file"`
	GetAttrs uint64        `json:"getattrs"` // of own views
	Reads    uint64        `json:"reads"`    // of both mounts
	Rendered uint64        `json:"rendered"` // texts made
	Kept     uint64        `json:"kept"`     // answers from a text that was there
	GetAttr  LatencyReport `json:"getattr_latency"`
	Read     LatencyReport `json:"read_latency"` // of those that begin a text; of own views one in four of them
}

// ErrorReport counts what went wrong, by reason.
type ErrorReport struct {
	Stale      uint64        `json:"stale"`      // answers from the last snapshot: the container has ended, or cannot be read
	HostText   uint64        `json:"host_text"`  // answers with the host's text: there was no snapshot either
	Unresolved uint64        `json:"unresolved"` // callers who, or whose init, could not be seen, and were answered as processes of the host
	Unsent     uint64        `json:"unsent"`     // answers that the kernel no longer wanted: the reader was killed
	Panics     uint64        `json:"panics"`     // each one is a bug
	Resumed    uint64        `json:"resumed"`    // requests that a worker before had read and not answered
	Refused    uint64        `json:"refused"`    // those of them that were answered EIO: each worker that tried has ended
	Faults     []FaultReport `json:"faults"`     // views that could not be made, the most frequent first
	Others     uint64        `json:"other_faults"`
}

// FaultReport is one kind of failure.
type FaultReport struct {
	Subject string    `json:"subject"`
	Error   string    `json:"error"`
	Text    string    `json:"text"` // of the first one: which file it was about
	Count   uint64    `json:"count"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// ContainerReport is one container, as the cgroup has it now. What is nil has no limit, or is not counted.
type ContainerReport struct {
	Name     string   `json:"name"`   // of its directory in the own views, if it has one
	Number   uint64   `json:"number"` // in the table of containers; 0: it has no own view
	Init     uint32   `json:"init"`   // pid on the host
	Alive    bool     `json:"alive"`
	Age      float64  `json:"age_seconds"`
	Memory   *uint64  `json:"memory_bytes"`
	Limit    *uint64  `json:"memory_limit_bytes"`
	CPUs     string   `json:"cpus"` // those shown, as a list: "0-3,8"
	CPUCount int      `json:"cpu_count"`
	Quota    *float64 `json:"quota_cpus"`
	CPU      *float64 `json:"cpu_seconds"` // used
	Requests uint64   `json:"requests"`    // for its files; in the shared tree texts begun
	Error    string   `json:"error,omitempty"`
}

const (
	// maxReported bounds how many containers are told of, and reportTime how long that may take: the keeper takes a worker that says nothing for longer
	// for one that hangs.
	maxReported = 512
	reportTime  = 500 * time.Millisecond
)

// Report gives what is to be said now. Who reads meanwhile waits for no more than one container's numbers.
func (w *Worker) Report() Report {
	r := Report{
		Process:  processReport(),
		Unveiled: w.render.unveiled.Load(),
		Files:    w.render.fileReports(w.tree),
		Errors:   w.render.errorReport(),
	}
	r.Containers, r.LeftOut = w.render.containerReports(w.own, maxReported, time.Now().Add(reportTime))
	return r
}

func processReport() ProcessReport {
	p := ProcessReport{Goroutines: runtime.NumGoroutine()}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err == nil {
		p.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
		p.Resident = uint64(u.Maxrss) << 10
	}
	return p
}

func (r *renderer) fileReports(t *tree) []FileReport {
	reports := []FileReport{}
	for i := range files {
		f := t.file(files[i].number)
		if f == nil || f.isDir() && f.number != cpuDirNumber {
			continue
		}
		s := &r.stats.Files[f.number]
		report := FileReport{File: f.path, GetAttrs: s.getattrs.Load(), Reads: s.reads.Load(), Rendered: s.rendered.Load(), GetAttr: s.getattr.report(), Read: s.read.report()}
		if f.number == cpuDirNumber {
			report.File += "/…" // what passes through is counted as one, and each of its texts is made for the one who reads
			report.Rendered = report.Read.Timed
		}
		if asked := report.GetAttrs + report.Reads; asked > report.Rendered { // LOOKUPs have texts made too
			report.Kept = asked - report.Rendered
		}
		reports = append(reports, report)
	}
	return reports
}

func (r *renderer) errorReport() ErrorReport {
	s := r.stats
	e := ErrorReport{
		Stale: s.Stale.Load(), HostText: s.HostText.Load(), Unresolved: r.resolver.Unresolved.Load(),
		Unsent: s.Conn.Unsent.Load(), Panics: s.Panics.Load() + s.Conn.Panics.Load(), Resumed: s.Conn.Resumed.Load(), Refused: s.Conn.Refused.Load(),
	}
	e.Faults, e.Others = r.faults.all()
	return e
}

// containerReports tells of the containers with the most requests, and how many there are besides.
func (r *renderer) containerReports(o *own, most int, until time.Time) (reports []ContainerReport, leftOut int) {
	reports = []ContainerReport{}
	type known struct {
		view     *view
		requests uint64
	}
	var all []known
	r.views.Range(func(_, v any) bool {
		if v := v.(*view); !v.container.IsHost() {
			all = append(all, known{v, v.requests.Load()})
		}
		return true
	})
	slices.SortFunc(all, func(a, b known) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), strings.Compare(a.view.container.Name, b.view.container.Name))
	})
	for _, k := range all {
		if len(reports) == most || time.Now().After(until) {
			break
		}
		report := ContainerReport{Name: k.view.container.Name, Requests: k.requests}
		if o != nil {
			if rec := o.records.find(k.view.container.ID()); rec != nil {
				report.Name, report.Number = rec.name, rec.number
			}
		}
		report.measure(k.view.container)
		reports = append(reports, report)
		runtime.Gosched() // files are read by system calls of which the scheduler knows nothing: readers would wait until we are through
	}
	return reports, len(all) - len(reports)
}

// measure reads the container's numbers. Of one that has ended there are none.
func (r *ContainerReport) measure(c *cgroupview.Container) {
	r.Init, r.Age, r.Alive = c.ID().Init, c.Age().Seconds(), c.Alive()
	if !r.Alive {
		return
	}
	c.Look()
	failed := func(err error) bool {
		if err != nil && r.Error == "" {
			r.Error = err.Error()
		}
		return err != nil
	}
	if m, err := c.Memory(); !failed(err) && m.Counted {
		r.Memory = &m.Usage
		if m.Limit != cgroupview.Unlimited {
			r.Limit = &m.Limit
		}
	}
	if cpus, err := c.CPUs(); !failed(err) {
		r.CPUs, r.CPUCount = string(cpus.Append(nil)), cpus.Count()
	}
	if quota, err := c.Quota(); !failed(err) && quota > 0 {
		r.Quota = &quota
	}
	if used, counted, err := c.CPUUsage(); !failed(err) && counted {
		seconds := used.Seconds()
		r.CPU = &seconds
	}
}
