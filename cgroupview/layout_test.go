package cgroupview

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview/kfile"

	"github.com/containerd/cgroups/v3"
	"github.com/prometheus/procfs"
)

// Layouts as parseCgroup needs them: which version each controller is.
func layoutOf(v2s ...controller) *layout {
	var l layout
	for c := range l {
		l[c] = hierarchy{dir: &kfile.Dir{}, root: "/"}
	}
	for _, c := range v2s {
		l[c].v2 = true
	}
	return &l
}

var (
	allV1  = layoutOf(unified)
	allV2  = layoutOf(memory, cpu, cpuacct, cpuset, blockIO, unified)
	mixed  = layoutOf(cpu, cpuacct, cpuset, blockIO, unified) // memory alone is v1
	partV2 = func() *layout {                                 // the daemon itself runs in a container, which has a part of the tree mounted
		l := layoutOf(memory, cpu, cpuacct, cpuset, blockIO, unified)
		for c := range l {
			l[c].root = "/docker/aa"
		}
		return l
	}()
)

func TestParseCgroup(t *testing.T) {
	same := func(path string) paths { return paths{path, path, path, path, path, path} }
	for _, test := range []struct {
		name string
		l    *layout
		text string
		want paths
	}{
		{"v2", allV2, "0::/system.slice/web.service\n", same("/system.slice/web.service")},
		{"v2, root", allV2, "0::/\n", same("/")},
		{"v2, no newline", allV2, "0::/a", same("/a")},
		{"v2, colons", allV2, "0::/a:b/cri-containerd:c::d\n", same("/a:b/cri-containerd:c::d")},
		{"v2, named v1 beside it", allV2, "1:name=systemd:/wrong\n0::/a\n", same("/a")},
		{"v2, a controller that a v1 group could not have", allV2, "5:memory:/wrong\n0::/a\n", same("/a")},
		{"v2, outside of our cgroup namespace", allV2, "0::/../b\n", same("")},
		{"v2, above it", allV2, "0::/..\n", same("")},
		{"v2, far above", allV2, "0::/../..\n", same("")},
		{"v2, a name that begins with two points", allV2, "0::/..a/b\n", same("/..a/b")},
		{"v2, removed", allV2, "0::/a (deleted)\n", same("/a (deleted)")},
		{"v1", allV1, "5:memory:/m\n4:cpuset:/s\n3:cpu,cpuacct:/c\n1:name=systemd:/x\n", paths{memory: "/m", cpu: "/c", cpuacct: "/c", cpuset: "/s"}},
		{"v1, each for itself", allV1, "4:cpuacct:/a\n3:cpu:/c\n", paths{cpu: "/c", cpuacct: "/a"}},
		{"v1, another order", allV1, "3:cpuacct,cpu:/c\n", paths{cpu: "/c", cpuacct: "/c"}},
		{"v1, block devices", allV1, "7:io:/wrong\n6:blkio:/b\n", paths{blockIO: "/b"}},
		{"v1, colons", allV1, "5:memory:/a:b:c\n", paths{memory: "/a:b:c"}},
		{"v1, a named hierarchy called like a controller", allV1, "5:name=memory:/x\n", paths{}},
		{"v1, longer and shorter names", allV1, "5:memory2,mem,:/x\n", paths{}},
		{"hybrid", allV1, "5:memory:/m\n1:name=systemd:/x\n0::/u\n", paths{memory: "/m", unified: "/u"}},
		{"mixed", mixed, "5:memory:/m\n0::/u\n", paths{"/m", "/u", "/u", "/u", "/u", "/u"}},
		{"part of the tree", partV2, "0::/docker/aa/web\n", same("/web")},
		{"part of the tree, its top", partV2, "0::/docker/aa\n", same("/")},
		{"part of the tree, outside", partV2, "0::/docker/aab\n", same("")},
		{"nothing", allV2, "", paths{}},
		{"malformed", allV2, "0\n0:\n:\n::\n0::\n0::relative\n\n", paths{}},
	} {
		if got := test.l.parseCgroup([]byte(test.text)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestParent(t *testing.T) {
	for path, want := range map[string]string{"/a/b/c": "/a/b", "/a": "/", "/": "", "": ""} {
		if up, ok := parent(path); up != want || ok != (want != "") {
			t.Errorf("above %q: %q, %v", path, up, ok)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		path, root string
		want       bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/a", "/", true}, {"/", "/", true},
		{"/ab", "/a", false}, {"/", "/a", false}, {"", "/a", false}, {"/b/a", "/a", false},
	} {
		if got := within(test.path, test.root); got != test.want {
			t.Errorf("%q in %q: %v", test.path, test.root, got)
		}
	}
}

func TestName(t *testing.T) {
	for _, test := range []struct {
		paths paths
		want  string
	}{
		{paths{memory: "/lxc.payload.web"}, "web"},
		{paths{memory: "/lxc/web"}, "web"},
		{paths{memory: "/", cpu: "/web"}, "web"},
		{paths{unified: "/system.slice/docker-3f1c.scope"}, "3f1c"},
		{paths{memory: "/machine.slice/libpod-77.scope"}, "77"},
		{paths{memory: "/kubepods/pod1/cri-containerd-aa.scope"}, "aa"},
		{paths{memory: "/system.slice/nginx.service"}, "nginx.service"},
		{paths{memory: "/"}, "host"},
		{paths{}, "host"},
		{paths{memory: "/lxc.payload."}, "host"},
	} {
		if got := test.paths.name(); got != test.want {
			t.Errorf("%q: got %q, want %q", test.paths, got, test.want)
		}
	}
}

func TestFindLayout(t *testing.T) {
	const v1Memory = "40 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	const unifiedMount = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	for _, test := range []struct {
		name string
		tree tree
		want string
	}{
		{"v2", v2(), "memory v2, cpu v2, cpuacct v2, cpuset v2, io v2"},
		{"v1", v1(), "memory v1, cpu v1, cpuacct v1, cpuset v1, blkio v1"},
		{"v2 without memory", v2(tree{"sys/fs/cgroup/cgroup.controllers": "cpu io\n"}), "cpu v2, cpuacct v2, io v2"},
		{"mixed", v2(tree{"proc/self/mountinfo": v1Memory + unifiedMount, "sys/fs/cgroup/memory/x": "", "sys/fs/cgroup/unified/cgroup.controllers": "cpu cpuset\n"}),
			"memory v1, cpu v2, cpuacct v2, cpuset v2"},
		{"what v1 has is v1's", v2(tree{"proc/self/mountinfo": v1Memory + unifiedMount, "sys/fs/cgroup/memory/x": "", "sys/fs/cgroup/unified/cgroup.controllers": "cpu memory\n"}),
			"memory v1, cpu v2, cpuacct v2"},
		{"a view of v2 in another place counts once", v2(tree{"proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 23 0:26 /a /mnt/none rw - cgroup2 cgroup2 rw\n"}),
			"memory v2, cpu v2, cpuacct v2, cpuset v2, io v2"},
	} {
		r, _ := test.tree.resolver(t)
		if got := r.String(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		tree tree
		want string
	}{
		{"no cgroups", v2(tree{"proc/self/mountinfo": ownMounts}), "no cgroup hierarchy found"},
		{"not a mountinfo", v2(tree{"proc/self/mountinfo": "x\n"}), "cgroup mounts"},
		{"mount point is gone", v2(tree{"proc/self/mountinfo": "30 23 0:26 / /nowhere rw - cgroup2 cgroup2 rw\n"}), "/nowhere"},
		{"own namespace", v2(tree{"proc/self/ns/pid": "-> net:[1]"}), "ns/pid"},
		{"CPUs", v2(tree{"sys/devices/system/cpu/online": "none\n"}), "cpu/online"},
		{"clock", v2(tree{"proc/uptime": "x\n"}), "uptime"},
	} {
		root := t.TempDir()
		test.tree.write(t, root)
		if _, err := New(Options{Root: root}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for _, missing := range []string{"proc", "sys/devices", "proc/self/mountinfo", "proc/self/ns", "proc/uptime", "sys/devices/system/cpu/online", "sys/fs/cgroup/cgroup.controllers"} {
		root := t.TempDir()
		v2().write(t, root)
		remove(t, root, missing)
		if _, err := New(Options{Root: root}); err == nil || !strings.Contains(err.Error(), filepath.Join(root, "")) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// FuzzCgroup compares with both libraries that read /proc/PID/cgroup.
func FuzzCgroup(f *testing.F) {
	for _, seed := range []string{
		"0::/system.slice/web.service\n", "12:pids:/a\n5:memory:/m\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n",
		"0::/a:b\n5:memory:/x:y\n", "0::/..\n0::/../x\n", "0:::\n", "3:cpu,,cpuset,:/\n", "5:memory:/a\n5:memory:/b\n", "0::/a (deleted)\n",
	} {
		f.Add([]byte(seed))
	}
	root := f.TempDir()
	if err := os.Mkdir(filepath.Join(root, "1"), 0o755); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(root, "1/cgroup")
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, l := range []*layout{allV1, allV2, mixed, partV2} {
			for c, p := range l.parseCgroup(text) {
				if p != "" && (p[0] != '/' || strings.Contains(p, "\n") || within(p, "/..")) {
					t.Errorf("%s: %q of %q", controllerNames[c].v1, p, text)
				}
			}
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		// What all of us read as the kernel writes it: each line with a path, each hierarchy once.
		if !ofKernel(text) {
			return
		}
		got := mixed.parseCgroup(text)
		v1s, v2, err := cgroups.ParseCgroupFileUnified(path)
		if err != nil {
			return
		}
		want := mixed[memory].beneath([]byte(v1s["memory"]))
		if got[memory] != want {
			t.Errorf("memory: %q, containerd/cgroups says %q: %q", got[memory], want, text)
		}
		if want := mixed[unified].beneath([]byte(v2)); got[unified] != want {
			t.Errorf("v2: %q, containerd/cgroups says %q: %q", got[unified], want, text)
		}
		fs, err := procfs.NewFS(root)
		if err != nil {
			t.Fatal(err)
		}
		proc, err := fs.Proc(1)
		if err != nil {
			t.Fatal(err)
		}
		groups, err := proc.Cgroups()
		if err != nil {
			return
		}
		read := map[string]string{}
		for _, g := range groups {
			for _, name := range g.Controllers {
				read[name] = g.Path
			}
			if g.HierarchyID == 0 {
				read[""] = g.Path
			}
		}
		if want := mixed[memory].beneath([]byte(read["memory"])); got[memory] != want {
			t.Errorf("memory: %q, procfs says %q: %q", got[memory], want, text)
		}
	})
}

// ofKernel says whether the lines are "ID:names:/path", no ID or name twice, and the ID 0 the one without a name.
func ofKernel(text []byte) bool {
	seen := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) < 3 || !strings.HasPrefix(f[2], "/") || strings.ContainsAny(line, "\r\t ") || (f[0] == "0") != (f[1] == "") || seen["id"+f[0]] {
			return false
		}
		seen["id"+f[0]] = true
		names := map[string]bool{}
		for name := range strings.SplitSeq(f[1], ",") {
			if seen[name] || name == "" && f[0] != "0" {
				return false
			}
			names[name] = true
		}
		maps.Copy(seen, names)
	}
	return true
}

func BenchmarkParseCgroup(b *testing.B) {
	text := []byte("12:pids:/lxc.payload.web\n8:cpuset:/lxc.payload.web\n5:memory:/lxc.payload.web\n3:cpu,cpuacct:/lxc.payload.web\n1:name=systemd:/lxc.payload.web\n0::/lxc.payload.web\n")
	b.ReportAllocs()
	for b.Loop() {
		allV1.parseCgroup(text)
	}
}
