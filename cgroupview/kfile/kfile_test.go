package kfile

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openDir makes a directory with files in it; a text that starts with "-> " is a link.
func openDir(t testing.TB, files map[string]string) *Dir {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return open(t, root, true)
}

func open(t testing.TB, path string, sameMount bool) *Dir {
	t.Helper()
	d, err := Open(path, sameMount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestRead(t *testing.T) {
	huge := strings.Repeat("0123456789abcde\n", 1<<16)
	d := openDir(t, map[string]string{
		"file": "text\n", "empty": "", "a/b/file": "deep\n", "4096": huge[:4096], "huge": huge,
		"link": "-> a/b/file", "a/up": "-> ../file", "loop": "-> loop", "out": "-> ../beside", "absolute": "-> /proc/version",
	})
	if err := os.WriteFile(filepath.Join(d.Path(), "../beside"), []byte("not yours\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b Buffer
	for _, test := range []struct {
		dir, name, want string
		err             error
	}{
		{"", "file", "text\n", nil},
		{"", "empty", "", nil},
		{"a/b", "file", "deep\n", nil},
		{"/a/b", "file", "deep\n", nil},
		{"//a//b", "file", "deep\n", nil},
		{"a/b/file", "", "deep\n", nil},
		{"", "4096", huge[:4096], nil}, // as long as what is asked for at first
		{"", "huge", huge, nil},
		{"", "file", "text\n", nil}, // nothing is left of a longer one
		{"", "link", "deep\n", nil},
		{"a", "up", "text\n", nil},
		{"", "a/../file", "text\n", nil},
		{"", "none", "", unix.ENOENT},
		{"none", "file", "", unix.ENOENT},
		{"file", "x", "", unix.ENOTDIR},
		{"", "", "", unix.EISDIR},
		{"", "loop", "", unix.ELOOP},
		{"", "../beside", "", unix.EXDEV},
		{"..", "beside", "", unix.EXDEV},
		{"a/../..", "beside", "", unix.EXDEV},
		{"", "out", "", unix.EXDEV},
		{"", "absolute", "", unix.EXDEV},
	} {
		text, err := d.Read(&b, test.dir, test.name)
		if string(text) != test.want || !errors.Is(err, test.err) {
			t.Errorf("%q, %q: got %.20q, %v; want %.20q, %v", test.dir, test.name, text, err, test.want, test.err)
		}
	}
}

func TestAppend(t *testing.T) {
	d := openDir(t, map[string]string{"file": "text\n"})
	var b Buffer
	for _, dst := range [][]byte{nil, []byte("before "), make([]byte, 3, 3+5), make([]byte, 0, 1)} {
		got, err := d.Append(&b, dst, "", "file")
		if err != nil || string(got) != string(dst)+"text\n" {
			t.Errorf("after %q: got %q, %v", dst, got, err)
		}
	}
	if got, err := d.Append(&b, []byte("before"), "", "none"); string(got) != "before" || err != unix.ENOENT {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestReadEndless has a file without an end stopped.
func TestReadEndless(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 64 MiB")
	}
	var b Buffer
	if text, err := open(t, "/dev", false).Read(&b, "", "zero"); err != unix.EFBIG || len(text) != 0 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	b.Put() // must not be lent again
	if got := GetBuffer(); cap(got.text) > 1<<20 {
		t.Errorf("a buffer of %d bytes is kept", cap(got.text))
	}
}

// TestOtherMount reads /proc as seen from the root directory: another mount.
func TestOtherMount(t *testing.T) {
	var b Buffer
	if _, err := open(t, "/", true).Read(&b, "proc", "version"); err != unix.EXDEV {
		t.Errorf("of the same mount: %v, want EXDEV", err)
	}
	if _, err := open(t, "/", false).Read(&b, "proc", "version"); err != nil {
		t.Errorf("of any mount: %v", err)
	}
}

// TestMagicLink does not follow what looks like a link but leads to an open file.
func TestMagicLink(t *testing.T) {
	var b Buffer
	if _, err := open(t, "/proc/self", false).Read(&b, "", "exe"); err != unix.ELOOP {
		t.Errorf("%v, want ELOOP", err)
	}
}

func TestReadlink(t *testing.T) {
	long := strings.Repeat("x", 250)
	d := openDir(t, map[string]string{"file": "text", "1/ns/pid": "-> pid:[4026531836]", "long": "-> " + long})
	var b Buffer
	for range 2 { // the second time into a buffer in use
		if got, err := d.Readlink(&b, "1", "ns/pid"); string(got) != "pid:[4026531836]" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got, err := d.Readlink(&b, "", "long"); string(got) != long || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := d.Readlink(&b, "2", "ns/pid"); err != unix.ENOENT {
			t.Errorf("none: %v", err)
		}
		if _, err := d.Readlink(&b, "", "file"); err != unix.EINVAL {
			t.Errorf("not a link: %v", err)
		}
		if text, err := d.Read(&b, "", "file"); string(text) != "text" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
	}
}

func TestPid(t *testing.T) {
	var b Buffer
	for pid, want := range map[uint32]string{0: "0", 1: "1", 4194304: "4194304", math.MaxUint32: "4294967295"} {
		if got := b.Pid(pid); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestExists(t *testing.T) {
	d := openDir(t, map[string]string{"a/file": "", "out": "-> .."})
	var b Buffer
	for dir, want := range map[string]bool{"a": true, "/a": true, "": true, "b": false, "a/b": false, "out": true} {
		if got := d.Exists(&b, dir); got != want {
			t.Errorf("%q: got %v", dir, got)
		}
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	if _, err := Open("/nonexistent/dir", false); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/dir") {
		t.Error(err)
	}
	d := openDir(t, map[string]string{"file": "text"})
	want := filepath.Join(d.Path(), "dir/name")
	if _, err := d.OpenFile("dir", "name"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if err := d.Wrap(unix.ENODEV, "dir", "name"); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	if err := d.Wrap(nil, "dir", "name"); err != nil {
		t.Error(err)
	}
	fd, err := d.OpenFile("", "file")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

func TestAllocs(t *testing.T) {
	d := openDir(t, map[string]string{"a/file": strings.Repeat("text\n", 1000), "a/link": "-> b"})
	b := &Buffer{}
	if n := testing.AllocsPerRun(100, func() {
		d.Read(b, "a", "file")
		d.Read(b, "a", "none")
		d.Readlink(b, b.Pid(7), "link")
		d.Readlink(b, "a", "link")
		d.Exists(b, "a")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRead(b *testing.B) {
	d := openDir(b, map[string]string{"file": strings.Repeat("x", 1500)})
	var buf Buffer
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Read(&buf, "", "file"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOSReadFile(b *testing.B) {
	d := openDir(b, map[string]string{"file": strings.Repeat("x", 1500)})
	path := filepath.Join(d.Path(), "file")
	b.ReportAllocs()
	for b.Loop() {
		if text, err := os.ReadFile(path); err != nil || bytes.IndexByte(text, 'y') >= 0 {
			b.Fatal(err)
		}
	}
}
