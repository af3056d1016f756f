// Command lensfs shows every container its own machine.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "devel"

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	cmd := rootCommand()
	if filepath.Base(args[0]) == "lxcfs" { // a symbolic link: whoever calls it expects LXCFS's command line
		cmd = lxcfsCommand()
	}
	cmd.SetArgs(args[1:])
	err := cmd.Execute()
	if code := new(exitCode); errors.As(err, code) {
		return int(*code)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err)
		return 1
	}
	return 0
}

// exitCode is the status of a command that lensfs ran, to be passed on without a word.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lensfs",
		Short: "Show every container its own machine",
		Long: "lensfs serves /proc/meminfo, /proc/cpuinfo, /proc/uptime and /sys/devices/system/cpu as each container should see them:\n" +
			"with its own memory, CPUs and age instead of the host's.",
		Version:       version + " (" + goVersion() + ")",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(serveCommand(), statusCommand(), topCommand(), upgradeCommand(), stopCommand(), runCommand(), showCommand(), attachCommand(), cdiCommand(), hookCommand(), nriCommand(), workerCommand(), initCommand(), janitorCommand(), attachChildCommand())
	cmd.AddCommand(forPackagers()...)
	return cmd
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return "unknown Go"
}
