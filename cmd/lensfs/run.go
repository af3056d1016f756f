package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"lensfs/cgroupview"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// runOptions is a container for people without a container manager: limits, namespaces, and the views.
type runOptions struct {
	memory, swap string
	cpus         float64
	cpuset       string
	name         string
	parent       string
	views        string
	tree         string
}

// source is the directory whose proc and sys are bound: the container's own view, or the shared tree where that was asked for.
func (o *runOptions) source() string {
	if o.tree != "" {
		return o.tree
	}
	return filepath.Join(o.views, "self")
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND…",
		Short: "Run a command with limits, and with a machine of that size before its eyes",
		Long: "run makes a cgroup with the limits given, new pid, mount, uts and ipc namespaces and a fresh /proc, binds the views of a running\n" +
			"\"lensfs serve\" over it and over /sys, and runs the command. Its exit status is the command's. Nothing is left behind.",
		Example: "  lensfs run --memory 512M --cpus 1 -- free -m",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runContainer(o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.memory, "memory", "", "memory limit, as in `512M` (default: none)")
	f.StringVar(&o.swap, "swap", "", "swap beside it, as in `1G` or 0 (default: no limit)")
	f.Float64Var(&o.cpus, "cpus", 0, "CPU time, in CPUs: `1.5` (default: no limit)")
	f.StringVar(&o.cpuset, "cpuset", "", "the CPUs to run on, as in `0-1,4` (default: all)")
	f.StringVar(&o.name, "name", fmt.Sprintf("run-%d", os.Getpid()), "its `name`, also its host name")
	f.Lookup("name").DefValue = "run-PID" // in texts that outlive it
	f.StringVar(&o.parent, "cgroup-parent", "/", "make its cgroup beneath this `group`, which must exist")
	f.StringVar(&o.views, "views", "/run/lensfs", "the `directory` of own views that lensfs serves")
	f.StringVar(&o.tree, "tree", "", "bind the shared tree on this `directory` instead, as LXCFS's hook does")
	f.SetInterspersed(false)
	return cmd
}

// limits reads what was written, in the units of the kernel: bytes, and microseconds of each 100 000.
func (o *runOptions) limits() (limits, error) {
	l := limits{cpuset: o.cpuset}
	var err error
	if l.memory, err = bytesOrNone("--memory", o.memory); err != nil {
		return l, err
	}
	if l.memory == 0 {
		return l, errors.New("--memory 0: a command needs some")
	}
	if l.swap, err = bytesOrNone("--swap", o.swap); err != nil {
		return l, err
	}
	if o.cpus != 0 && !(o.cpus >= 0.01 && o.cpus <= cgroupview.MaxCPUs) { // nor NaN
		return l, fmt.Errorf("--cpus %g: the kernel takes 0.01 and more, and has at most %d", o.cpus, cgroupview.MaxCPUs)
	}
	l.quota = int64(o.cpus * quotaPeriod)
	if err := checkCPUs(o.cpuset); err != nil {
		return l, err
	}
	if o.name == "" || filepath.Base(o.name) != o.name || o.name == "." || o.name == ".." {
		return l, fmt.Errorf("--name %q: it becomes the name of a cgroup, so no slashes", o.name)
	}
	if len(o.name) > maxHostName {
		return l, fmt.Errorf("--name %q: it becomes the host name, which has at most %d bytes", o.name, maxHostName)
	}
	return l, nil
}

const maxHostName = 64 // HOST_NAME_MAX

// checkCPUs explains what the kernel would only call an invalid argument.
func checkCPUs(list string) error {
	if list == "" {
		return nil
	}
	set, err := cgroupview.ParseCPUSet([]byte(list))
	if err != nil {
		return fmt.Errorf("--cpuset %q: give CPU numbers, as in 0-1,4", list)
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return err
	}
	online, err := cgroupview.ParseCPUSet(text)
	if err != nil {
		return err
	}
	set.Subtract(&online)
	if set.Next(0) >= 0 {
		return fmt.Errorf("--cpuset %q: this host has the CPUs %s", list, online.Append(nil))
	}
	return nil
}

// none is a limit that was not given.
const none = -1

func bytesOrNone(flag, s string) (int64, error) {
	if s == "" {
		return none, nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return none, fmt.Errorf("%s %q: give a number of bytes, or one with k, M, G or T", flag, s)
	}
	return n, nil
}

// initConfig is what the container's init is told through a pipe, when its cgroup is ready.
type initConfig struct {
	Name    string
	Source  string // of proc and sys
	Command []string
}

func runContainer(o runOptions, command []string) error {
	l, err := o.limits()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root may make cgroups and mounts: run it with sudo")
	}
	if _, err := os.Stat(filepath.Join(o.source(), "proc/meminfo")); err != nil {
		return fmt.Errorf("nothing is served at %s: start \"lensfs serve\" first, or give its --views or --tree (%w)", o.source(), err)
	}
	// Init is to die with us; the kernel sends that signal when the thread that made it ends.
	runtime.LockOSThread()
	group := groupName{parent: o.parent, name: o.name}
	janitor, err := startJanitor(group)
	if err != nil {
		return err
	}
	if err := group.claim(); err != nil {
		return errors.Join(err, janitor.finish())
	}
	janitor.charge()
	status, err := runIn(group, l, initConfig{Name: o.name, Source: o.source(), Command: command})
	if err := errors.Join(err, janitor.finish()); err != nil {
		return err
	}
	if status != 0 {
		return exitCode(status)
	}
	return nil
}

// runIn makes the group, starts init in it and waits. The group is the janitor's to remove.
func runIn(name groupName, l limits, cfg initConfig) (status int, err error) {
	group, err := makeGroup(name, l)
	if err != nil {
		return 0, err
	}
	hold, release, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer release.Close()
	ready, begins, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(err, hold.Close())
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe", "init")
	cmd.Args[0] = "lensfs"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{hold, begins}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	signals := takeSignals()
	defer signal.Stop(signals)
	err = cmd.Start()
	hold.Close()
	begins.Close()
	if err != nil {
		return 0, fmt.Errorf("start the container: %w", err)
	}
	if err := errors.Join(group.add(cmd.Process.Pid), json.NewEncoder(release).Encode(cfg)); err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	told := make(chan syscall.Signal, 1)
	go func() {
		if s := untilReady(ready, signals); s != 0 {
			told <- s
			cmd.Process.Kill()
		}
		forward(signals, cmd.Process)
	}()
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		return 0, err
	}
	select {
	case s := <-told:
		return 128 + int(s), nil
	default:
		return statusOf(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
	}
}
