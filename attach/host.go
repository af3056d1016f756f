package attach

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Host is what tells a process of the host from a container's: the namespaces of this process and of the host's init, and the root file system.
type Host struct {
	pid, mnt []uint64
	roots    []string
}

// LookAtHost gives the Host. This process has to be in the host's pid namespace.
func LookAtHost() (*Host, error) {
	var h Host
	for _, pid := range []int{1, os.Getpid()} {
		p, err := Open(pid)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		if _, err := p.namespace("mnt"); pid == 1 && errors.Is(err, unix.EACCES) {
			continue // more capable than we are: in a virtual machine of a cloud it may be none of the system's
		}
		pidNS, err1 := p.namespace("pid")
		mntNS, err2 := p.namespace("mnt")
		root, err3 := p.root()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		h.pid, h.mnt, h.roots = append(h.pid, pidNS), append(h.mnt, mntNS), append(h.roots, root)
	}
	return &h, nil
}

// Check says with an error why the process is not one whose container could be given views.
func (h *Host) Check(p *Process) error {
	pid, err := p.namespace("pid")
	if err != nil {
		return err
	}
	if slices.Contains(h.pid, pid) {
		return fmt.Errorf("process %d is none of a container's: its pid namespace is the host's", p.Pid)
	}
	mnt, err := p.namespace("mnt")
	if err != nil {
		return err
	}
	if slices.Contains(h.mnt, mnt) {
		return fmt.Errorf("process %d sees the host's mounts: what were put over its /proc would be put over the host's", p.Pid)
	}
	return nil
}

// Find gives the first process of each container that runs, ordered by pid. A container is a pid namespace whose first process
//
//   - has a mount namespace that is not the host's,
//   - has been put into a cgroup,
//   - and has a root file system of its own, or views already.
//
// Services of systemd are none, whatever namespaces they have been given: their root is the host's.
func (h *Host) Find() ([]*Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []*Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := Open(pid)
		if err != nil {
			continue // it has ended
		}
		if h.isContainer(p) {
			found = append(found, p)
		} else {
			p.Close()
		}
	}
	slices.SortFunc(found, func(a, b *Process) int { return a.Pid - b.Pid })
	return found, nil
}

// isContainer is false too of what cannot be seen: it has ended, or is a thread of the kernel's.
func (h *Host) isContainer(p *Process) bool {
	status, err := p.read("status")
	if err != nil || !isInit(string(status)) || h.Check(p) != nil {
		return false
	}
	groups, err := p.Groups()
	if err != nil || !slices.ContainsFunc(groups, func(g string) bool { return g != "/" }) {
		return false
	}
	if views, err := p.views(); err == nil && len(views) > 0 {
		return true
	}
	root, err := p.root()
	return err == nil && root != "" && !slices.Contains(h.roots, root)
}
