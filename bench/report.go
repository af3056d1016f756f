package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// report is everything that a run found out: report.json.
type report struct {
	Started  time.Time
	Took     time.Duration // ns
	Command  string
	Quick    bool
	Rounds   int
	Machine  machine
	Versions map[string]string
	Skipped  []string `json:",omitempty"` // what was not or only in part measured, and why
	Files    []string
	Series   []*series
	Churn    []churnPoint `json:",omitempty"`
	Load     []loadPoint  `json:",omitempty"`
	Stall    []stallPoint `json:",omitempty"`
	Parts    []part       // how long each scenario took
}

type part struct {
	Scenario string
	Seconds  float64
}

// machine is what the run was on.
type machine struct {
	CPU     string
	CPUs    int
	Virtual bool // a virtual machine
	Memory  int64
	System  string
	Kernel  string
	Cgroups string
	Load    string // averages of 1, 5 and 15 minutes before the run
}

func newReport(c config, args []string) *report {
	r := &report{Started: time.Now().Round(time.Second), Quick: c.quick, Rounds: c.rounds, Files: c.files, Versions: map[string]string{}, Machine: thisMachine()}
	r.Command = "bench"
	for _, a := range args { // what matters of a path is what it leads to
		name, value, ok := strings.Cut(a, "=")
		if ok && filepath.IsAbs(value) {
			a = name + "=" + filepath.Base(value)
		} else if filepath.IsAbs(a) {
			a = filepath.Base(a)
		}
		r.Command += " " + a
	}
	r.Versions["lensfs"] = versionOf(c.lensfs)
	r.Versions["Go"] = runtime.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if strings.HasPrefix(d.Path, "github.com/hanwen/go-fuse/") {
				r.Versions["go-fuse"] = d.Version
			}
		}
	}
	return r
}

// skip notes what was not measured, once.
func (r *report) skip(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(r.Skipped, s) {
		r.Skipped = append(r.Skipped, s)
	}
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU()}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpuinfo)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "flags":
			m.Virtual = slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	meminfo, _ := os.ReadFile("/proc/meminfo")
	m.Memory, _ = memTotal(string(meminfo))
	release, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(release)) {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.System = strings.Trim(value, "\"\n")
		}
	}
	switch cgroups.Mode() {
	case cgroups.Unified:
		m.Cgroups = "v2"
	case cgroups.Hybrid:
		m.Cgroups = "v1 and v2 (hybrid)"
	default:
		m.Cgroups = "v1"
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return m
}

// busy says that others were at work on the machine when the run began.
func (m machine) busy() bool {
	var one float64
	fmt.Sscan(m.Load, &one)
	return one > 0.25*float64(m.CPUs)
}

func (m machine) String() string {
	virtual := ""
	if m.Virtual {
		virtual = ", in a virtual machine"
	}
	return fmt.Sprintf("%d × %s%s, %.1f GiB; %s, Linux %s, cgroups %s", m.CPUs, m.CPU, virtual, float64(m.Memory)/(1<<30), m.System, m.Kernel, m.Cgroups)
}

func (r *report) versions() string {
	var all []string
	for _, name := range []string{"lensfs", lxcfs, "go-fuse", "Go"} {
		if v := r.Versions[name]; v != "" {
			all = append(all, strings.Replace(name, lxcfs, "LXCFS", 1)+" "+v)
		}
	}
	return strings.Join(all, ", ")
}

func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644))
}

func loadReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// fleetSize is the largest fleet that was measured.
func (r *report) fleetSize() (n int) {
	for _, s := range r.Series {
		if s.Scenario == "fleet" {
			n = max(n, s.Containers)
		}
	}
	return n
}
