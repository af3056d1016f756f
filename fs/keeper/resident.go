package keeper

import (
	"fmt"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// ForgetStart has the kernel take the program's code and constants out of this process's memory: what only the start has needed, which is most of
// it (10 MB, a keeper's whole weight), stays away, the rest comes back from the page cache when it is used.
func ForgetStart() error {
	self, err := procfs.Self()
	if err != nil {
		return fmt.Errorf("memory of the start: %w", err)
	}
	program, err := self.Executable()
	if err != nil {
		return fmt.Errorf("memory of the start: %w", err)
	}
	maps, err := self.ProcMaps()
	if err != nil {
		return fmt.Errorf("memory of the start: %w", err)
	}
	for _, m := range maps {
		if m.Pathname != program || m.Perms.Write { // what may be written to has no other copy
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.StartAddr, m.EndAddr-m.StartAddr, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("memory of the start: %w", errno)
		}
	}
	return nil
}
