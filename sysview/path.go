package sysview

import (
	"path"
	"strings"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Path gives what a number stands for, relative to the directory: "cpu0/topology". ENOENT: nothing that is there.
func (d *Dir) Path(number uint64) (string, error) {
	if number == Top {
		return "", nil
	}
	at, cpu, err := d.place(number)
	if err != nil {
		return "", err
	}
	return at.path(cpu), nil
}

// Parent gives the number of the directory that an entry is in; of the directory itself its own.
func (d *Dir) Parent(n uint64) (uint64, error) {
	file, err := d.Path(n)
	if err != nil || file == "" {
		return n, err
	}
	dir := path.Dir(file)
	if dir == "." {
		return Top, nil
	}
	up, _ := number(dir)
	return up, nil
}

// place gives what a number stands for. One that was not looked up here is of a daemon before us: its file is searched among those that could have it.
func (d *Dir) place(number uint64) (at place, cpu int, err error) {
	if !Has(number) {
		return place{}, -1, unix.ENOENT
	}
	k, cpu := take(number)
	d.mu.RLock()
	at, ok := d.places[k]
	d.mu.RUnlock()
	if ok {
		return at, cpu, nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	roots := []string{""}
	if cpu >= 0 {
		roots = roots[:0]
		for _, prefix := range prefixes {
			roots = append(roots, place{prefix: prefix}.path(cpu))
		}
	}
	for _, root := range roots {
		if file, ok := d.search(b, root, number); ok {
			at, _ := split(file)
			return at, cpu, d.learn(at)
		}
	}
	return place{}, -1, unix.ENOENT
}

// search goes through the directory dir for the path of a number. At the top it leaves out the directories with a CPU's number, which have other numbers.
func (d *Dir) search(b *kfile.Buffer, dir string, want uint64) (string, bool) {
	var st unix.Stat_t
	if n, _ := number(dir); n == want && d.stat(dir, &st) == nil {
		return dir, true
	}
	_, cpu := take(want)
	entries, err := d.host.List(b, dir)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		file := path.Join(dir, e.Name())
		if _, of := split(file); of != cpu {
			continue
		}
		if e.IsDir() {
			if found, ok := d.search(b, file, want); ok {
				return found, true
			}
		} else if n, _ := number(file); n == want && d.stat(file, &st) == nil {
			return file, true
		}
	}
	return "", false
}

// Find gives the number of a path that a person wrote, as in "cpu1/online".
func (d *Dir) Find(file string, c *cgroupview.Container) (uint64, error) {
	dir := Top
	for name := range strings.SplitSeq(file, "/") {
		var st unix.Stat_t
		n, _, err := d.Lookup(dir, name, c, &st)
		if err != nil {
			return 0, err
		}
		dir = n
	}
	return dir, nil
}
