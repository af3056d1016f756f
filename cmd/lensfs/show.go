package main

import (
	"fmt"
	"os"

	"lensfs/cgroupview"
	"lensfs/fs"

	"github.com/spf13/cobra"
)

func showCommand() *cobra.Command {
	var pid uint32
	var quota string
	var hideCPUs bool
	cmd := &cobra.Command{
		Use:     "show FILE…",
		Short:   "Print what a process would read, without a mount",
		Example: "  lensfs show --pid 4711 /proc/meminfo cpu/online",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			mode, err := cgroupview.ParseQuotaMode(quota)
			if err != nil {
				return fmt.Errorf("--cpu-quota: %w", err)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
				return fmt.Errorf("--pid %d: there is no such process", pid)
			}
			for _, file := range files {
				text, err := fs.Show(pid, fs.Views{Quota: mode, HideCPUs: hideCPUs}, file)
				if err != nil {
					return err
				}
				if _, err := cmd.OutOrStdout().Write(text); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().Uint32Var(&pid, "pid", uint32(os.Getpid()), "the `process` that would read")
	cmd.Flags().Lookup("pid").DefValue = "its own" // in texts that outlive it
	cmd.Flags().StringVar(&quota, "cpu-quota", "min", "as in serve: `mode` min, ignore, first")
	cmd.Flags().BoolVar(&hideCPUs, "hide-cpus", false, "as in serve")
	return cmd
}
