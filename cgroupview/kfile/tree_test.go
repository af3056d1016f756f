package kfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTree: a tree shows links as links, and never what is behind them.
func TestTree(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tree")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub/file"), []byte("text\n"), 0o640),
		os.Symlink("sub", filepath.Join(dir, "link")), os.Symlink("..", filepath.Join(dir, "up")), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b Buffer
	for name, want := range map[string]uint32{"": unix.S_IFDIR | 0o755, "sub/file": unix.S_IFREG | 0o640, "link": unix.S_IFLNK | 0o777, "fifo": unix.S_IFIFO | 0o600} {
		var st unix.Stat_t
		if err := d.Stat(&b, name, &st); err != nil || st.Mode != want {
			t.Errorf("%q: mode %o, want %o, %v", name, st.Mode, want, err)
		}
	}
	for _, name := range []string{"link/file", "up/tree", "../tree", "none", "sub/file/x"} {
		var st unix.Stat_t
		if err := d.Stat(&b, name, &st); err == nil {
			t.Errorf("%s: mode %o", name, st.Mode)
		}
	}
	if target, err := d.Target(&b, "link"); target != "sub" || err != nil {
		t.Errorf("link: %q, %v", target, err)
	}
	for _, name := range []string{"sub", "sub/file", "none"} {
		if target, err := d.Target(&b, name); err == nil {
			t.Errorf("%s leads to %q", name, target)
		}
	}
	if list, err := d.List(&b, "sub"); err != nil || len(list) != 1 || list[0].Name() != "file" {
		t.Errorf("sub: %v, %v", list, err)
	}
	for name, want := range map[string]error{"link": unix.ELOOP, "sub/file": unix.ENOTDIR, "none": unix.ENOENT, "fifo": unix.ENOTDIR, "..": unix.EXDEV} {
		if list, err := d.List(&b, name); err != want {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	if _, err := d.Read(&b, "", "link/file"); err != unix.ELOOP {
		t.Errorf("read through a link: %v", err)
	}
	if got := b.Numbered("cpu", 12); got != "cpu12" {
		t.Errorf("numbered: %q", got)
	}
}
