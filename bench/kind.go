package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// kind is one way to come to a text: one of the things compared.
type kind struct {
	Name   string // in report.json and on the command line
	Title  string // for people
	source string // see root.Source
	views  bool   // shows each container its own numbers
	server *server
}

const (
	kernel = "kernel"
	tmpfs  = "tmpfs"
	empt   = "empty-fuse"
	lxcfs  = "lxcfs"
	shared = "shared"
	own    = "own"
)

// titles of the kinds, in the order in which they are listed everywhere.
var titles = []struct{ kind, title string }{
	{kernel, "kernel's own file"},
	{tmpfs, "file on tmpfs"},
	{empt, "empty FUSE file"},
	{lxcfs, "LXCFS"},
	{shared, "lensfs shared tree"},
	{own, "lensfs own view"},
}

func title(kind string) string {
	for _, t := range titles {
		if t.kind == kind {
			return t.title
		}
	}
	return kind
}

const sourceCopy = "copy"

// startKinds starts the servers and fills in b.kinds. What cannot be had is skipped, with a word in the report.
func (b *bench) startKinds() error {
	add := func(name, source string, views bool, s *server) {
		b.kinds = append(b.kinds, &kind{Name: name, Title: title(name), source: source, views: views, server: s})
	}
	add(kernel, "", false, nil)
	add(tmpfs, sourceCopy, false, nil)

	dir := filepath.Join(b.dir, "empty")
	cmd := exec.Command("/proc/self/exe", append([]string{dir}, b.files...)...)
	cmd.Args[0] = "bench-empty"
	cmd.Env = append(os.Environ(), roleVar+"=empty")
	s, err := b.serve(empt, []string{dir}, cmd)
	if err != nil {
		return err
	}
	add(empt, dir, false, s)

	switch s, dir, err := b.startLXCFS(); {
	case err != nil:
		b.report.skip("LXCFS: %v", err)
	default:
		add(lxcfs, dir, true, s)
	}

	l, err := b.startLensfs("lensfs")
	if err != nil {
		return err
	}
	add(shared, l.tree, true, l.server)
	add(own, filepath.Join(l.views, "self"), true, l.server)
	return nil
}

// serve starts a daemon that is ended with the run.
func (b *bench) serve(name string, mounts []string, cmd *exec.Cmd) (*server, error) {
	s, err := startServer(b.ctx, name, mounts, cmd)
	if err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	return s, nil
}

// startLXCFS starts it on a mount point of its own; it does not mind another that serves this host.
func (b *bench) startLXCFS() (*server, string, error) {
	if b.lxcfs == "" {
		return nil, "", errors.New("not asked for")
	}
	program, err := exec.LookPath(b.lxcfs)
	if err != nil {
		return nil, "", fmt.Errorf("%w (Debian's package lxcfs has it)", err)
	}
	env := append(os.Environ(), unpacked(program)...)
	version := exec.Command(program, "--version")
	version.Env = env
	out, err := version.Output()
	if err != nil {
		return nil, "", fmt.Errorf("%s --version: %w", filepath.Base(program), err)
	}
	b.report.Versions[lxcfs] = strings.Trim(string(out), "\" \n")
	dir := filepath.Join(b.dir, "lxcfs")
	cmd := exec.Command(program, "-f", "--enable-cfs", "-l", "-p", filepath.Join(b.dir, "lxcfs.pid"), dir)
	cmd.Env = env
	s, err := b.serve(lxcfs, []string{dir}, cmd)
	return s, dir, err
}

// unpacked gives the environment in which a program from a package that was unpacked, not installed, finds its libraries: they are beside it.
func unpacked(program string) []string {
	root := filepath.Dir(filepath.Dir(filepath.Dir(program))) // of ROOT/usr/bin/lxcfs
	var dirs []string
	for _, lib := range []string{"usr/lib/*/lxcfs/liblxcfs.so", "usr/lib/*/libfuse3.so.*", "lib/*/libfuse3.so.*"} {
		found, _ := filepath.Glob(filepath.Join(root, lib))
		for _, f := range found {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	if root == "/" || len(dirs) == 0 {
		return nil
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(append(dirs, os.Getenv("LD_LIBRARY_PATH")), ":")}
}

type lensfsServer struct {
	*server
	tree, views string
}

// startLensfs starts a lensfs of this name, with directories of its own.
func (b *bench) startLensfs(name string, flags ...string) (lensfsServer, error) {
	dir := filepath.Join(b.dir, name)
	l := lensfsServer{tree: filepath.Join(dir, "tree"), views: filepath.Join(dir, "views")}
	args := append([]string{"serve", "--tree", l.tree, "--views", l.views, "--runtime-dir", dir}, flags...)
	var err error
	l.server, err = b.serve(name, []string{l.tree, l.views}, exec.Command(b.lensfs, args...))
	return l, err
}

// sane checks that what is about to be measured is what it is taken for: every kind of view shows the container's memory limit.
func sane(shown map[string]map[string]string, l limits, kinds []*kind) error {
	for _, k := range kinds {
		text, ok := shown[k.Name]["proc/meminfo"]
		if !ok || !k.views {
			continue
		}
		total, err := memTotal(text)
		if err != nil {
			return fmt.Errorf("%s: %w", k.Title, err)
		}
		if total != l.memory {
			return fmt.Errorf("%s shows a MemTotal of %d bytes in a container with %d", k.Title, total, l.memory)
		}
	}
	return nil
}

func memTotal(meminfo string) (bytes int64, err error) {
	for s := bufio.NewScanner(strings.NewReader(meminfo)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 3 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no MemTotal in a text of %d bytes", len(meminfo))
}

// versionOf asks a program.
func versionOf(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "lensfs version ")
}
