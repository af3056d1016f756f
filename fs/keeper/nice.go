package keeper

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// hurry is the niceness of a keeper, which does next to nothing, and of a worker that starts since there is none, or takes over: everybody who reads
// waits for them.
const hurry = -15

// hasten raises the priority of this process's threads, and so of those that they make, and gives the niceness that it had. Where that is not allowed
// (CAP_SYS_NICE), it only takes longer on a busy machine.
func hasten() (was int) {
	was = 0
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		was = 20 - n // the system call's, not the library's
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return was
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, min(was, hurry))
		}
	}
	return was
}

// mayHurry lets a worker go before others, or no more: one that prepares while another serves must not be in that one's way. It is as with hasten if it
// is not allowed.
func (p *process) mayHurry(hurried bool, nice int) {
	if hurried {
		nice = min(nice, hurry)
	}
	unix.Setpriority(unix.PRIO_PGRP, p.Pid, nice)
}

// Calm gives a worker, which is a process group of its own, the niceness that its keeper had before it hastened.
func Calm(nice int) error { return unix.Setpriority(unix.PRIO_PGRP, 0, nice) }
