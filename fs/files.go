package fs

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"lensfs/cgroupview"
	"lensfs/procview"
	"lensfs/sysview"
)

// file is one entry of the tree that a container sees.
type file struct {
	number uint64 // its inode number: it means the same to every version of lensfs, for containers hold it for as long as they live
	path   string
	mode   uint32
	source procview.Source // nil: a directory
}

const (
	dir555 = syscall.S_IFDIR | 0o555
	dir755 = syscall.S_IFDIR | 0o755
	reg444 = syscall.S_IFREG | 0o444
)

// files is the tree, in the order in which directories list it, which is LXCFS's. Numbers are never given anew.
// What else is in sys/devices/system/cpu passes through from the host, see cpudir.go.
var files = []file{
	{1, "", dir755, nil},
	{2, "proc", dir555, nil},
	{3, "proc/cpuinfo", reg444, procview.Cpuinfo},
	{4, "proc/meminfo", reg444, procview.Meminfo},
	{11, "proc/stat", reg444, procview.Stat},
	{5, "proc/uptime", reg444, procview.Uptime},
	{12, "proc/diskstats", reg444, procview.Diskstats},
	{13, "proc/swaps", reg444, procview.Swaps},
	{14, "proc/loadavg", reg444, procview.Loadavg},
	{15, "proc/slabinfo", syscall.S_IFREG | 0o400, procview.Slabinfo},
	{16, "proc/pressure", dir555, nil},
	{17, "proc/pressure/io", reg444, procview.Pressure(cgroupview.PressureIO)},
	{18, "proc/pressure/cpu", reg444, procview.Pressure(cgroupview.PressureCPU)},
	{19, "proc/pressure/memory", reg444, procview.Pressure(cgroupview.PressureMemory)},
	{21, "proc/.loadavgs", reg444, procview.Loadavgs},
	{6, "sys", dir555, nil},
	{7, "sys/devices", dir755, nil},
	{8, "sys/devices/system", dir755, nil},
	{cpuDirNumber, "sys/devices/system/cpu", dir755, nil},
	{10, "sys/devices/system/cpu/online", reg444, hostless(sysview.Online)},
	{30, "sys/devices/system/cpu/offline", reg444, hostless(sysview.Offline)},
	{20, cgroupDirPath, dir755, nil},
}

// cgroupDirPath is an empty directory, where LXCFS had cgroups for containers without a namespace of them. The LXD snap takes its being there for
// LXCFS's running.
const cgroupDirPath = "cgroup"

// maxNumber is above every number in files.
const maxNumber = 32

// slots holds what one container has of each file, made when it is first asked for: most containers are asked for a few files only.
type slots[T any] [maxNumber]atomic.Pointer[T]

func (s *slots[T]) of(f *file) *T {
	slot := &s[f.number]
	if t := slot.Load(); t != nil {
		return t
	}
	slot.CompareAndSwap(nil, new(T))
	return slot.Load()
}

// hostless makes a Source of a view that needs nothing of the host's /proc.
func hostless(view func([]byte, *cgroupview.Container) ([]byte, error)) procview.Source {
	return func(dst []byte, _ *procview.Host, c *cgroupview.Container) ([]byte, error) { return view(dst, c) }
}

// Paths lists the files that containers are shown on this host, as paths below its root: those that its kernel has.
func Paths() []string {
	var paths []string
	for _, f := range files {
		if _, err := os.Lstat("/" + f.path); err == nil && !f.isDir() {
			paths = append(paths, f.path)
		}
	}
	return paths
}

func (f *file) isDir() bool { return f.mode&syscall.S_IFMT == syscall.S_IFDIR }

// hidden says that f is in the shared tree for the host alone, and not listed: what is bound into containers is what is listed.
func (f *file) hidden() bool { return strings.HasPrefix(f.name(), ".") }

func (f *file) name() string { return f.path[strings.LastIndexByte(f.path, '/')+1:] }

// tree finds the entries of files by number and by name.
type tree struct {
	byNumber [maxNumber]*file
	children [maxNumber][]*file
	parents  [maxNumber]*file
}

// newTree makes the tree of those that this host has; the directory of cgroups is for who asks for it.
func newTree(files []file, host *procview.Host, cgroupDir bool) *tree {
	t := &tree{}
	byPath := map[string]*file{}
	for i := range files {
		f := &files[i]
		if name, ok := strings.CutPrefix(f.path, "proc/"); ok && !host.Has(name) || f.path == cgroupDirPath && !cgroupDir {
			continue
		}
		t.byNumber[f.number] = f
		byPath[f.path] = f
		if f.path == "" {
			t.parents[f.number] = f
			continue
		}
		up := byPath[strings.TrimSuffix(strings.TrimSuffix(f.path, f.name()), "/")]
		t.parents[f.number] = up
		t.children[up.number] = append(t.children[up.number], f)
	}
	return t
}

// file gives the entry of a number, nil for one that is not in use.
func (t *tree) file(number uint64) *file {
	if number >= maxNumber {
		return nil
	}
	return t.byNumber[number]
}

// child gives the entry called name in the directory dir, or nil.
func (t *tree) child(dir uint64, name string) *file {
	if dir >= maxNumber {
		return nil
	}
	for _, f := range t.children[dir] {
		if f.name() == name {
			return f
		}
	}
	return nil
}
