package main

import (
	"os/signal"

	"lensfs/fs"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// given are the descriptors that a keeper gives its worker.
func given() fs.Given { return fs.Given{Link: 3, Stderr: 4, Held: 5, Life: 6} }

func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker TREE",
		Short:  "Answers the kernel's requests, started by serve",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(*cobra.Command, []string) error {
			// What is sent to all processes of a service or a terminal is for the keeper to decide on. SIGPIPE comes when nobody reads its log any more.
			signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
			g := given()
			for _, fd := range []int{g.Link, g.Stderr, g.Held, g.Life} {
				unix.CloseOnExec(fd)
			}
			return fs.Run(g, version, func() {
				raiseFileLimit()
				tuneRuntime()
			})
		},
	}
}
