package kfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func walk(d *Dir, w *Walker, b *Buffer, dir string, most int) []string {
	var got []string
	for w.Start(dir, most); ; {
		dir, ok := w.Next(d, b)
		if !ok {
			return got
		}
		got = append(got, strings.Clone(dir))
	}
}

func TestWalk(t *testing.T) {
	long := strings.Repeat("n", 200)
	d := openDir(t, map[string]string{
		"a/file": "", "a/b/c/d/file": "", "a/x/file": "", "other/file": "", "a/out": "-> ../../beside", "a/in": "-> b", "long/" + long + "/file": "",
	})
	if err := os.MkdirAll(filepath.Join(d.Path(), "../beside/secret"), 0o755); err != nil {
		t.Fatal(err)
	}
	var b Buffer
	var w Walker
	for _, test := range []struct {
		dir  string
		most int
		want string
		cut  bool
	}{
		{"/a", 100, "/a /a/b /a/x /a/b/c /a/b/c/d", false},
		{"a/b", 100, "a/b a/b/c a/b/c/d", false},
		{"a/x", 1, "a/x", false},
		{"a/b", 2, "a/b a/b/c", true},
		{"a/b", 3, "a/b a/b/c a/b/c/d", false},
		{"a/gone", 100, "a/gone", false},
		{"a/out", 100, "a/out", false},
		{"../beside", 100, "../beside", false},
		{"long", 100, "long long/" + long, false},
	} {
		got := walk(d, &w, &b, test.dir, test.most)
		slices.SortFunc(got, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
		if test.dir == "/a" {
			slices.Sort(got[1:3])
		}
		if s := strings.Join(got, " "); s != test.want || w.Cut != test.cut {
			t.Errorf("%s, %d: got %s, %v; want %s, %v", test.dir, test.most, s, w.Cut, test.want, test.cut)
		}
	}
	if got := walk(d, &w, &b, "", 100); len(got) != 9 || got[0] != "" || !slices.Contains(got, "/a/b/c/d") {
		t.Errorf("the directory itself: %q", got)
	}
}

// TestWalkMany has more directories than one getdents(2) gives.
func TestWalkMany(t *testing.T) {
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("a/directory%d/file", i)] = ""
	}
	d := openDir(t, files)
	var b Buffer
	var w Walker
	got := walk(d, &w, &b, "a", 1000)
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 501 {
		t.Errorf("%d directories", len(got))
	}
	if got := walk(d, &w, &b, "a", 100); len(got) != 100 || !w.Cut {
		t.Errorf("%d directories, cut %v", len(got), w.Cut)
	}
}

// TestWalkTooDeep makes directories deeper than a path can be.
func TestWalkTooDeep(t *testing.T) {
	d := openDir(t, map[string]string{"a/file": ""})
	name := strings.Repeat("n", 250)
	fd, err := unix.Open(filepath.Join(d.Path(), "a"), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range 20 {
		if err != nil {
			t.Fatal(err)
		}
		if err = unix.Mkdirat(fd, name, 0o755); err == nil {
			below, err2 := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
			fd, err = below, err2
		}
	}
	unix.Close(fd)
	var b Buffer
	var w Walker
	if got := walk(d, &w, &b, "a", 100); len(got) != 1+16 || !w.Cut {
		t.Errorf("%d directories, cut %v", len(got), w.Cut)
	}
}

func TestWalkAllocs(t *testing.T) {
	d := openDir(t, map[string]string{"a/b/c/file": "", "a/d/file": "", "a/a name that is longer than what a string conversion takes from the stack/file": ""})
	var b Buffer
	var w Walker
	all := func() {
		for w.Start("a", 100); ; {
			if _, ok := w.Next(d, &b); !ok {
				return
			}
		}
	}
	all()
	if n := testing.AllocsPerRun(100, all); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHead(t *testing.T) {
	huge := strings.Repeat("0123456789abcde\n", 1<<12)
	d := openDir(t, map[string]string{"a/file": "120\n121\n", "huge": huge, "empty": "", "out": "-> /proc/version"})
	var b Buffer
	for _, test := range []struct {
		dir, name string
		most      int
		want      string
		all       bool
		err       error
	}{
		{"a", "file", 100, "120\n121\n", true, nil},
		{"a", "file", 9, "120\n121\n", true, nil},
		{"a", "file", 8, "120\n121\n", false, nil},
		{"a", "file", 6, "120\n12", false, nil},
		{"", "huge", 1 << 20, huge, true, nil},
		{"", "huge", 5000, huge[:5000], false, nil},
		{"", "empty", 10, "", true, nil},
		{"", "gone", 10, "", false, unix.ENOENT},
		{"", "out", 10, "", false, unix.EXDEV},
		{"", "a", 10, "", false, unix.EISDIR},
	} {
		got, all, err := d.Head(&b, test.dir, test.name, test.most)
		if string(got) != test.want || all != test.all || err != test.err {
			t.Errorf("%s/%s, %d: %d bytes, %v, %v", test.dir, test.name, test.most, len(got), all, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { d.Head(&b, "", "huge", 1<<20) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTask(t *testing.T) {
	var b Buffer
	for tid, want := range map[uint32]string{7: "7/task/7", 4294967295: "4294967295/task/4294967295"} {
		if got := b.Task(tid); got != want {
			t.Errorf("%d: %s", tid, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { b.Task(4294967295) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
