package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limits of a container; none (-1) where there is no limit.
type limits struct {
	memory, swap int64  // bytes
	quota        int64  // microseconds of each quotaPeriod; 0 is none
	cpuset       string // "" is all
}

const quotaPeriod = 100_000

// groupName is where a container's cgroup is, the same in every hierarchy.
type groupName struct{ parent, name string }

func (n groupName) path() string { return filepath.Join("/", n.parent, "lensfs.run."+n.name) }

// group is a container's cgroup: v1, v2, or on a hybrid host both.
type group struct {
	v1 cgroup1.Cgroup
	v2 *cgroup2.Manager
}

// controllersUsed are those whose limits run knows, and those that count for it: cpuacct and blkio on v1, io on v2.
var controllersUsed = map[cgroup1.Name]bool{cgroup1.Memory: true, cgroup1.Cpu: true, cgroup1.Cpuset: true, cgroup1.Cpuacct: true, cgroup1.Blkio: true, "io": true}

// v1Hierarchy gives the v1 controllers that this host has among those used. blkio, which only counts, is done without where the group's parent is not.
func (n groupName) v1Hierarchy() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	var used []cgroup1.Subsystem
	for _, s := range all {
		if !controllersUsed[s.Name()] {
			continue
		}
		if p, ok := s.(interface{ Path(string) string }); ok && s.Name() == cgroup1.Blkio {
			if _, err := os.Stat(p.Path(n.parent)); err != nil {
				continue
			}
		}
		used = append(used, s)
	}
	return used, nil
}

// v2 is the version 2 hierarchy of this host and which of the controllers used live in it.
type v2 struct {
	mount       string
	controllers map[string]bool
}

// findV2 looks for it. One without any controller that we use, as beside a v1 hierarchy, counts as none.
func findV2() v2 {
	h := v2{controllers: map[string]bool{}}
	switch cgroups.Mode() {
	case cgroups.Unified:
		h.mount = "/sys/fs/cgroup"
	case cgroups.Hybrid:
		h.mount = "/sys/fs/cgroup/unified"
	default:
		return v2{}
	}
	text, err := os.ReadFile(filepath.Join(h.mount, "cgroup.controllers"))
	if err != nil {
		return v2{}
	}
	for _, name := range strings.Fields(string(text)) {
		if controllersUsed[cgroup1.Name(name)] {
			h.controllers[name] = true
		}
	}
	if len(h.controllers) == 0 {
		return v2{}
	}
	return h
}

// claim makes the directories of the group, which may not be there yet: whose they are, his are the processes in them, and his janitor ends them.
func (n groupName) claim() error {
	var made []string
	for _, dir := range n.dirs() {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			made = append(made, dir)
			continue
		}
		for _, dir := range made {
			unix.Rmdir(dir)
		}
		switch {
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("a container called %s runs already, or was left behind: give another --name (%w)", n.name, err)
		case errors.Is(err, unix.ENOENT):
			return fmt.Errorf("--cgroup-parent %s: there is no such group, make it first (%w)", n.parent, err)
		}
		return fmt.Errorf("make the cgroup: %w", err)
	}
	return nil
}

// makeGroup sets the limits of a group that was claimed.
func makeGroup(name groupName, l limits) (*group, error) {
	g := &group{}
	if cgroups.Mode() != cgroups.Unified {
		if l.swap != none && l.memory == none {
			return nil, errors.New("--swap: this host has cgroup v1, which limits it together with memory: give --memory too")
		}
		cg, err := cgroup1.New(cgroup1.StaticPath(name.path()), l.v1(), cgroup1.WithHierarchy(name.v1Hierarchy))
		if err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", name.path(), err)
		}
		g.v1 = cg
	}
	if h := findV2(); h.mount != "" {
		m, err := cgroup2.NewManager(h.mount, name.path(), l.v2(h.controllers))
		if err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", name.path(), err)
		}
		g.v2 = m
	}
	return g, nil
}

func (g *group) add(pid int) error {
	if g.v1 != nil {
		if err := g.v1.AddProc(uint64(pid)); err != nil {
			return fmt.Errorf("put process %d into the cgroup: %w", pid, err)
		}
	}
	if g.v2 != nil {
		if err := g.v2.AddProc(uint64(pid)); err != nil {
			return fmt.Errorf("put process %d into the cgroup: %w", pid, err)
		}
	}
	return nil
}

func (l limits) v1() *specs.LinuxResources {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: l.cpuset}, Memory: &specs.LinuxMemory{}}
	if l.memory != none {
		r.Memory.Limit = &l.memory
		if l.swap != none {
			both := l.memory + l.swap // v1 limits the two together
			r.Memory.Swap = &both
		}
	}
	if l.quota > 0 {
		period := uint64(quotaPeriod)
		r.CPU.Quota, r.CPU.Period = &l.quota, &period
	}
	return r
}

func (l limits) v2(controllers map[string]bool) *cgroup2.Resources {
	r := &cgroup2.Resources{}
	if controllers["memory"] {
		r.Memory = &cgroup2.Memory{}
		if l.memory != none {
			r.Memory.Max = &l.memory
		}
		if l.swap != none {
			r.Memory.Swap = &l.swap
		}
	}
	if controllers["cpu"] || controllers["cpuset"] {
		r.CPU = &cgroup2.CPU{Cpus: l.cpuset}
		if l.quota > 0 {
			period := uint64(quotaPeriod)
			r.CPU.Max = cgroup2.NewCPUMax(&l.quota, &period)
		}
	}
	if controllers["io"] {
		r.IO = &cgroup2.IO{} // no limit: it counts
	}
	return r
}

// dirs gives the group's directory in each hierarchy where it may be.
func (n groupName) dirs() []string {
	var dirs []string
	if cgroups.Mode() != cgroups.Unified {
		subsystems, err := n.v1Hierarchy()
		if err != nil {
			return nil
		}
		for _, s := range subsystems {
			if p, ok := s.(interface{ Path(string) string }); ok {
				dirs = append(dirs, p.Path(n.path()))
			}
		}
	}
	if h := findV2(); h.mount != "" {
		dirs = append(dirs, filepath.Join(h.mount, n.path()))
	}
	return dirs
}

// removeWithin is how long the processes of a group that were killed may take to be gone.
const removeWithin = 10 * time.Second

// remove kills what is left in the group and removes it everywhere.
func (n groupName) remove() error {
	var errs []error
	for _, dir := range n.dirs() {
		errs = append(errs, removeDir(dir))
	}
	return errors.Join(errs...)
}

func removeDir(dir string) error {
	deadline := time.Now().Add(removeWithin)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		killAll(dir)
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(wait)
	}
}

// killAll ends the processes of a group. They are ours: the group was made by us.
func killAll(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}
