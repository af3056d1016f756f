package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Process is a process of a container. Its directory in /proc is held open, which shows this process for ever and, when it has ended, nothing: never
// another that has got its number.
type Process struct {
	Pid int
	dir *os.File
}

// Open finds a process.
func Open(pid int) (*Process, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("process %d: there is none", pid)
	}
	if err != nil {
		return nil, err
	}
	return &Process{pid, dir}, nil
}

// Close lets go of the process.
func (p *Process) Close() { p.dir.Close() }

// Runs says with an error that the process has ended.
func (p *Process) Runs() error {
	_, err := p.read("stat")
	return err
}

func (p *Process) read(name string) ([]byte, error) {
	text, err := readAt(int(p.dir.Fd()), name)
	if err != nil {
		return nil, fmt.Errorf("process %d: %s: %w", p.Pid, name, err)
	}
	return text, nil
}

// maxText bounds what is read of lists that a container can make as long as it likes: a mount namespace has at most 100 000 mounts (fs.mount-max).
const maxText = 64 << 20

func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxText))
}

// namespace gives the inode of one of the process's namespaces.
func (p *Process) namespace(kind string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(p.dir.Fd()), "ns/"+kind, &st, 0); err != nil {
		return 0, fmt.Errorf("process %d: its %s namespace: %w", p.Pid, kind, err)
	}
	return st.Ino, nil
}

// mounts gives those of the process's mounts whose line has all of the words.
func (p *Process) mounts(words ...string) ([]*mountinfo.Info, error) {
	text, err := p.read("mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(text, func(line string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}

// parseMounts parses the lines of a mountinfo that are wanted.
func parseMounts(text []byte, wanted func(line string) bool) ([]*mountinfo.Info, error) {
	var some strings.Builder
	for line := range strings.Lines(string(text)) {
		if wanted(line) {
			some.WriteString(line)
		}
	}
	return mountinfo.GetMountsFromReader(strings.NewReader(some.String()), nil)
}

// HasOld says whether the process has views of LXCFS, or of a daemon other than the one that serves.
func (p *Process) HasOld(served Served) (bool, error) {
	views, err := p.views()
	return slices.ContainsFunc(views, func(m *mountinfo.Info) bool { return !served.has(m) }), err
}

// views gives the mounts that are a view over a file of the kernel's, alive or dead.
func (p *Process) views() ([]*mountinfo.Info, error) {
	mounts, err := p.mounts(" " + fsType + " ")
	return slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool {
		proc, isProc := strings.CutPrefix(m.Mountpoint, "/proc/")
		return m.FSType != fsType || !(isProc && !strings.Contains(proc, "/")) && !strings.HasPrefix(m.Mountpoint, "/"+cpuDir)
	}), err
}

// fsType is that of LXCFS's mounts and of lensfs's.
const fsType = "fuse.lxcfs"

// root names the process's root file system, and which part of it is its root.
func (p *Process) root() (string, error) {
	mounts, err := p.mounts(" / ")
	if err != nil {
		return "", err
	}
	root := ""
	for _, m := range mounts {
		if m.Mountpoint == "/" { // the last one is on top
			root = device(m) + m.Root
		}
	}
	return root, nil
}

// isInit says whether /proc/PID/status is of the first process of a pid namespace beneath ours: "NSpid:	4711	1".
func isInit(status string) bool {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}

// Groups gives the cgroups that the process is in, in every hierarchy.
func (p *Process) Groups() ([]string, error) {
	text, err := p.read("cgroup")
	if err != nil {
		return nil, err
	}
	var groups []string
	for line := range strings.Lines(string(text)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			groups = append(groups, f[2])
		}
	}
	return groups, nil
}
