package cgroupview

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lensfs/cgroupview/kfile"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
)

// controller is one of the kernel's cgroup controllers that a view needs.
type controller int

const (
	memory controller = iota
	cpu
	cpuacct // v2: cpu.stat, which every group has
	cpuset
	blockIO
	unified // whatever belongs to the v2 hierarchy itself
	pids
	freezer
	controllers
)

// controllerNames are what the kernel calls them in either version; "" where it does not list one.
var controllerNames = [controllers]struct{ v1, v2 string }{
	memory:  {"memory", "memory"},
	cpu:     {"cpu", "cpu"},
	cpuacct: {"cpuacct", "cpuacct"},
	cpuset:  {"cpuset", "cpuset"},
	blockIO: {"blkio", "io"},
	pids:    {"pids", "pids"},
	freezer: {"freezer", ""},
}

// hierarchy is where one controller lives: a mounted tree of groups.
type hierarchy struct {
	dir  *kfile.Dir // nil: the host has no such controller
	v2   bool
	root string // what part of the whole tree is mounted: "/" but where the daemon itself runs in a container
}

// layout says for each controller where it lives. Whether that is v1 or v2 is a property of the controller: on a hybrid host both are in use.
type layout [controllers]hierarchy

// findLayout looks at the mounts of the process that root/proc/self is.
func findLayout(root string) (*layout, error) {
	mounts, err := selfMounts(root)
	if err != nil {
		return nil, fmt.Errorf("cgroup mounts: %w", err)
	}
	var l layout
	for _, m := range mounts {
		if m.FSType == "cgroup" {
			if err := l.addV1(root, m); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range mounts {
		if m.FSType == "cgroup2" && l[unified].dir == nil {
			if err := l.addV2(root, m); err != nil {
				return nil, err
			}
		}
	}
	if l == (layout{}) {
		mode := "none mounted"
		if cgroups.Mode() != cgroups.Unavailable {
			mode = "none among the mounts of this process"
		}
		return nil, fmt.Errorf("no cgroup hierarchy found (%s): mount cgroup2 on /sys/fs/cgroup, or start lensfs outside of the container", mode)
	}
	return &l, nil
}

func selfMounts(root string) ([]*mountinfo.Info, error) {
	file, err := os.Open(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return mountinfo.GetMountsFromReader(file, cgroupMounts)
}

// cgroupMounts is a filter for mounts of either version.
func cgroupMounts(m *mountinfo.Info) (skip, stop bool) {
	return m.FSType != "cgroup" && m.FSType != "cgroup2", false
}

// hasController says whether a v1 mount has the controller called name: its super block's options tell, "rw,cpu,cpuacct".
func hasController(m *mountinfo.Info, name string) bool {
	return m.FSType == "cgroup" && name != "" && slices.Contains(strings.Split(m.VFSOptions, ","), name)
}

// addV1 takes the controllers of one v1 mount.
func (l *layout) addV1(root string, m *mountinfo.Info) error {
	for c, name := range controllerNames {
		if !hasController(m, name.v1) || l[c].dir != nil {
			continue
		}
		dir, err := kfile.Open(filepath.Join(root, m.Mountpoint), false)
		if err != nil {
			return err
		}
		l[c] = hierarchy{dir: dir, root: m.Root}
	}
	return nil
}

// addV2 takes the controllers that no v1 hierarchy has: the kernel lists them in cgroup.controllers.
func (l *layout) addV2(root string, m *mountinfo.Info) error {
	dir, err := kfile.Open(filepath.Join(root, m.Mountpoint), false)
	if err != nil {
		return err
	}
	h := hierarchy{dir: dir, v2: true, root: m.Root}
	l[unified] = h
	var b kfile.Buffer
	text, err := dir.Read(&b, "", "cgroup.controllers")
	if err != nil {
		return dir.Wrap(err, "", "cgroup.controllers")
	}
	for _, name := range bytes.Fields(text) {
		for c, n := range controllerNames {
			if n.v2 == string(name) && l[c].dir == nil {
				l[c] = h
			}
		}
	}
	if l[cpuacct].dir == nil {
		l[cpuacct] = h // there is no such controller on v2: cpu.stat counts without one
	}
	return nil
}

// String tells an operator where the controllers are: "memory v1, cpu v1, cpuset v2".
func (l *layout) String() string {
	var s []string
	for c, h := range l {
		if h.dir == nil || controller(c) == unified {
			continue
		}
		if h.v2 {
			s = append(s, controllerNames[c].v2+" v2")
		} else {
			s = append(s, controllerNames[c].v1+" v1")
		}
	}
	return strings.Join(s, ", ")
}

// paths holds a group for each controller, as a path beneath the mounted hierarchy: "/" is its root, "" is unknown.
type paths [controllers]string

// parseCgroup reads /proc/PID/cgroup:
//
//	5:cpu,cpuacct:/lxc.payload.web
//	0::/system.slice/web.service
//
// hierarchy-ID:controllers:path, cgroups(7). The path itself may hold colons, but never a newline.
func (l *layout) parseCgroup(text []byte) paths {
	var p paths
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		id, rest, ok := bytes.Cut(line, []byte(":"))
		names, path, ok2 := bytes.Cut(rest, []byte(":"))
		if !ok || !ok2 || len(path) == 0 || path[0] != '/' {
			continue
		}
		if len(names) == 0 && string(id) == "0" {
			for c := range p {
				if l[c].v2 {
					p[c] = l[c].beneath(path)
				}
			}
			continue
		}
		for len(names) > 0 {
			var name []byte
			name, names, _ = bytes.Cut(names, []byte(","))
			for c, n := range controllerNames {
				if n.v1 == string(name) && n.v1 != "" && !l[c].v2 {
					p[c] = l[c].beneath(path)
				}
			}
		}
	}
	return p
}

// beneath gives the path as seen from the hierarchy's mount point. A group outside of what is mounted ("/.." when the daemon's
// cgroup namespace is not the caller's) is unknown: "". The " (deleted)" of a removed group stays: a container may name a living one so,
// and what cannot be opened is answered from the group above.
func (h *hierarchy) beneath(path []byte) string {
	s := string(path)
	if within(s, "/..") {
		return ""
	}
	if h.root != "/" && h.root != "" {
		if !within(s, h.root) {
			return ""
		}
		s = s[len(h.root):]
		if s == "" {
			s = "/"
		}
	}
	return s
}

// within says whether the group path is root or below it.
func within(path, root string) bool {
	return root == "/" || path == root || strings.HasPrefix(path, root) && path[len(root)] == '/'
}

// parent gives the group above, and false at the root.
func parent(path string) (string, bool) {
	if path == "/" || path == "" {
		return "", false
	}
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return "/", true
	}
	return path[:i], true
}
