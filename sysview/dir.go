package sysview

import (
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Dir is the host's /sys/devices/system/cpu as containers see it: its files pass through, but for those that say which CPUs there are.
// online and offline at the top are no files of it: Online and Offline write them.
//
// Not served, as if they did not exist: what only root may read on the host, and what is neither file, directory nor symbolic link.
//
// Errors are bare errnos, which readers get; one that an operator should hear of is wrapped.
type Dir struct {
	host *kfile.Dir
	hide bool

	mu     sync.RWMutex
	places map[key]place // what was looked up; there is one for all CPUs, so it is as long as one CPU's files
}

// Open opens the host's directory at path. With hide the CPUs that a container is not shown do not exist for it.
func Open(path string, hide bool) (*Dir, error) {
	host, err := kfile.OpenTree(path)
	if err != nil {
		return nil, err
	}
	return &Dir{host: host, hide: hide, places: map[key]place{}}, nil
}

// Entry is a name in a directory.
type Entry struct {
	Name   string
	Number uint64
	Mode   uint32 // the type is all that is set
}

// Lookup finds a name in the directory dir, for a container. fleeting says that the answer is another for another container, or may be at any time.
func (d *Dir) Lookup(dir uint64, name string, c *cgroupview.Container, st *unix.Stat_t) (n uint64, fleeting bool, err error) {
	up, err := d.Path(dir)
	if err != nil {
		return 0, false, err
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return 0, false, unix.ENOENT
	}
	file := path.Join(up, name)
	at, cpu := split(file)
	fleeting = d.hide && at.isCPU()
	if cpu > maxCPU || fleeting && hidden(cpu, c) {
		return 0, fleeting, unix.ENOENT
	}
	if err := d.stat(file, st); err != nil {
		return 0, fleeting, err
	}
	return numberOf(at, cpu), fleeting, d.learn(at)
}

// isCPU says whether the place is a CPU's directory.
func (p place) isCPU() bool { return p.prefix == prefixes[0] && p.rest == "" }

// hidden says whether a CPU does not exist for a container. Where that cannot be told, it does.
func hidden(cpu int, c *cgroupview.Container) bool {
	cpus, err := c.Possible()
	return err == nil && !cpus.Has(cpu)
}

// learn remembers what a number means. Of two places with one hash the later one does not exist: there is no number left for it.
func (d *Dir) learn(at place) error {
	k := at.key()
	d.mu.RLock()
	known, ok := d.places[k]
	d.mu.RUnlock()
	if !ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		if known, ok = d.places[k]; !ok {
			d.places[k], known = at, at
		}
	}
	if known != at {
		return fmt.Errorf("%s has the node number of %s: %w", at.path(0), known.path(0), unix.ENOENT)
	}
	return nil
}

// List gives the entries of a directory, in the host's order.
func (d *Dir) List(dir uint64, c *cgroupview.Container) ([]Entry, error) {
	up, err := d.Path(dir)
	if err != nil {
		return nil, err
	}
	b := kfile.GetBuffer()
	defer b.Put()
	names, err := d.host.List(b, up)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(names))
	for _, e := range names {
		file := path.Join(up, e.Name())
		at, cpu := split(file)
		mode, ok := d.typeOf(e, file)
		if !ok || cpu > maxCPU || d.hide && at.isCPU() && hidden(cpu, c) {
			continue
		}
		entries = append(entries, Entry{e.Name(), numberOf(at, cpu), mode})
	}
	return entries, nil
}

// typeOf gives an entry's type, and whether it is served. Of links all are, and of directories: everybody may read those of sysfs.
func (d *Dir) typeOf(e os.DirEntry, file string) (mode uint32, ok bool) {
	switch e.Type() {
	case os.ModeSymlink:
		return unix.S_IFLNK, true
	case os.ModeDir:
		return unix.S_IFDIR, true
	}
	var st unix.Stat_t
	err := d.stat(file, &st)
	return st.Mode & unix.S_IFMT, err == nil
}

// Attr gives the host's attributes of a file.
func (d *Dir) Attr(number uint64, st *unix.Stat_t) error {
	file, err := d.Path(number)
	if err != nil {
		return err
	}
	return d.stat(file, st)
}

// stat is ENOENT for what is not served.
func (d *Dir) stat(file string, st *unix.Stat_t) error {
	b := kfile.GetBuffer()
	defer b.Put()
	if err := d.host.Stat(b, file, st); err != nil {
		return err
	}
	const others = unix.S_IROTH
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFREG, unix.S_IFDIR:
		if st.Mode&others != 0 {
			return nil
		}
	}
	return unix.ENOENT
}

// Target gives where a symbolic link leads.
func (d *Dir) Target(number uint64) (string, error) {
	file, err := d.Path(number)
	if err != nil {
		return "", err
	}
	b := kfile.GetBuffer()
	defer b.Put()
	return d.host.Target(b, file)
}
