package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeSignals has those signals come that are passed on, from run to init and from init to the command.
func takeSignals() chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	return signals
}

// untilReady waits until init takes signals, which it then passes on to the command. Before that the kernel drops those sent to the first process of
// a pid namespace: one that tells us to end is given back, for the command has not begun.
func untilReady(ready *os.File, signals <-chan os.Signal) syscall.Signal {
	closed := make(chan struct{})
	go func() {
		ready.Read(make([]byte, 1))
		close(closed)
	}()
	for {
		select {
		case <-closed:
			return 0
		case s := <-signals:
			if s != unix.SIGUSR1 && s != unix.SIGUSR2 {
				return s.(syscall.Signal)
			}
		}
	}
}

// forward passes signals on. Those that a terminal sends to everybody in front of it have arrived already.
func forward(signals <-chan os.Signal, to *os.Process) {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	terminal := err == nil
	for s := range signals {
		if terminal && (s == unix.SIGINT || s == unix.SIGQUIT) {
			continue
		}
		to.Signal(s) //nolint: one that has just ended needs no signal
	}
}

// statusOf is what a shell makes of a process's end.
func statusOf(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}
