package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// parentGroup is the one group that this program makes at the top.
const parentGroup = "/lensfs-bench"

// groupOf names the group of a run, in which all its containers' groups are.
func groupOf(runDir string) string { return filepath.Join(parentGroup, filepath.Base(runDir)) }

// limits of a container.
type limits struct {
	memory int64   // bytes
	cpus   float64 // quota
	cpuset string  // "": all
}

const quotaPeriod = 100_000 // µs

// subsystems are the v1 controllers of this host that limit or count something here.
var subsystems = sync.OnceValues(func() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	var used []cgroup1.Subsystem
	for _, s := range all {
		switch s.Name() {
		case cgroup1.Memory, cgroup1.Cpu, cgroup1.Cpuacct, cgroup1.Cpuset:
			used = append(used, s)
		}
	}
	return used, nil
})

// makeGroup makes a group with limits, on v1 or v2 (what is v2 beside a v1 hierarchy limits nothing), and gives the way to enter it.
func makeGroup(path string, l limits) (enter func(pid int) error, err error) {
	quota, period := int64(l.cpus*quotaPeriod), uint64(quotaPeriod)
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.NewManager("/sys/fs/cgroup", path, &cgroup2.Resources{
			Memory: &cgroup2.Memory{Max: &l.memory},
			CPU:    &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &period), Cpus: l.cpuset},
		})
		if err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", path, err)
		}
		return func(pid int) error { return m.AddProc(uint64(pid)) }, nil
	}
	cg, err := cgroup1.New(cgroup1.StaticPath(path), &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &l.memory},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: l.cpuset},
	}, cgroup1.WithHierarchy(subsystems))
	if err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", path, err)
	}
	return func(pid int) error { return cg.AddProc(uint64(pid)) }, nil
}

// hierarchies gives the mount points of all cgroup hierarchies.
var hierarchies = sync.OnceValues(func() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	var dirs []string
	for _, m := range mounts {
		if m.Root == "/" {
			dirs = append(dirs, m.Mountpoint)
		}
	}
	return dirs, err
})

// removeGroups ends what is left in a group and those beneath it, and removes them wherever they are.
func removeGroups(path string) error {
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		errs = append(errs, removeTree(filepath.Join(m, path)))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		killAll(dir)
		rmErr := unix.Rmdir(dir)
		if rmErr == nil || errors.Is(rmErr, unix.ENOENT) {
			return err
		}
		if !errors.Is(rmErr, unix.EBUSY) || time.Now().After(deadline) {
			return errors.Join(err, fmt.Errorf("remove cgroup %s: %w", dir, rmErr))
		}
		time.Sleep(wait)
	}
}

// killAll ends the processes of a group, which is ours.
func killAll(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for word := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}
