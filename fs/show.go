package fs

import (
	"fmt"
	"path/filepath"
	"strings"

	"lensfs/cgroupview"
)

// Show gives the text of a file as process pid would read it, without a mount.
func Show(pid uint32, views Views, path string) ([]byte, error) {
	resolver, host, err := views.open()
	if err != nil {
		return nil, err
	}
	f, err := find(path)
	if err != nil {
		if text, known := views.showCPU(path, resolver.Of(pid)); known == nil {
			return text, nil
		}
		return nil, err
	}
	return f.source(nil, host, resolver.Of(pid))
}

// showCPU is Show for what passes through: "/sys/devices/system/cpu/present", "cpu/present".
func (v Views) showCPU(path string, c *cgroupview.Container) ([]byte, error) {
	cpus, err := v.openCPUs()
	if err != nil {
		return nil, err
	}
	path = strings.TrimPrefix(filepath.Clean(path), "/")
	name := strings.TrimPrefix(strings.TrimPrefix(path, cpuDirPath+"/"), "cpu/")
	number, err := cpus.Find(name, c)
	if err != nil {
		return nil, err
	}
	return cpus.Read(nil, number, c)
}

// find gives the file that an operator named: "/proc/meminfo", "proc/meminfo", "meminfo" or "cpu/online".
func find(path string) (*file, error) {
	want := "/" + strings.TrimPrefix(filepath.Clean(path), "/")
	var known []string
	for i := range files {
		f := &files[i]
		if f.isDir() {
			continue
		}
		if strings.HasSuffix("/"+f.path, want) {
			return f, nil
		}
		known = append(known, "/"+f.path)
	}
	return nil, fmt.Errorf("%s: lensfs does not have this file; it has %s", path, strings.Join(known, ", "))
}
