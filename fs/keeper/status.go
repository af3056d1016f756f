package keeper

import (
	"encoding/json"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what "lensfs status --json" prints. Keys are never renamed.
type Report struct {
	Keeper KeeperReport    `json:"keeper"`
	Worker WorkerReport    `json:"worker"`
	Mounts []MountReport   `json:"mounts"`
	Kernel KernelReport    `json:"kernel"`
	Serves json.RawMessage `json:"serves,omitempty"` // what the worker says
}

// KeeperReport is the keeper's part.
type KeeperReport struct {
	Pid     int       `json:"pid"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
}

// WorkerReport is of the present worker.
type WorkerReport struct {
	Pid      int       `json:"pid"`
	Version  string    `json:"version"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`           // of workers, since the keeper is
	LastEnd  string    `json:"last_end,omitempty"` // why the one before was replaced
	Cgroups  string    `json:"cgroups"`
}

// MountReport is one mount.
type MountReport struct {
	Dir      string `json:"dir"`
	Kind     string `json:"kind"` // "tree" or "views"
	Device   string `json:"device"`
	Protocol uint32 `json:"protocol_minor"` // that the kernel speaks: 7.N
}

// KernelReport is what the kernel can do.
type KernelReport struct {
	Release string `json:"release"`
	Resend  bool   `json:"fuse_resend"`  // 7.40, Linux 6.9: not made use of
	NoFlush bool   `json:"fuse_noflush"` // 7.35, Linux 5.16
}

// status asks the worker and answers with a Report.
func (k *Keeper) status() Message {
	r := Report{Keeper: KeeperReport{os.Getpid(), k.cfg.Version, k.started}}
	r.Worker = WorkerReport{Restarts: k.restarts, LastEnd: k.lastEnd}
	if p := k.worker; p != nil {
		r.Worker.Pid, r.Worker.Version, r.Worker.Since, r.Worker.Cgroups = p.Pid, p.Version, p.Since, p.Cgroups
		m, err := p.tell(Message{Op: OpStatus}, hungAfter)
		var refused refusal // by one of a version that does not know how
		if err != nil && !errors.As(err, &refused) {
			k.replace(err.Error())
		}
		r.Serves = m.Status
	}
	for _, m := range []struct {
		mount *Mount
		kind  string
	}{{&k.hand.Tree, "tree"}, {k.hand.Views, "views"}} {
		if m.mount != nil {
			r.Mounts = append(r.Mounts, MountReport{m.mount.Dir, m.kind, m.mount.Device, m.mount.Agreed.Kernel})
		}
	}
	r.Kernel = kernelReport(k.hand.Tree.Agreed.Kernel)
	text, err := json.Marshal(r)
	if err != nil {
		return failed(err)
	}
	return Message{Op: OpDone, Status: text}
}

// view asks the worker which container a process is in.
func (k *Keeper) view(m Message) Message {
	if k.worker == nil {
		return failed(errors.New("a worker is just being started: try again"))
	}
	answer, err := k.worker.tell(m, hungAfter)
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		k.replace(err.Error())
	}
	if err != nil {
		return failed(err)
	}
	return answer
}

func kernelReport(minor uint32) KernelReport {
	var u unix.Utsname
	unix.Uname(&u)
	return KernelReport{Release: unix.ByteSliceToString(u.Release[:]), Resend: minor >= 40, NoFlush: minor >= 35}
}
