package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// takeover is a lensfs whose processes are ended while others read. It has a copy of the program of its own, which is replaced by upgrades.
type takeover struct {
	b       *bench
	program string
	l       lensfsServer
	dir     string
	resumed int64 // requests that a worker has answered for the one before it
}

// answerLimit is how long it is waited for a new worker.
const answerLimit = 30 * time.Second

// status is what matters of "lensfs status --json".
type status struct {
	Keeper struct {
		Pid int `json:"pid"`
	} `json:"keeper"`
	Worker struct {
		Pid   int       `json:"pid"`
		Since time.Time `json:"since"`
	} `json:"worker"`
	Serves struct {
		Errors struct {
			Resumed int64 `json:"resumed"`
		} `json:"errors"`
	} `json:"serves"`
}

func (b *bench) newTakeover() (*takeover, error) {
	dir := filepath.Join(b.dir, "takeover")
	t := &takeover{b: b, dir: dir, program: filepath.Join(dir, "lensfs")}
	t.l.tree, t.l.views = filepath.Join(dir, "tree"), filepath.Join(dir, "views")
	if err := errors.Join(os.Mkdir(dir, 0o755), t.replaceProgram()); err != nil {
		return nil, err
	}
	return t, t.serve()
}

// replaceProgram puts a copy of the program in its place, as a package manager does.
func (t *takeover) replaceProgram() error {
	text, err := os.ReadFile(t.b.lensfs)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(t.program+".new", text, 0o755), os.Rename(t.program+".new", t.program))
}

// serve starts a keeper: the first, or one that adopts the worker that is there. It gives back when that answers.
func (t *takeover) serve() (err error) {
	cmd := exec.Command(t.program, "serve", "--tree", t.l.tree, "--views", t.l.views, "--runtime-dir", t.dir)
	if t.l.server, err = startServer(t.b.ctx, "lensfs", []string{t.l.tree, t.l.views}, cmd); err != nil {
		return err
	}
	_, err = t.until(func(s status) bool { return s.Keeper.Pid == cmd.Process.Pid && s.Worker.Pid != 0 })
	return err
}

// command gives a command of lensfs for this daemon.
func (t *takeover) command(name string, flags ...string) *exec.Cmd {
	return exec.Command(t.program, append([]string{name, "--views", t.l.views, "--runtime-dir", t.dir}, flags...)...)
}

func (t *takeover) status() (s status, err error) {
	out, err := t.command("status", "--json").Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return s, fmt.Errorf("lensfs status: %w", err)
	}
	return s, json.Unmarshal(out, &s)
}

// until asks for the status again and again, but not so often that the asking is what is measured.
func (t *takeover) until(ok func(status) bool) (s status, err error) {
	for deadline := time.Now().Add(answerLimit); ; t.b.pause(30 * time.Millisecond) {
		if s, err = t.status(); err == nil && ok(s) {
			return s, nil
		}
		if t.b.ctx.Err() != nil {
			return s, errTold
		}
		if time.Now().After(deadline) {
			return s, errors.Join(fmt.Errorf("lensfs has not recovered within %v, its status is %+v: %s", answerLimit, s, t.l.log.String()), err)
		}
	}
}

// nothing lets a while pass.
func (t *takeover) nothing() (time.Duration, error) {
	t.b.pause(100 * time.Millisecond)
	return 0, nil
}

// signalWorker sends the worker what ends or stops it, and gives the time that another took to serve.
func (t *takeover) signalWorker(sig unix.Signal) (time.Duration, error) {
	was, err := t.status()
	if err != nil {
		return 0, err
	}
	return t.replaced(was, func() error { return unix.Kill(was.Worker.Pid, sig) })
}

// replaced does what has the worker replaced.
func (t *takeover) replaced(was status, do func() error) (time.Duration, error) {
	begun := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	t.b.pause(30 * time.Millisecond)
	now, err := t.until(func(s status) bool { return s.Worker.Pid != 0 && s.Worker.Pid != was.Worker.Pid })
	t.resumed += now.Serves.Errors.Resumed
	return now.Worker.Since.Sub(begun), err
}

// upgrade has it go on as another copy of the program.
func (t *takeover) upgrade() (time.Duration, error) {
	was, err := t.status()
	if err := errors.Join(err, t.replaceProgram()); err != nil {
		return 0, err
	}
	return t.replaced(was, func() error {
		if out, err := t.command("upgrade").CombinedOutput(); err != nil {
			return fmt.Errorf("lensfs upgrade: %w: %s", err, out)
		}
		return nil
	})
}

// killKeeper ends the keeper and starts another, and gives the time until that says that it has the worker.
func (t *takeover) killKeeper() (time.Duration, error) {
	begun := time.Now()
	if err := t.l.cmd.Process.Kill(); err != nil {
		return 0, err
	}
	<-t.l.done
	err := t.serve()
	return time.Since(begun), err
}

// inTurn ends the worker, and when there is another the keeper.
func (t *takeover) inTurn() (time.Duration, error) {
	worker, err := t.signalWorker(unix.SIGKILL)
	if err != nil {
		return 0, err
	}
	keeper, err := t.killKeeper()
	return worker + keeper, err
}

// end ends it, also when there is a worker without a keeper.
func (t *takeover) end() error {
	out, err := t.command("stop", "--force").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("lensfs stop: %w: %s", err, out)
	}
	if t.l.server != nil {
		err = errors.Join(err, t.l.stop())
	}
	return err
}
