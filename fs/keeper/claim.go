package keeper

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// claim is the right to serve a directory: a locked file beside all the others in the state directory. The lock goes with the process, however it ends.
type claim struct{ file *os.File }

// errTaken says who has a claim.
type errTaken struct{ dir, pid string }

func (e *errTaken) Error() string {
	return fmt.Sprintf("%s is served already, by lensfs process %s: stop that one, or choose another directory", e.dir, e.pid)
}

// newClaim claims dir. If somebody has it, the error is an errTaken.
func newClaim(stateDir, dir string) (*claim, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, err
	}
	path := claimPath(stateDir, dir)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer file.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			return nil, &errTaken{dir, holder(file)}
		}
		if !isAt(file, path) {
			file.Close() // its last holder removed it between our opening and our locking
			continue
		}
		c := &claim{file}
		if err := c.sign(); err != nil {
			file.Close()
			return nil, err
		}
		return c, nil
	}
}

// takenOver makes a claim of the descriptor of one that another process had.
func takenOver(stateDir, dir string, fd int) (*claim, error) {
	c := &claim{os.NewFile(uintptr(fd), claimPath(stateDir, dir))}
	return c, c.sign()
}

func claimPath(stateDir, dir string) string {
	return filepath.Join(stateDir, url.PathEscape(dir)+".lock")
}

// sign writes down that it is this process's.
func (c *claim) sign() error {
	if err := errors.Join(c.file.Truncate(0), writePid(c.file)); err != nil {
		return fmt.Errorf("%s: %w", c.file.Name(), err)
	}
	return nil
}

// release gives the claim up and removes its file; the state directory too when it was the last.
func (c *claim) release() error {
	if c == nil {
		return nil
	}
	err := os.Remove(c.file.Name())
	os.Remove(filepath.Dir(c.file.Name())) // fails while other claims are in it
	return errors.Join(err, c.file.Close())
}

func holder(file *os.File) string {
	text := make([]byte, 32)
	n, _ := file.ReadAt(text, 0)
	if pid := strings.TrimSpace(string(text[:n])); pid != "" {
		return pid
	}
	return "that is just starting"
}

func isAt(file *os.File, path string) bool {
	a, err1 := file.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

func writePid(file *os.File) error {
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
