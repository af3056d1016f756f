package kfile

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the read path do not tell Go's scheduler of themselves: each that does wakes its monitor thread in a daemon that was idle, and
// costs more than the read. They must not be used for what may wait: kernfs and procfs answer at once, or after a lock that is held for moments.

func rawRead(fd int, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return int(n), errno
}

func rawPread(fd int, buf []byte, off int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), uintptr(off), 0, 0)
	return int(n), errno
}

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// Readable says whether there is something to be read from fd, without waiting; of a pidfd, whether the process has ended.
func Readable(fd int32) bool {
	fds := [1]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n > 0
}

// Boottime reads CLOCK_BOOTTIME: the time since the kernel started, that it was suspended for included.
func Boottime(ts *unix.Timespec) {
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(ts)), 0)
}
