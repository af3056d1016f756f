package keeper

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// claim is the right to serve a directory: a locked file beside all the others in the state directory. The lock goes with the process, however it ends.
type claim struct {
	file *os.File
	dir  string
	// device is what is mounted on the directory, as in /proc/self/mountinfo: by us, or until then by whoever had the claim before and has ended.
	device string
}

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
		_, device := said(file)
		c := &claim{file, dir, device}
		if err := c.sign(); err != nil {
			file.Close()
			return nil, err
		}
		return c, nil
	}
}

// takenOver makes a claim of the descriptor of one that another process had.
func takenOver(stateDir string, m Mount, fd int) (*claim, error) {
	c := &claim{os.NewFile(uintptr(fd), claimPath(stateDir, m.Dir)), m.Dir, m.Device}
	return c, c.sign()
}

func claimPath(stateDir, dir string) string {
	return filepath.Join(stateDir, url.PathEscape(dir)+".lock")
}

// sign writes down that it is this process's, and what is mounted: two lines, whatever follows them.
func (c *claim) sign() error {
	if _, err := c.file.WriteAt(fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), c.device), 0); err != nil {
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

// said gives what the last holder of a claim wrote into it.
func said(file *os.File) (pid, device string) {
	text := make([]byte, 64)
	n, _ := file.ReadAt(text, 0)
	lines := strings.Split(string(text[:n]), "\n")
	if len(lines) < 2 {
		return "", ""
	}
	return lines[0], lines[1]
}

func holder(file *os.File) string {
	if pid, _ := said(file); pid != "" {
		return pid
	}
	return "that is just starting"
}

func isAt(file *os.File, path string) bool {
	a, err1 := file.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}
