package procview

import (
	"slices"
	"strconv"
	"strings"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// Loadavgs appends /proc/.loadavgs, a file that vpsAdminOS's LXCFS had, for the host alone: a line for each container that is known, with its group and
// what its /proc/loadavg says. A container is told EPERM.
//
//	/osctl/pool.tank/group.default/user.web/ct.web/user-owned/lxc.payload.web 0.52 0.31 0.20 1/84 1234
func Loadavgs(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	if !container.IsHost() {
		return dst, unix.EPERM
	}
	all := host.resolver.Containers(nil)
	slices.SortFunc(all, func(a, b *cgroupview.Container) int { return strings.Compare(a.Group(), b.Group()) })
	for _, c := range all {
		tasks, err := c.Tasks()
		if err != nil {
			continue // it ends just now
		}
		dst = append(append(dst, c.Group()...), ' ')
		dst = appendLoad(dst, c.Load())
		dst = strconv.AppendInt(dst, int64(tasks.Running), 10)
		dst = append(dst, '/')
		dst = strconv.AppendInt(dst, int64(tasks.Total), 10)
		dst = append(dst, ' ')
		dst = strconv.AppendUint(dst, uint64(tasks.LastPid), 10)
		dst = append(dst, '\n')
	}
	return dst, nil
}
