package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// users counts the containers that have files of ours mounted: mount namespaces in which there is more of our file systems than the mount itself, of
// which many a service of the host has a copy.
func (k *Keeper) users() (int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	looked := map[uint64]bool{}
	users := 0
	for _, proc := range procs {
		var st unix.Stat_t
		if err := unix.Stat(proc+"/ns/mnt", &st); err != nil || looked[st.Ino] {
			continue // ended meanwhile; a kernel thread
		}
		file, err := os.Open(proc + "/mountinfo")
		if err != nil {
			continue
		}
		found, err := mountinfo.GetMountsFromReader(file, k.isUse)
		file.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
			continue // it is just ending: another process of its namespace tells
		}
		if err != nil {
			return users, fmt.Errorf("%s/mountinfo: %w", proc, err)
		}
		looked[st.Ino] = true
		if len(found) > 0 {
			users++
		}
	}
	return users, nil
}

// isUse skips the mounts that are not of a container's.
func (k *Keeper) isUse(m *mountinfo.Info) (skip, stop bool) {
	device := fmt.Sprintf("%d:%d", m.Major, m.Minor)
	for _, ours := range []*Mount{&k.hand.Tree, k.hand.Views} {
		if ours != nil && ours.Device == device {
			return m.Root == "/" && m.Mountpoint == ours.Dir, false
		}
	}
	return true, false
}
