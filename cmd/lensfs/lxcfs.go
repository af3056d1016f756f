package main

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

// lxcfsCommand is LXCFS's command line. What has no meaning here is warned about, never refused: it stands in unit files all over the world.
func lxcfsCommand() *cobra.Command {
	o := serveOptions{runtimeDir: "/run"}
	var cfs bool
	cmd := &cobra.Command{
		Use:           "lxcfs [flags] DIR",
		Short:         "lensfs with LXCFS's command line",
		Version:       version + " (lensfs)",
		Args:          cobra.ExactArgs(1),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.tree = args[0]
			o.viewsSpare = true
			o.views = filepath.Join(o.runtimeDir, "lensfs")
			o.quota = "ignore"
			if cfs {
				o.quota = "min"
			}
			if o.pidfile == "" {
				o.pidfile = filepath.Join(o.runtimeDir, "lxcfs.pid")
			}
			warnMeaningless(cmd)
			return serve(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.debug, "debug", "d", false, "write every request to standard error")
	f.BoolP("foreground", "f", false, "stay in the foreground, as always")
	f.StringVarP(&o.pidfile, "pidfile", "p", "", "write the process number to this `file` (default DIR of --runtime-dir/lxcfs.pid)")
	f.BoolVarP(&o.noSwap, "disable-swap", "u", false, "show no swap")
	f.BoolVar(&o.noZswap, "disable-zswap", false, "show no compressed swap")
	f.BoolVarP(&o.loadavg, "enable-loadavg", "l", false, "sample each container's load; without it they see the host's load averages")
	f.BoolVar(&cfs, "enable-cfs", false, "let a CPU quota limit the CPUs shown")
	f.BoolVar(&o.cgroupDir, "enable-cgroup", false, "have a directory cgroup; it is empty, as containers have cgroup namespaces since Linux 4.6")
	f.StringVar(&o.runtimeDir, "runtime-dir", "/run", "keep state in this `directory`")
	f.BoolP("version", "v", false, "print the version")
	for _, name := range slices.Sorted(maps.Keys(meaningless)) {
		why := meaningless[name]
		if name == "o" {
			f.StringP("options", "o", "", "no meaning here: "+why)
			continue
		}
		short := map[string]string{"single-threaded": "s"}[name]
		f.BoolP(name, short, false, "no meaning here: "+why)
	}
	return cmd
}

// meaningless are the options of LXCFS that lensfs takes without doing anything, with the reason.
var meaningless = map[string]string{
	"o":               "lensfs mounts without libfuse, which these are for",
	"single-threaded": "LXCFS ignores it too",
	"enable-pidfd":    "lensfs always uses them",
	"enable-psi-poll": "it lets a container end LXCFS",
}

func warnMeaningless(cmd *cobra.Command) {
	for name, why := range meaningless {
		if name == "o" {
			name = "options"
		}
		if cmd.Flags().Changed(name) {
			slog.Warn(fmt.Sprintf("--%s has no meaning here: %s", name, why))
		}
	}
}
