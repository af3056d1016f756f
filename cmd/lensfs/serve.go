package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"lensfs/cgroupview"
	"lensfs/fs"
	"lensfs/fs/keeper"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// serveOptions is what both command lines, lensfs' own and LXCFS's, come to.
type serveOptions struct {
	tree       string
	views      string
	viewsSpare bool // LXCFS lets several instances share a runtime directory: only the first has own views then
	runtimeDir string
	pidfile    string
	quota      string
	noSwap     bool
	noZswap    bool
	hideCPUs   bool
	loadavg    bool
	cgroupDir  bool
	debug      bool
	hostRoot   string
}

func serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Mount the views and serve them, in the foreground",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.tree, "tree", "/var/lib/lxcfs", "mount the shared tree, which LXC and Incus expect, on this `directory`")
	f.StringVar(&o.views, "views", "/run/lensfs", "mount each container's own view on this `directory`; \"\" for none")
	f.StringVar(&o.quota, "cpu-quota", "min", "what a CPU quota does to the CPUs shown: `mode` min (the smaller of it and the cpuset), ignore, first (even beyond the cpuset)")
	f.BoolVar(&o.hideCPUs, "hide-cpus", false, "leave the CPUs that a container is not shown out of its /sys/devices/system/cpu, instead of showing them switched off")
	f.BoolVar(&o.loadavg, "loadavg", true, "sample each container's load; without it they see the host's load averages")
	f.StringVar(&o.pidfile, "pidfile", "", "write the process number to this `file`")
	f.StringVar(&o.runtimeDir, "runtime-dir", "/run", "keep state in this `directory`")
	f.BoolVar(&o.cgroupDir, "cgroup-dir", false, "have an empty directory cgroup in the tree, which the LXD snap looks for")
	f.BoolVar(&o.debug, "debug", false, "write every request to standard error")
	f.StringVar(&o.hostRoot, "host-root", "", "take the host's texts from the proc and sys beneath this `directory`: for benchmarks")
	cobra.CheckErr(f.MarkHidden("host-root"))
	return cmd
}

// serve keeps the views until it is told to end.
func serve(ctx context.Context, o serveOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount file systems for every container: run it with sudo, or as a service")
	}
	quota, err := cgroupview.ParseQuotaMode(o.quota)
	if err != nil {
		return fmt.Errorf("--cpu-quota: %w", err)
	}
	ctx, stop := signal.NotifyContext(orBackground(ctx), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // nobody reads its log any more
	signals := keeper.Signals{Toggle: make(chan os.Signal, 1), Upgrade: make(chan os.Signal, 1)}
	signals.Notify()
	raiseFileLimit()

	program, err := os.Executable()
	if err != nil {
		return err
	}
	config, err := json.Marshal(fs.Config{
		Views: fs.Views{Quota: quota, NoSwap: o.noSwap, NoZswap: o.noZswap, HideCPUs: o.hideCPUs, NoLoadavg: !o.loadavg, Host: o.hostRoot},

		CgroupDir: o.cgroupDir,
		Debug:     o.debug,
	})
	if err != nil {
		return err
	}
	k, err := keeper.Start(keeper.Config{
		Tree:     o.tree,
		OwnViews: o.views,
		OwnSpare: o.viewsSpare,
		StateDir: stateDir(o.runtimeDir),
		Worker:   config,
		Program:  program,
		Version:  version,
		Opened:   fs.OpenedBytes,
	})
	if err != nil {
		return err
	}
	pidfile, err := writePidfile(o.pidfile)
	if err != nil {
		return errors.Join(err, k.Leave())
	}
	w := k.Worker()
	slog.Info("ready", "tree", o.tree, "views", o.views, "cgroups", w.Cgroups, "cpu-quota", quota, "version", version, "pid", os.Getpid(), "worker", w.Pid)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		slog.Warn("systemd was not told that lensfs is ready", "err", err)
	}
	err = k.Run(ctx, signals)
	return errors.Join(err, pidfile.remove())
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// tuneRuntime fits Go to a daemon that answers in microseconds and then waits in read(2). As long as a processor of Go's is left in a system call its
// monitor looks every 20 µs whether to take it away: that was a third of the CPU time of a daemon whose containers poll once a second.
// What it holds is texts of living containers, and next to no garbage: a fleet of 1000 that polls makes it collect eight times a minute, at 10 ms each.
func tuneRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.NumCPU()/4))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(10)
	}
}

// raiseFileLimit makes room for a descriptor for each container; without it, start times take their place.
func raiseFileLimit() {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		slog.Warn("the limit of open files stays", "err", err)
	}
}
