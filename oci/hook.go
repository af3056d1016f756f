package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cpuDir has files that are a container's own, online and offline; the rest of it is in the shared tree.
const cpuDir = "sys/devices/system/cpu"

// BindAll is the work of the createContainer hook. Such a hook is run in the container's namespaces, after the runtime's own mounts and before
// pivot_root, and what it mounts no runtime judges. State is what the runtime gives it on standard input (the OCI's State, as JSON), views the directory
// of the own views, files what fs.Paths has. What cannot be bound is told of in the error; the container keeps the host's then.
func BindAll(state io.Reader, views string, files []string) error {
	root, err := openRoot(state)
	if err != nil {
		return fmt.Errorf("where the container's root is: %w", err)
	}
	defer root.Close()
	self := filepath.Join(views, "self")
	if _, err := os.Stat(filepath.Join(self, "proc")); err != nil {
		return fmt.Errorf("does \"lensfs serve\" run? %w", err)
	}
	c := &container{root: root}
	// The directory of CPUs first: files of it are bound over it then. Its other files are links to the shared tree.
	if uevent, err := filepath.EvalSymlinks(filepath.Join(self, cpuDir, "uevent")); err == nil {
		c.bind(filepath.Dir(uevent), cpuDir)
	}
	for _, f := range files {
		c.bind(filepath.Join(self, f), f)
	}
	return errors.Join(c.errs...)
}

// openRoot opens the container's root, where the runtime has mounted all that belongs to it.
func openRoot(state io.Reader) (*os.File, error) {
	var s specs.State
	if err := json.NewDecoder(io.LimitReader(state, maxJSON)).Decode(&s); err != nil {
		return nil, fmt.Errorf("the state on standard input: %w", err)
	}
	if s.Bundle == "" {
		return nil, errors.New("the state on standard input names no bundle: an OCI runtime starts this command as a hook")
	}
	path, err := rootOf(s.Bundle)
	var root *os.File
	if err == nil {
		root, err = openDir(path)
	}
	if !errors.Is(err, os.ErrPermission) {
		return root, err
	}
	// Podman keeps bundles where a mapped root may not look. runc is in the root already when it runs hooks.
	if root, cwdErr := openDir("."); cwdErr == nil {
		if isMount(root) {
			return root, nil
		}
		root.Close()
	}
	return nil, err
}

// rootOf reads in a bundle's configuration where the root is.
func rootOf(bundle string) (string, error) {
	config, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", err
	}
	defer config.Close()
	var spec struct {
		Root *specs.Root `json:"root"`
	}
	if err := json.NewDecoder(io.LimitReader(config, maxJSON)).Decode(&spec); err != nil {
		return "", fmt.Errorf("%s: %w", config.Name(), err)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return "", fmt.Errorf("%s names no root", config.Name())
	}
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path, nil
	}
	return filepath.Join(bundle, spec.Root.Path), nil
}

func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// isMount says whether a directory is where something is mounted, and not our own root.
func isMount(dir *os.File) bool {
	var st, own unix.Statx_t
	err := errors.Join(unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st), unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_MNT_ID, &own))
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Mnt_id != own.Mnt_id
}

const maxJSON = 16 << 20 // bytes; Kubernetes' config.json files have some 30 KB

// container is one that is being made.
type container struct {
	root *os.File
	errs []error
}

// bind binds source over target in the container, if it has that.
func (c *container) bind(source, target string) {
	if err := c.tryBind(source, target); err != nil {
		c.errs = append(c.errs, fmt.Errorf("/%s stays the host's: %w", target, err))
	}
}

func (c *container) tryBind(source, target string) error {
	// What is below the root comes from an image: no link in it is followed.
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	to, err := unix.Openat2(int(c.root.Fd()), target, &how)
	if errors.Is(err, unix.ENOENT) {
		return nil // this kernel, or this container, has no such file
	}
	if err != nil {
		return err
	}
	defer unix.Close(to)
	from, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if errors.Is(err, unix.ENOENT) {
		return nil // this daemon has none: pressure on cgroup v1
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if same, err := sameFile(from, to); err != nil || same {
		return err // bound already: the container was given a device with mounts too
	}
	if err := kernels(to, target); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(from, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return err
	}
	return unix.MoveMount(from, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func sameFile(a, b int) (bool, error) {
	var st, other unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &st), unix.Fstat(b, &other)); err != nil {
		return false, err
	}
	return st.Dev == other.Dev && st.Ino == other.Ino, nil
}

// kernels wants a file of the kernel's: a container without /proc has, at that place, a file of its image, and that is none of ours.
func kernels(fd int, target string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Type == unix.PROC_SUPER_MAGIC, st.Type == unix.SYSFS_MAGIC:
		return nil
	case st.Type == unix.FUSE_SUPER_MAGIC && strings.HasPrefix(target, cpuDir+"/"):
		return nil // in the directory that was bound just now
	}
	return errors.New("it is no file of the kernel's here")
}
