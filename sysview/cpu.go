// Package sysview writes the files of /sys/devices/system/cpu as a container is to see them: the host's, with the other CPUs switched off.
package sysview

import "lensfs/cgroupview"

// Online appends /sys/devices/system/cpu/online: the CPUs shown, under their real numbers.
func Online(dst []byte, container *cgroupview.Container) ([]byte, error) {
	cpus, err := container.CPUs()
	if err != nil {
		return dst, err
	}
	return appendList(dst, &cpus), nil
}

// Offline appends /sys/devices/system/cpu/offline: the CPUs that exist for the container and are not shown. Where it sees all, that is an empty line.
func Offline(dst []byte, container *cgroupview.Container) ([]byte, error) {
	others, err := container.Possible()
	if err != nil {
		return dst, err
	}
	shown, err := container.CPUs()
	if err != nil {
		return dst, err
	}
	others.Subtract(&shown)
	return appendList(dst, &others), nil
}

func appendList(dst []byte, cpus *cgroupview.CPUSet) []byte {
	return append(cpus.Append(dst), '\n')
}
