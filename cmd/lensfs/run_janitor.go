package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// janitor is a process that outlives run, however that ends, and then removes the container's cgroup. It is the only one that does.
type janitor struct {
	cmd   *exec.Cmd
	alive *os.File // our end of a pipe: closed when we are gone
}

func startJanitor(name groupName) (*janitor, error) {
	watch, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	cmd := exec.Command("/proc/self/exe", "janitor", "--parent", name.parent, "--name", name.name)
	cmd.Args[0] = "lensfs"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{watch}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends to its foreground is not for him
	if err := cmd.Start(); err != nil {
		alive.Close()
		return nil, fmt.Errorf("start the janitor: %w", err)
	}
	return &janitor{cmd, alive}, nil
}

// charge makes the group the janitor's to remove. Until then it is not known to be ours.
func (j *janitor) charge() {
	j.alive.Write([]byte{1}) //nolint: if he has died, finish says so
}

// finish has the janitor do his work and waits for it.
func (j *janitor) finish() error {
	j.alive.Close()
	if err := j.cmd.Wait(); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

func janitorCommand() *cobra.Command {
	var name groupName
	cmd := &cobra.Command{
		Use:    "janitor",
		Short:  "Removes a container's cgroup after run, started by run",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
			charged, err := io.Copy(io.Discard, os.NewFile(3, "alive"))
			if err != nil || charged == 0 {
				return err
			}
			return name.remove()
		},
	}
	cmd.Flags().StringVar(&name.parent, "parent", "/", "")
	cmd.Flags().StringVar(&name.name, "name", "", "")
	return cmd
}
