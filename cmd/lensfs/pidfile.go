package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pidfile is a file with our process number, locked as LXCFS locks its own: neither writes over the other's. nil is none.
type pidfile struct{ file *os.File }

func writePidfile(path string) (*pidfile, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		defer file.Close()
		pid := make([]byte, 16)
		n, _ := file.ReadAt(pid, 0)
		return nil, fmt.Errorf("%s is held by process %q: give another --pidfile (%w)", path, firstLine(pid[:n]), err)
	}
	if err := errors.Join(file.Truncate(0), write(file, fmt.Sprintln(os.Getpid()))); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &pidfile{file}, nil
}

// remove takes the file away: it is ours, for we hold its lock.
func (p *pidfile) remove() error {
	if p == nil {
		return nil
	}
	return errors.Join(os.Remove(p.file.Name()), p.file.Close())
}

func write(file *os.File, s string) error {
	_, err := file.WriteAt([]byte(s), 0)
	return err
}

func firstLine(b []byte) string {
	for i, c := range b {
		if c == '\n' {
			return string(b[:i])
		}
	}
	return string(b)
}
