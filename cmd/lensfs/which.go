package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"lensfs/fs/keeper"

	"github.com/spf13/cobra"
)

// which says which daemon a command is for.
type which struct{ tree, views, runtimeDir string }

func (w *which) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.tree, "tree", "/var/lib/lxcfs", "the daemon that serves the shared tree on this `directory`")
	f.StringVar(&w.views, "views", "", "the daemon that serves own views on this `directory`")
	f.StringVar(&w.runtimeDir, "runtime-dir", "/run", "as in serve: the `directory` with its state")
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

func statusCommand() *cobra.Command {
	var w which
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say who serves, since when, and what",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := keeper.Status(w.stateDir(), w.dir())
			if err != nil {
				return err
			}
			if asJSON {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				return err
			}
			return printStatus(cmd.OutOrStdout(), text)
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func printStatus(out io.Writer, text []byte) error {
	var r keeper.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "keeper\t%d\tversion %s\tup %s\n", r.Keeper.Pid, r.Keeper.Version, age(r.Keeper.Since))
	fmt.Fprintf(t, "worker\t%d\tversion %s\tup %s\trestarts %d\n", r.Worker.Pid, r.Worker.Version, age(r.Worker.Since), r.Worker.Restarts)
	for _, m := range r.Mounts {
		fmt.Fprintf(t, "%s\t%s\n", m.Kind, m.Dir)
	}
	return t.Flush()
}

func age(since time.Time) time.Duration { return time.Since(since).Round(time.Second) }
