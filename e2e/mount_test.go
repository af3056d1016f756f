package e2e

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["list"] = listing
	roles["meddle"] = meddle
}

// inOrder is how LXCFS lists a directory, as far as lensfs may have its files.
var inOrder = map[string][]string{
	"":                   {"proc", "sys", "cgroup"},
	"proc":               {"cpuinfo", "meminfo", "stat", "uptime", "diskstats", "swaps", "loadavg", "slabinfo", "pressure"},
	"proc/pressure":      {"io", "cpu", "memory"},
	"sys":                {"devices"},
	"sys/devices":        {"system"},
	"sys/devices/system": {"cpu"},
	"cgroup":             {},
}

// needed is what a directory has at the least.
var needed = map[string][]string{
	"":                       {"proc", "sys"},
	"proc":                   {"cpuinfo", "meminfo", "uptime"},
	"sys":                    {"devices"},
	"sys/devices":            {"system"},
	"sys/devices/system":     {"cpu"},
	"sys/devices/system/cpu": {"online"},
}

var modes = map[string]uint32{
	"":                       unix.S_IFDIR | 0o755,
	"proc":                   unix.S_IFDIR | 0o555,
	"sys":                    unix.S_IFDIR | 0o555,
	"sys/devices":            unix.S_IFDIR | 0o755,
	"sys/devices/system":     unix.S_IFDIR | 0o755,
	"sys/devices/system/cpu": unix.S_IFDIR | 0o755,
	"cgroup":                 unix.S_IFDIR | 0o755,
}

func TestDirectories(t *testing.T) {
	needRoot(t)
	for _, flags := range [][]string{nil, {"--cgroup-dir"}} {
		d := serve(t, flags...)
		for _, limit := range [][]string{nil, {"--memory", "300M"}} { // a container without limits and one with
			d.checkDirectories(limit, flags != nil)
		}
		d.alive()
	}
}

func (d *daemon) checkDirectories(limit []string, cgroupDir bool) {
	t := d.t
	t.Helper()
	listed := map[string][]string{}
	for line := range strings.Lines(d.run(limit, asRole("list", d.tree)...)) {
		dir, name := filepath.Split(strings.TrimSpace(line))
		dir = strings.Trim(dir, "/")
		listed[dir] = append(listed[dir], name)
	}
	for dir, names := range needed {
		for _, name := range names {
			if !slices.Contains(listed[dir], name) {
				t.Errorf("%q lists %v, without %s", dir, listed[dir], name)
			}
		}
	}
	for dir, order := range inOrder {
		at := -1
		for _, name := range listed[dir] {
			i := slices.Index(order, name)
			if i <= at {
				t.Errorf("%q lists %v, not in the order %v", dir, listed[dir], order)
			}
			at = i
		}
	}
	if slices.Contains(listed[""], "cgroup") != cgroupDir {
		t.Errorf("the tree lists %v", listed[""])
	}
}

// listing checks each directory beneath a root, and prints what it lists.
func listing(args []string) error {
	return listDir(args[0], "")
}

func listDir(root, dir string) error {
	path := filepath.Join(root, dir)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if want, ok := modes[dir]; ok && st.Mode != want {
		return fmt.Errorf("%q has mode %o, not %o", dir, st.Mode, want)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := getdents(fd, 32<<10)
	if err != nil {
		return err
	}
	// The same once more in small pieces, the descriptor wound back.
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return err
	}
	again, err := getdents(fd, 64)
	if err != nil || !slices.Equal(entries, again) {
		return fmt.Errorf("%q lists %v, and in small pieces %v: %v", dir, entries, again, err)
	}
	if len(entries) < 2 || entries[0].name != "." || entries[1].name != ".." {
		return fmt.Errorf("%q begins with %v", dir, entries)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.name)
		if e.name == ".." && dir == "" {
			continue // what is above the mount is somebody else's
		}
		if err := unix.Lstat(path+"/"+e.name, &st); err != nil {
			return err
		}
		if uint32(e.kind)<<12 != st.Mode&unix.S_IFMT || e.inode != st.Ino {
			return fmt.Errorf("%s is listed as %+v, and is mode %o, inode %d", name, e, st.Mode, st.Ino)
		}
		if e.name == "." || e.name == ".." {
			continue
		}
		if e.name[0] == '.' { // LXC's hook would not bind it
			return fmt.Errorf("%s is listed", name)
		}
		fmt.Println("/" + name)
		if e.kind == unix.DT_DIR {
			if err := listDir(root, name); err != nil {
				return err
			}
		}
	}
	if err := unix.Lstat(path+"/no-such-file", &st); err != unix.ENOENT {
		return fmt.Errorf("%s/no-such-file: %v", dir, err)
	}
	return nil
}

type dirent struct {
	inode uint64
	kind  byte
	name  string
}

// getdents lists a directory with calls of one size: x/sys/unix gives the names alone.
func getdents(fd, size int) ([]dirent, error) {
	var all []dirent
	for buf := make([]byte, size); ; {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return all, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			length := endian.NativeEndian.Uint16(rest[16:])
			name, _, _ := strings.Cut(string(rest[19:length]), "\x00")
			all = append(all, dirent{endian.NativeEndian.Uint64(rest), rest[18], name})
			rest = rest[length:]
		}
	}
}

// What is tried on the tree fails as on any read-only file system, for root and for others, in the tree and where a container has it bound.
func TestReadOnly(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, root := range []string{"/", d.tree} {
		for _, uid := range []string{"0", "1000"} {
			d.run([]string{"--memory", "300M"}, asRole("meddle", root, uid)...)
		}
	}
	d.alive()
}

func meddle(args []string) error {
	root := args[0]
	uid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return err
	}
	var errs []error
	for _, name := range theFiles {
		path := filepath.Join(root, name)
		errs = append(errs, changeFile(path), useDescriptor(path))
		if _, err := os.ReadFile(path); err != nil {
			errs = append(errs, fmt.Errorf("after all that: %w", err))
		}
	}
	if root != "/" { // a container has the files alone bound: what is around them is its own kernel's
		for _, dir := range []string{"", "proc", "sys/devices/system/cpu"} {
			errs = append(errs, changeDir(filepath.Join(root, dir), filepath.Join(root, "proc/meminfo")))
		}
	}
	return errors.Join(errs...)
}

// attempt is something that is not allowed, and the error it is to fail with.
type attempt struct {
	what string
	err  error
	want unix.Errno
}

func check(path string, attempts []attempt) error {
	var errs []error
	for _, a := range attempts {
		if !errors.Is(a.err, a.want) || a.err == nil {
			errs = append(errs, fmt.Errorf("%s: %s: %v, not %v", path, a.what, a.err, a.want))
		}
	}
	return errors.Join(errs...)
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func changeFile(path string) error {
	_, errXattr := unix.Getxattr(path, "user.x", nil)
	_, errList := unix.Listxattr(path, nil)
	now := []unix.Timeval{{}, {}}
	return check(path, []attempt{
		{"open for writing", open(path, unix.O_WRONLY), unix.EROFS},
		{"open for both", open(path, unix.O_RDWR), unix.EROFS},
		{"open for appending", open(path, unix.O_WRONLY|unix.O_APPEND), unix.EROFS},
		{"open and truncate", open(path, unix.O_RDONLY|unix.O_TRUNC), unix.EROFS},
		{"create exclusively", open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL), unix.EEXIST},
		{"open as a directory", open(path, unix.O_RDONLY|unix.O_DIRECTORY), unix.ENOTDIR},
		{"truncate", unix.Truncate(path, 0), unix.EROFS},
		{"chmod", unix.Chmod(path, 0o777), unix.EROFS},
		{"chown", unix.Chown(path, 1, 1), unix.EROFS},
		{"utimes", unix.Utimes(path, now), unix.EROFS},
		{"setxattr", unix.Setxattr(path, "user.x", []byte("y"), 0), unix.EROFS},
		{"removexattr", unix.Removexattr(path, "user.x"), unix.EROFS},
		{"getxattr", errXattr, unix.EOPNOTSUPP},
		{"listxattr", errList, unix.EOPNOTSUPP},
		{"execute", unix.Exec(path, []string{path}, nil), unix.EACCES},
	})
}

func changeDir(dir, file string) error {
	fresh := filepath.Join(dir, "fresh")
	return check(dir, []attempt{
		{"create", open(fresh, unix.O_WRONLY|unix.O_CREAT), unix.EROFS},
		{"mkdir", unix.Mkdir(fresh, 0o755), unix.EROFS},
		{"mkfifo", unix.Mkfifo(fresh, 0o644), unix.EROFS},
		{"symlink", unix.Symlink("x", fresh), unix.EROFS},
		{"link", unix.Link(file, fresh), unix.EROFS},
		{"rename", unix.Rename(file, fresh), unix.EROFS},
		{"unlink", unix.Unlink(file), unix.EROFS},
		{"rmdir", unix.Rmdir(filepath.Dir(file)), unix.EROFS},
		{"chmod", unix.Chmod(dir, 0o777), unix.EROFS},
		{"open for writing", open(dir, unix.O_WRONLY), unix.EISDIR},
		{"tmpfile", open(dir, unix.O_WRONLY|unix.O_TMPFILE), unix.EROFS},
		{"truncate", unix.Truncate(dir, 0), unix.EISDIR},
		{"read as a file", readDirAsFile(dir), unix.EISDIR},
	})
}

func readDirAsFile(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Read(fd, make([]byte, 10))
	return err
}

func useDescriptor(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, errWrite := unix.Write(fd, []byte("x"))
	_, errIoctl := unix.IoctlGetTermios(fd, unix.TCGETS)
	err = check(path, []attempt{
		{"write", errWrite, unix.EBADF},
		{"ftruncate", unix.Ftruncate(fd, 0), unix.EINVAL},
		{"fallocate", unix.Fallocate(fd, 0, 0, 10), unix.EBADF},
		{"fchmod", unix.Fchmod(fd, 0o777), unix.EROFS},
		{"ioctl", errIoctl, unix.ENOTTY},
	})
	// These are allowed, and must not hang.
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, errPoll := unix.Poll(poll, 1000)
	if n != 1 || errPoll != nil || poll[0].Revents&unix.POLLIN == 0 {
		err = errors.Join(err, fmt.Errorf("%s: poll: %d %v %v", path, n, poll, errPoll))
	}
	begin := time.Now()
	err = errors.Join(err, unix.Flock(fd, unix.LOCK_SH), unix.Fsync(fd))
	if took := time.Since(begin); took > 5*time.Second {
		err = errors.Join(err, fmt.Errorf("%s: flock and fsync took %v", path, took))
	}
	return err
}
