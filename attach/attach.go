// Package attach gives views to containers that already run: from outside, it puts the files of a running daemon over the kernel's, or over those of
// LXCFS or of a daemon that has ended, in a container's mount namespace.
//
// What a container has in its mount namespace is its own to make, and may be made to mislead or to wait for ever. So all that touches it is done by a
// child process for one container (Enter), which is given a time limit and is killed after it; a thread could be neither killed nor, stuck, be left behind.
// The child stays in the host's pid and user namespaces, where the container can neither see nor trace it: CAP_SYS_ADMIN in the host's user namespace is
// enough for the mount namespaces of all others.
package attach

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Served is where a running daemon serves.
type Served struct {
	Tree  Mount
	Views Mount // all empty where there are no own views
}

// Mount is a file system and where the host has it.
type Mount struct {
	Dir    string
	Device string // as in mountinfo: "0:45". No other mounted file system has the same, be it alive or dead.
}

func (s *Served) has(m *mountinfo.Info) bool {
	d := device(m)
	return d == s.Tree.Device || d == s.Views.Device
}

func device(m *mountinfo.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// Plan is what a container is to be given.
type Plan struct {
	From   string // the directory whose proc and sys it gets: its own view, or the shared tree
	Served Served
	Dry    bool // look, and change nothing
}

// Result is what a container was given, or would be: paths as the container names them.
type Result struct {
	Put      []string // over the kernel's
	Replaced []string // of LXCFS, or of a daemon that has ended or is another
	Kept     []string // that the daemon serves already
	Skipped  []string // with why
	Failed   []string // with why
}

// limit is how long may be waited for what a container has mounted; grace, until a child is dead that was killed.
const limit, grace = 20 * time.Second, 2 * time.Second

// Attach carries out the plan in the mount namespace of p. The program that calls it has a command of the given name that calls Enter.
func (p *Process) Attach(command string, plan Plan) (r Result, err error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return r, err
	}
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe", command)
	cmd.Args[0] = "lensfs"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &errs
	cmd.ExtraFiles = []*os.File{p.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(limit):
		cmd.Process.Kill()
		select {
		case <-ended:
			return r, fmt.Errorf("a file system in the container did not answer for %v", limit)
		case <-time.After(grace): // it has asked a FUSE server, which has taken the request and does not answer: nobody can end that but its end
			return r, fmt.Errorf("a file system in the container does not answer, and process %d waits for it until that ends", cmd.Process.Pid)
		}
	}
	if err != nil {
		if said := strings.TrimSpace(errs.String()); said != "" {
			err = errors.New(said)
		}
		return r, err
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}
