package cgroupview

import (
	"bytes"
	"path/filepath"
	"strconv"
	"time"

	"lensfs/cgroupview/kfile"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// nsGetPidFromPidns translates a pid of the namespace behind the descriptor into ours: _IOR(0xb7, 6, int), Linux 6.11.
const nsGetPidFromPidns = 0x8004b706

// findInit gives the pid, as we see it, of the process that is number 1 in pid's namespace; 0 if it cannot be found.
func (r *Resolver) findInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	if init := r.askKernel(pid); init != 0 {
		return init
	}
	if init := r.ancestorInit(b, pid, ns); init != 0 {
		return init
	}
	if init := r.groupInit(b, pid, ns); init != 0 {
		return init
	}
	return r.scanInit(b, ns)
}

// askKernel has the kernel translate pid 1. Before Linux 6.11 it cannot.
func (r *Resolver) askKernel(pid uint32) uint32 {
	if !r.live {
		return 0
	}
	// ns/pid is a magic link, which kfile refuses to follow: this one the kernel makes, and it cannot be pointed elsewhere.
	fd, err := unix.Open(filepath.Join(r.proc.Path(), strconv.Itoa(int(pid)), "ns/pid"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	init, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetPidFromPidns, 1)
	if errno != 0 {
		return 0
	}
	return uint32(init)
}

// ancestorInit follows the parents of a process that was forked inside.
func (r *Resolver) ancestorInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	for range 1000 { // a chain of parents is no longer, and may change while we follow it
		if here, err := r.namespace(b, b.Pid(pid)); err != nil || here != ns {
			return 0
		}
		ppid, isInit, err := r.status(b, pid)
		if err != nil {
			return 0
		}
		if isInit {
			return pid
		}
		if ppid == 0 {
			return 0
		}
		pid = ppid
	}
	return 0
}

// groupInit looks among the processes of the caller's cgroup: right for one that was sent in (docker exec, lxc-attach).
func (r *Resolver) groupInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	text, err := r.proc.Read(b, b.Pid(pid), "cgroup")
	if err != nil {
		return 0
	}
	p := r.layout.parseCgroup(text)
	for c := range p {
		if r.layout[c].dir == nil || p[c] == "" || p[c] == "/" {
			continue
		}
		text, err := r.layout[c].dir.Read(b, p[c], "cgroup.procs")
		if err != nil {
			continue
		}
		for _, word := range bytes.Fields(bytes.Clone(text)) {
			if n, ok := kfile.Uint(word); ok && r.isInit(b, uint32(n), ns) {
				return uint32(n)
			}
		}
		return 0
	}
	return 0
}

// scanEvery bounds what a container can make us spend by making namespaces whose init is hard to find.
const scanEvery = 100 * time.Millisecond

// scanInit looks at every process of the host. It is left for a process sent in without its cgroup (nsenter) before Linux 6.11.
func (r *Resolver) scanInit(b *kfile.Buffer, ns uint64) uint32 {
	if time.Since(r.lastScan) < scanEvery {
		return 0
	}
	defer func() { r.lastScan = time.Now() }()
	fs, err := procfs.NewFS(r.proc.Path())
	if err != nil {
		return 0
	}
	procs, err := fs.AllProcs()
	if err != nil {
		return 0
	}
	for _, p := range procs {
		if r.isInit(b, uint32(p.PID), ns) {
			return uint32(p.PID)
		}
	}
	return 0
}

func (r *Resolver) isInit(b *kfile.Buffer, pid uint32, ns uint64) bool {
	here, err := r.namespace(b, b.Pid(pid))
	if err != nil || here != ns {
		return false
	}
	_, isInit, err := r.status(b, pid)
	return err == nil && isInit
}

// status reads PPid, and whether the last number of NSpid, the one in the innermost namespace, is 1.
func (r *Resolver) status(b *kfile.Buffer, pid uint32) (ppid uint32, isInit bool, err error) {
	text, err := r.proc.Read(b, b.Pid(pid), "status")
	if err != nil {
		return 0, false, err
	}
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		if v, ok := bytes.CutPrefix(line, []byte("PPid:")); ok {
			n, _ := kfile.Uint(kfile.Trim(v))
			ppid = uint32(n)
		}
		if v, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			f := bytes.Fields(v)
			isInit = len(f) > 1 && string(f[len(f)-1]) == "1"
		}
	}
	return ppid, isInit, nil
}
