package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"lensfs/fs"
	"lensfs/oci"

	"github.com/spf13/cobra"
)

func hookCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "hook", Short: "Started by container runtimes"}
	cmd.AddCommand(ociHookCommand())
	return cmd
}

// hookLimit is how long a container waits for its views. It takes some 20 ms.
const hookLimit = 10 * time.Second

// ociHookCommand never fails, whatever it is given: a container whose hook fails does not start.
func ociHookCommand() *cobra.Command {
	var views string
	var now bool
	cmd := &cobra.Command{
		Use:   "oci",
		Short: "Bind the views into the container that an OCI runtime is making",
		Long: "A createContainer hook: reads the container's state on standard input and binds each file of the container's own view over the one that the\n" +
			"container has. It never fails: what cannot be bound, which it tells on standard error, stays the host's.",
		Args:               cobra.ArbitraryArgs,
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true}, // of a later version's spec
		Run: func(cmd *cobra.Command, _ []string) {
			bind := bindInChild
			if now {
				bind = func(state io.Reader, views string) error { return oci.BindAll(state, views, fs.Paths()) }
			}
			if err := bind(cmd.InOrStdin(), views); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "lensfs: %v\n", err)
			}
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fmt.Fprintf(cmd.ErrOrStderr(), "lensfs: no views: %v\n", err)
		return nil
	})
	cmd.Flags().StringVar(&views, "views", "/run/lensfs", "the `directory` of the own views")
	cmd.Flags().BoolVar(&now, "now", false, "without a child that may be left behind")
	cobra.CheckErr(cmd.Flags().MarkHidden("now"))
	return cmd
}

// bindInChild leaves a child to itself that a dead-locked daemon holds: its death then waits for the daemon, and the container must not.
func bindInChild(state io.Reader, views string) error {
	text, err := io.ReadAll(io.LimitReader(state, 1<<20))
	if err != nil {
		return fmt.Errorf("no views: the state on standard input: %w", err)
	}
	child := exec.Command("/proc/self/exe", "hook", "oci", "--now", "--views", views)
	child.Args[0] = "lensfs"
	child.Stdin = bytes.NewReader(text)
	var errs bytes.Buffer
	child.Stderr = &errs // a pipe: the runtime waits until all have closed its own
	child.WaitDelay = time.Second
	if err := child.Start(); err != nil {
		return fmt.Errorf("no views: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(hookLimit):
		child.Process.Kill()
		return fmt.Errorf("no views: nobody answered for %v", hookLimit)
	}
	if err != nil {
		err = fmt.Errorf("no views: %w", err)
	}
	if told := bytes.TrimSpace(errs.Bytes()); len(told) > 0 {
		err = errors.Join(err, errors.New(string(bytes.TrimPrefix(told, []byte("lensfs: ")))))
	}
	return err
}
