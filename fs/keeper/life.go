package keeper

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A worker that is killed may have a thread that waits in the kernel for the answer of the next worker, see kill. As long as there is that thread, the
// process has not ended, and its descriptors are open: neither its end of the link nor its pidfd tells that it is no more. So another thread, which waits
// for nothing, holds the only writing end of a pipe in a table of descriptors of its own. It dies at once, and the pipe with it.

// HoldLife makes fd, the writing end of a pipe, end with this process. It is to be called before there are many descriptors.
func HoldLife(fd int) error {
	failed := make(chan error, 1)
	go hold(fd, failed)
	err := <-failed
	unix.Close(fd)
	return err
}

func hold(fd int, failed chan<- error) {
	runtime.LockOSThread() // for good: this thread is of use for nothing else
	if unix.Gettid() == os.Getpid() {
		// Not the first one: what /proc/self/fd shows are its descriptors.
		again := make(chan error, 1)
		go hold(fd, again)
		err := <-again
		runtime.UnlockOSThread()
		failed <- err
		return
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		failed <- os.NewSyscallError("unshare", err)
		return
	}
	for n := range 64 {
		if n != fd {
			unix.Close(n)
		}
	}
	failed <- nil
	select {}
}

// watchLife closes died when the pipe behind fd, which it takes over, has lost its writing end.
func watchLife(fd int, died chan<- struct{}) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			break
		}
	}
	unix.Close(fd)
	close(died)
}
