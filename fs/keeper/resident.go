package keeper

import (
	"fmt"
	"runtime/debug"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// ForgetStart has the kernel take garbage, and the program's code and constants, out of this process's memory: what only the start has needed
// (most of it: a keeper has 6 MB then, not 13) stays away, the rest comes back from the page cache when it is used.
func ForgetStart() error {
	debug.FreeOSMemory()
	if err := advise(unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("memory of the start: %w", err)
	}
	return nil
}

// advise tells the kernel something about the memory in which the program's file is, and which cannot be written to: what can be has no other copy.
func advise(advice int) error {
	self, err := procfs.Self()
	if err != nil {
		return err
	}
	program, err := self.Executable()
	if err != nil {
		return err
	}
	maps, err := self.ProcMaps()
	if err != nil {
		return err
	}
	for _, m := range maps {
		if m.Pathname != program || m.Perms.Write {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.StartAddr, m.EndAddr-m.StartAddr, uintptr(advice)); errno != 0 {
			return errno
		}
	}
	return nil
}
