package attach

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overProc puts the views over the files of /proc. It fails where nothing can be put.
func (w *work) overProc(root place, views *sources) error {
	proc, err := w.kernels(root, "proc", "proc")
	if err != nil {
		return err
	}
	for _, s := range views.proc {
		w.put(proc, s, "/proc", false)
	}
	return nil
}

// kernels opens the directory beneath the root where the container has the kernel's file system of that type.
func (w *work) kernels(root place, name, fstype string) (place, error) {
	p, err := w.open(root.fd, name, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return p, fmt.Errorf("its /%s is a symbolic link, which is not followed", name)
	case errors.Is(err, unix.ENOENT):
		return p, fmt.Errorf("it has no /%s", name)
	case errors.Is(err, unix.EACCES):
		return p, fmt.Errorf("its root file system does not let the host's root through to /%s: %w", name, err)
	case err != nil:
		return p, fmt.Errorf("its /%s: %w", name, err)
	}
	if p.mount.Mountpoint != "/"+name || p.mount.FSType != fstype || p.mount.Root != "/" {
		return p, fmt.Errorf("its /%s is not the kernel's, but of a file system of type %s: views are put over the kernel's files alone", name, p.mount.FSType)
	}
	return p, w.mayChange(p)
}

// overCPUs puts the views over the directory of CPUs. A container need not have one.
func (w *work) overCPUs(root place, views *sources) {
	const dir = "/" + cpuDir
	sys, err := w.kernels(root, "sys", "sysfs")
	if err != nil {
		w.skip(dir, err)
		return
	}
	system, err := w.open(sys.fd, "devices/system", unix.RESOLVE_NO_XDEV)
	if err != nil {
		w.skip(dir, err)
		return
	}
	cpu, err := w.open(system.fd, "cpu", 0)
	if err != nil {
		w.skip(dir, err)
		return
	}
	if views.cpus == nil {
		for _, s := range views.cpu {
			w.put(cpu, s, dir, false)
		}
		return
	}
	// LXCFS's files, where it has not got the whole directory, would be left behind beneath ours.
	single := w.singles(sys, cpu)
	if !w.put(system, views.cpus, path.Dir(dir), len(single) > 0) {
		return
	}
	for _, p := range single {
		if err := w.detach(p); err != nil {
			w.fail(p.mount.Mountpoint, err)
		}
	}
	if cpu, err = w.open(system.fd, "cpu", 0); err != nil || !w.plan.Served.has(cpu.mount) {
		w.fail(dir, errors.Join(errors.New("it was taken away again"), err))
		return
	}
	for _, s := range views.cpu {
		w.put(cpu, s, dir, false)
	}
}

// singles opens the views of others over single files of sysfs's directory of CPUs.
func (w *work) singles(sys, cpu place) (open []place) {
	if cpu.mount.ID != sys.mount.ID {
		return nil // a mount over the whole directory, whose server must not be asked
	}
	text, err := readAt(w.dir, "mountinfo")
	if err != nil {
		return nil
	}
	mounts, err := parseMounts(text, func(line string) bool { return strings.Contains(line, " /"+cpuDir+"/") })
	if err != nil {
		return nil
	}
	for _, m := range mounts {
		if m.FSType != fsType || w.plan.Served.has(m) || m.Parent != cpu.mount.ID || path.Dir(m.Mountpoint) != "/"+cpuDir {
			continue
		}
		if p, err := w.open(cpu.fd, path.Base(m.Mountpoint), 0); err == nil && p.mount.ID == m.ID {
			open = append(open, p)
		}
	}
	return open
}

// overTree puts the shared tree where the managers of containers in this container look for it, as the mount hook does: on a directory that is there.
func (w *work) overTree(root place, s *source) {
	lib, err := w.open(root.fd, "var/lib", unix.RESOLVE_NO_XDEV)
	if err != nil || w.mayChange(lib) != nil {
		return
	}
	dir, err := w.open(lib.fd, s.name, 0)
	if err != nil {
		return
	}
	// A container may have mounted one of its own there.
	if dir.mount.ID == lib.mount.ID || dir.mount.FSType == fsType && w.old[device(dir.mount)] {
		w.put(lib, s, "/var/lib", false)
	}
}

func (w *work) skip(path string, err error) { w.Skipped = append(w.Skipped, path+": "+err.Error()) }
func (w *work) fail(path string, err error) { w.Failed = append(w.Failed, path+": "+err.Error()) }

// record notes a path once: of what is in the directory of CPUs, the directory.
func record(list *[]string, path string) {
	if strings.HasPrefix(path, "/"+cpuDir+"/") {
		path = "/" + cpuDir
	}
	if !slices.Contains(*list, path) {
		*list = append(*list, path)
	}
}
