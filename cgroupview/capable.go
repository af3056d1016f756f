package cgroupview

import "golang.org/x/sys/unix"

// capable says whether this process has a capability.
func capable(capability int) bool {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return true // it will show
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
