package keeper

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"lensfs/fs/conn"

	"golang.org/x/sys/unix"
)

// Handover is all that a worker needs to go on where another was, and a keeper to take the place of another. It means something together with the
// descriptors that it names.
type Handover struct {
	Format   int
	StateDir string
	Tree     Mount
	Views    *Mount `json:",omitempty"`
	Unveiled bool   // containers are shown the host's values
	Names    []string
}

// handoverFormat changes when an older or newer version could not read it, or the memory that it speaks of.
const handoverFormat = 1

// Mount is one connection with the kernel.
type Mount struct {
	Dir    string
	ID     int    // in /proc/self/mountinfo
	Device string // major:minor, as there
	Agreed conn.Agreed
}

// The names of the descriptors.
const (
	FdTree          = "tree" // of /dev/fuse
	FdViews         = "views"
	FdTreeRequests  = "tree-requests" // memory, see conn.Slots
	FdViewsRequests = "views-requests"
	FdOpened        = "opened" // memory, see fs
	FdTexts         = "texts"
	fdTreeClaim     = "tree-claim"
	fdViewsClaim    = "views-claim"
	fdControl       = "control"
	fdLife          = "life" // when a worker is adopted: the reading end of its pipe, see Holder
)

// Descriptors are a process's own, by name.
type Descriptors map[string]int

// named gives the handover with the names of the descriptors, and these in their order.
func (h Handover) named(d Descriptors) (Handover, []int) {
	h.Names = slices.Sorted(maps.Keys(d))
	var fds []int
	for _, name := range h.Names {
		fds = append(fds, d[name])
	}
	return h, fds
}

// descriptors gives the names back to what came with a handover. It closes them on an error.
func (h *Handover) descriptors(fds []int) (Descriptors, error) {
	d := Descriptors{}
	for i, fd := range fds {
		if i < len(h.Names) {
			d[h.Names[i]] = fd
		} else {
			unix.Close(fd)
		}
	}
	if err := h.check(d); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (h *Handover) check(d Descriptors) error {
	if h.Format != handoverFormat {
		return fmt.Errorf("what is to be taken over has format %d, and this version of lensfs knows %d", h.Format, handoverFormat)
	}
	needed := []string{FdTree, FdTreeRequests, FdOpened, FdTexts}
	if err := h.Tree.Agreed.Suits(); err != nil {
		return err
	}
	if h.Views != nil {
		if err := h.Views.Agreed.Suits(); err != nil {
			return err
		}
		needed = append(needed, FdViews, FdViewsRequests)
	}
	for _, name := range needed {
		if _, ok := d[name]; !ok {
			return errors.New("what is to be taken over has no descriptor called " + name)
		}
	}
	return nil
}

func (d Descriptors) close() {
	for _, fd := range d {
		unix.Close(fd)
	}
	clear(d)
}

// memory makes memory that lives as long as anybody holds it.
func memory(name string, size int64) (int, error) {
	fd, err := unix.MemfdCreate("lensfs-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memory for %s: %w", name, err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memory for %s: %w", name, err)
	}
	return fd, nil
}
