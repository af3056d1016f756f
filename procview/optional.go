package procview

import (
	"errors"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// optional are the files of /proc that a kernel may lack, or may not let us read.
type optional struct {
	diskstats text
	swaps     text
	pressure  [cgroupview.Pressures]text
	slabinfo  []byte // its two lines of header, which stay as they are

	absent map[string]bool
}

// Has says whether containers are to have the file of /proc called name: "swaps", "pressure/io". They do not have one that the host's kernel
// does not show us, nor a pressure that is not counted for them (psi=0, cgroup v1); without any, not the directory "pressure" either.
// The answer is that of the start.
func (o *optional) Has(name string) bool { return !o.absent[name] }

func (o *optional) open(proc *kfile.Dir, r *cgroupview.Resolver) error {
	o.absent = map[string]bool{}
	o.diskstats.name = "diskstats"
	o.swaps.name = "swaps"
	texts := []*text{&o.diskstats, &o.swaps}
	for p := range cgroupview.Pressures {
		t := &o.pressure[p]
		t.name = "pressure/" + p.String()
		if r.HasPressure(p) {
			texts = append(texts, t)
		} else {
			o.absent[t.name] = true
		}
	}
	for _, t := range texts {
		if err := o.probe(t, proc); err != nil {
			return err
		}
	}
	o.absent["pressure"] = true
	for p := range o.pressure {
		o.absent["pressure"] = o.absent["pressure"] && o.absent[o.pressure[p].name]
	}
	slabinfo := text{name: "slabinfo"}
	if err := o.probe(&slabinfo, proc); err != nil {
		return err
	}
	o.slabinfo = slabinfoHeader(slabinfo.data)
	return nil
}

// probe reads a file for the first time. Not there, not for us and not switched on are no errors:
// a kernel with PSI_DEFAULT_DISABLED shows its files, and has EOPNOTSUPP for who reads them (github.com/netdata/netdata/issues/7531).
func (o *optional) probe(t *text, proc *kfile.Dir) error {
	err := t.read(proc)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		o.absent[t.name] = true
		return nil
	}
	return uncovered(err)
}
