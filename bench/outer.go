package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// dirVar names the directory of the run, in which all its mounts are. Its cgroups have the same name.
const dirVar = "LENSFS_BENCH_DIR"

// outer starts the run in a mount namespace of its own, so that its mounts go with it however it ends, and removes what else is left then.
func outer(args []string) int {
	c, err := parseFlags(args)
	if err != nil {
		return fail(err)
	}
	if c.from != "" {
		r, err := loadReport(c.from)
		if err != nil {
			return fail(err)
		}
		return finish(c, r)
	}
	if os.Geteuid() != 0 {
		return fail(errors.New("only root may make containers and mounts: run it with sudo"))
	}
	dir, err := os.MkdirTemp("", "lensfs-bench-")
	if err != nil {
		return fail(err)
	}
	status, err := superviseIn(dir, args)
	if err := errors.Join(err, clean(dir)); err != nil {
		fail(err)
		return max(status, 1)
	}
	return status
}

// clean removes what a run leaves. Its mounts were never seen here, where its directory is empty.
func clean(dir string) error {
	return errors.Join(removeGroups(groupOf(dir)), removeParent(), os.RemoveAll(dir))
}

func superviseIn(dir string, args []string) (int, error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	// The run is told to end when we are gone; the kernel sends that signal when the thread that started it ends.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "bench"
	cmd.Env = append(os.Environ(), roleVar+"=run", dirVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // one that came from the terminal comes twice then: no harm
		}
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() < 0 {
			return 1, fmt.Errorf("the run ended with %v", exit)
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// removeParent removes the group above those of all runs, if this was the last.
func removeParent() error {
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		err := unix.Rmdir(filepath.Join(m, parentGroup))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s%s: %w", m, parentGroup, err)
		}
	}
	return nil
}
