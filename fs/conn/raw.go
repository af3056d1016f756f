package conn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// On a descriptor that does not block neither of these waits for anybody: an answer is copied into the memory of the one who asked, or he is gone.

func rawRead(fd uintptr, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return int(n), errno
}

func rawWrite(fd uintptr, buf []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return errno
}
