package main

import (
	"fmt"
	"path/filepath"

	"lensfs/fs/keeper"

	"github.com/spf13/cobra"
)

// which says which daemon a command is for.
type which struct{ tree, views, runtimeDir string }

func (w *which) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.tree, "tree", "/var/lib/lxcfs", "the daemon that serves the shared tree on this `directory`")
	f.StringVar(&w.views, "views", "", "the daemon that serves own views on this `directory`")
	f.StringVar(&w.runtimeDir, "runtime-dir", "/run", "as in serve: the `directory` with its state; the other two say enough")
}

func (w *which) stateDir() string { return stateDir(w.runtimeDir) }

func (w *which) dir() string {
	if w.views != "" {
		return w.views
	}
	return w.tree
}

func stateDir(runtimeDir string) string { return filepath.Join(runtimeDir, "lensfs.state") }

func upgradeCommand() *cobra.Command {
	var w which
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a running daemon go on as the version that is on disk, without one failed read",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			worker, err := keeper.Upgrade(w.stateDir(), w.dir())
			if err != nil {
				return fmt.Errorf("the version before goes on: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "version %s serves, worker %d\n", worker.Version, worker.Pid)
			return nil
		},
	}
	w.flags(cmd)
	return cmd
}

func stopCommand() *cobra.Command {
	var w which
	var force bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "End a running daemon and unmount, if no container uses the views",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return keeper.Stop(w.stateDir(), w.dir(), force) },
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while containers use the views: these are dead then, until the containers are started again")
	return cmd
}
