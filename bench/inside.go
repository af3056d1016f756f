package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// inside is the life of a container's process: set up when told, then do as ordered until nobody is there to order.
func inside() int {
	orders, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var s setup
	if err := orders.Decode(&s); err != nil {
		return 1 // whoever started us has gone
	}
	r, err := enter(s)
	for {
		if err != nil {
			r.Error = err.Error()
		}
		if answers.Encode(r) != nil {
			return 1
		}
		var o order
		if orders.Decode(&o) != nil {
			return 0
		}
		r, err = o.do(s.Base)
	}
}

// enter makes the roots and shows what is in them.
func enter(s setup) (r reply, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return r, fmt.Errorf("make the mounts private: %w", err)
	}
	// A view is bound by its path in the mounts that this process was born with: self leads each container to its own.
	if err := unix.Mount("roots", s.Base, "tmpfs", 0, "size=8m"); err != nil {
		return r, fmt.Errorf("mount on %s: %w", s.Base, err)
	}
	r.Texts = map[string]map[string]string{}
	for _, root := range s.Roots {
		if err := root.make(s); err != nil {
			return r, fmt.Errorf("%s: %w", root.Kind, err)
		}
		r.Texts[root.Kind] = map[string]string{}
		for _, file := range s.Files {
			text, err := readText(filepath.Join(s.Base, root.Kind, file))
			if err == nil && root.has(file) {
				r.Texts[root.Kind][file] = text
			} else if err != nil && !errors.Is(err, unix.ENOENT) {
				return r, err
			}
		}
	}
	return r, nil
}

// make mounts a root's own proc and sys and binds the files of its kind over them.
func (r root) make(s setup) error {
	dir := filepath.Join(s.Base, r.Kind)
	for name, fs := range map[string]string{"proc": "proc", "sys": "sysfs"} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount(fs, at, fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")); err != nil {
			return fmt.Errorf("mount on %s: %w", at, err)
		}
	}
	if r.Source == "" {
		return nil
	}
	source := r.Source
	if source == sourceCopy {
		source = filepath.Join(s.Base, "texts")
		if err := copyTexts(s.Files, dir, source); err != nil {
			return err
		}
	}
	for _, file := range s.Files {
		err := unix.Mount(filepath.Join(source, file), filepath.Join(dir, file), "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) { // not every server has every file
			return fmt.Errorf("bind %s: %w", filepath.Join(source, file), err)
		}
	}
	return nil
}

// has says whether a file of the root is this kind's, and not the kernel's that is there without it.
func (r root) has(file string) bool {
	if r.Source == "" || r.Source == sourceCopy {
		return true
	}
	var st unix.Stat_t
	return unix.Stat(filepath.Join(r.Source, file), &st) == nil
}

func copyTexts(files []string, from, to string) error {
	for _, file := range files {
		text, err := readText(filepath.Join(from, file))
		if err != nil {
			return err
		}
		at := filepath.Join(to, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o444)); err != nil {
			return err
		}
	}
	return nil
}

// readText reads a file to its end.
func readText(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var text []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return string(text), nil
		}
		text = append(text, buf[:n]...)
	}
}
