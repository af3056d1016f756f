package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// initCommand is the first process of a container made by run: it mounts, starts the command, and reaps.
func initCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "init",
		Short:  "The first process of a container, started by run",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return runInit(os.NewFile(3, "config"), os.NewFile(4, "ready")) },
	}
}

func runInit(config io.ReadCloser, ready io.Closer) error {
	if os.Getpid() != 1 {
		return errors.New("init is started by \"lensfs run\"")
	}
	// Blocks until run has put us into the cgroup: nothing before that may be seen as ours.
	var cfg initConfig
	if err := errors.Join(json.NewDecoder(config).Decode(&cfg), config.Close()); err != nil {
		return fmt.Errorf("run has gone: %w", err)
	}
	if err := mountViews(cfg.Source); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(cfg.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	status, err := runAsInit(cfg.Command, ready)
	if err != nil {
		return err
	}
	if status != 0 {
		return exitCode(status)
	}
	return nil
}

// mountViews gives us a /proc of our own and binds the views over it and over /sys.
func mountViews(source string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return errors.Join(bindFiles(filepath.Join(source, "proc"), "/proc"), bindCPUs(filepath.Join(source, cpuDir)))
}

const cpuDir = "/sys/devices/system/cpu"

// bindCPUs binds the whole directory of the shared tree, to which the links in an own view lead, and the view's own files over it.
func bindCPUs(views string) error {
	uevent, err := filepath.EvalSymlinks(filepath.Join(views, "uevent"))
	if errors.Is(err, os.ErrNotExist) { // the daemon's host has no such directory
		return bindFiles(views, cpuDir)
	}
	if err != nil {
		return fmt.Errorf("views: %w", err)
	}
	if err := bind(filepath.Dir(uevent), cpuDir); err != nil || filepath.Dir(uevent) == views {
		return err
	}
	return errors.Join(bind(filepath.Join(views, "online"), cpuDir+"/online"), bind(filepath.Join(views, "offline"), cpuDir+"/offline"))
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", to, err)
	}
	return nil
}

// bindFiles binds each file of from over its namesake in to.
func bindFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("views: %w", err)
	}
	for _, e := range entries {
		target := filepath.Join(to, e.Name())
		if _, err := os.Lstat(target); err != nil {
			continue // this kernel has no such file, so the container has none
		}
		if err := bind(filepath.Join(from, e.Name()), target); err != nil {
			return err
		}
	}
	return nil
}

// runAsInit runs the command and does what the first process of a pid namespace has to: pass signals on, from when it has closed ready, and reap whoever
// is left.
func runAsInit(command []string, ready io.Closer) (status int, err error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lensfs: %v\n", err)
		if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EISDIR) {
			return 126, nil
		}
		return 127, nil
	}
	signals := takeSignals()
	ready.Close()
	child, err := os.StartProcess(path, command, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: append(os.Environ(), "container=lensfs")})
	if err != nil {
		fmt.Fprintf(os.Stderr, "lensfs: %v\n", err)
		return 126, nil
	}
	go forward(signals, child)
	for {
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait: %w", err)
		}
		if pid == child.Pid && (w.Exited() || w.Signaled()) {
			return statusOf(w), nil
		}
	}
}
