package fs

import (
	"strings"
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
	{5, "proc/uptime", reg444, procview.Uptime},
	{6, "sys", dir555, nil},
	{7, "sys/devices", dir755, nil},
	{8, "sys/devices/system", dir755, nil},
	{cpuDirNumber, "sys/devices/system/cpu", dir755, nil},
	{10, "sys/devices/system/cpu/online", reg444, hostless(sysview.Online)},
	{30, "sys/devices/system/cpu/offline", reg444, hostless(sysview.Offline)},
}

// maxNumber is above every number in files. A container costs memory for each.
const maxNumber = 32

// hostless makes a Source of a view that needs nothing of the host's /proc.
func hostless(view func([]byte, *cgroupview.Container) ([]byte, error)) procview.Source {
	return func(dst []byte, _ *procview.Host, c *cgroupview.Container) ([]byte, error) { return view(dst, c) }
}

func (f *file) isDir() bool { return f.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (f *file) name() string { return f.path[strings.LastIndexByte(f.path, '/')+1:] }

// tree finds the entries of files by number and by name.
type tree struct {
	byNumber [maxNumber]*file
	children [maxNumber][]*file
	parents  [maxNumber]*file
}

func newTree(files []file) *tree {
	t := &tree{}
	byPath := map[string]*file{}
	for i := range files {
		f := &files[i]
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
