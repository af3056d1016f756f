package cgroupview

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lensfs/cgroupview/kfile"

	"github.com/prometheus/procfs"
)

func TestFindInit(t *testing.T) {
	shim := process(80, 1, "80", ownNS, "0::/system.slice/docker.service\n")
	sentIn := func(cgroup string) tree { return process(130, 80, "130\t30", webNS, cgroup) }
	deep := tree{}
	for pid := 121; pid < 140; pid++ {
		maps.Copy(deep, process(pid, pid-1, strconv.Itoa(pid)+"\t"+strconv.Itoa(pid-90), webNS, "0::/web\n"))
	}
	loop := process(130, 131, "130\t30", webNS, "0::/\n")
	maps.Copy(loop, process(131, 130, "131\t31", webNS, "0::/\n"))
	for _, test := range []struct {
		name                  string
		tree                  tree
		pid                   uint32
		ancestor, group, scan uint32 // what each of the ways finds
	}{
		{"init itself", v2(web()), 100, 100, 100, 100},
		{"child", v2(web()), 120, 100, 100, 100},
		{"far below", v2(web(), deep), 139, 100, 100, 100},
		{"sent in with its group", v2(web(), shim, sentIn("0::/web\n")), 130, 0, 100, 100},
		{"sent in without", v2(web(), shim, sentIn("0::/user.slice\n")), 130, 0, 0, 100},
		{"sent in, in the root group", v2(web(), shim, sentIn("0::/\n")), 130, 0, 0, 100},
		{"its group is full of others", v2(web(), shim, sentIn("0::/web\n"), tree{"sys/fs/cgroup/web/cgroup.procs": "80\n7\n130\nx\n100\n"}), 130, 0, 100, 100},
		{"parents in a circle", v2(web(), loop), 130, 0, 0, 100},
		{"the parent has gone", v2(web(), process(130, 129, "130\t30", webNS, "0::/web\n")), 130, 0, 100, 100},
		{"adopted by nobody", v2(web(), process(130, 0, "130\t30", webNS, "0::/web\n")), 130, 0, 100, 100},
		{"an init of another namespace", v2(process(100, 90, "100\t1", innerNS, "0::/web\n"), process(120, 100, "120\t21", webNS, "0::/web\n"),
			tree{"sys/fs/cgroup/web/cgroup.procs": "100\n120\n"}), 120, 0, 0, 0},
		{"init has gone", v2(process(120, 80, "120\t21", webNS, "0::/web\n"), shim), 120, 0, 0, 0},
		{"number 1 of our own namespace is nobody's init", v2(process(1, 0, "1", webNS, "0::/init.scope\n"), process(120, 1, "120", webNS, "0::/init.scope\n")), 120, 0, 0, 0},
	} {
		r, _ := test.tree.resolver(t)
		var b kfile.Buffer
		if got := r.ancestorInit(&b, test.pid, webNS); got != test.ancestor {
			t.Errorf("%s: by its parents: %d, want %d", test.name, got, test.ancestor)
		}
		if got := r.groupInit(&b, test.pid, webNS); got != test.group {
			t.Errorf("%s: by its group: %d, want %d", test.name, got, test.group)
		}
		if got := r.scanInit(&b, webNS); got != test.scan {
			t.Errorf("%s: by looking everywhere: %d, want %d", test.name, got, test.scan)
		}
		r.lastScan = time.Time{}
		if got := r.findInit(&b, test.pid, webNS); got != max(test.ancestor, test.group, test.scan) {
			t.Errorf("%s: found %d", test.name, got)
		}
	}
}

func TestFindInitV1(t *testing.T) {
	r, _ := v1(web1(), process(80, 1, "80", ownNS, "3:memory:/\n"), process(130, 80, "130\t30", webNS, "3:memory:/web\n2:cpu,cpuacct:/web\n"),
		tree{"sys/fs/cgroup/memory/web/cgroup.procs": "130\n100\n"}).resolver(t)
	var b kfile.Buffer
	if got := r.groupInit(&b, 130, webNS); got != 100 {
		t.Errorf("found %d", got)
	}
}

// TestScanIsSeldom: who cannot find its init must not have us look at every process all the time.
func TestScanIsSeldom(t *testing.T) {
	r, _ := v2(web()).resolver(t)
	var b kfile.Buffer
	if got := r.scanInit(&b, webNS); got != 100 {
		t.Errorf("found %d", got)
	}
	if got := r.scanInit(&b, webNS); got != 0 {
		t.Errorf("looked again at once, found %d", got)
	}
	r.lastScan = time.Now().Add(-scanEvery)
	if got := r.scanInit(&b, webNS); got != 100 {
		t.Errorf("later: found %d", got)
	}
}

func TestStartTime(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint64
		err  error
	}{
		{statOf(100, "systemd", 90, 400000), 400000, nil},
		{statOf(100, "(a b) (c) d)", 90, 7), 7, nil},
		{statOf(100, "", 90, 8), 8, nil},
		{statOf(100, ") S 1 2 3", 90, 9), 9, nil},
		{statOf(100, "a\nb", 90, 10), 10, nil},
		{"100 (x) S 90 " + strings.Repeat("-1 ", 17) + "11", 11, nil}, // nothing behind it
		{"100 (x) S 90 " + strings.Repeat("0 ", 17), 0, kfile.ErrSyntax},
		{"100 (x) S 90 " + strings.Repeat("0 ", 17) + "-5 ", 0, kfile.ErrSyntax},
		{"100 x S 90 ", 0, kfile.ErrSyntax},
		{"", 0, kfile.ErrSyntax},
	} {
		r, _ := v2(tree{"proc/100/stat": test.text}).resolver(t)
		var b kfile.Buffer
		if got, err := r.startTime(&b, 100); got != test.want || err != test.err {
			t.Errorf("%q: got %d, %v", test.text, got, err)
		}
	}
}

func TestRoots(t *testing.T) {
	mounts := func(roots ...string) (s string) {
		for i, root := range roots {
			s += fmt.Sprintf("%d 701 0:26 %s /mnt/%d rw - cgroup2 cgroup rw\n", 702+i, root, i)
		}
		return s
	}
	for _, test := range []struct{ name, group, mounts, want string }{
		{"nothing mounted", "/lxc/web", "", "/lxc/web"},
		{"its own", "/lxc/web", mounts("/lxc/web"), "/lxc/web"},
		{"init.scope", "/lxc/web/init.scope", "", "/lxc/web"},
		{"init.scope, its own", "/lxc/web/init.scope", mounts("/lxc/web"), "/lxc/web"},
		{"init.scope of the host", "/init.scope", "", "/init.scope"},
		{"a leaf", "/lxc/web/inner", mounts("/lxc/web"), "/lxc/web"},
		{"a leaf far below", "/lxc/web/a/b/init.scope", mounts("/lxc/web"), "/lxc/web"},
		{"the whole tree", "/lxc/web", mounts("/"), "/lxc/web"},
		{"the deepest that holds it", "/lxc/web/inner", mounts("/lxc", "/lxc/web", "/lxc/web/other", "/"), "/lxc/web"},
		{"the deepest, met first", "/lxc/web/inner", mounts("/lxc/web", "/lxc"), "/lxc/web"},
		{"a neighbour's", "/lxc/web", mounts("/lxc/we", "/lxc/web2"), "/lxc/web"},
		{"above our cgroup namespace", "/lxc/web", mounts("/..", "/../x"), "/lxc/web"},
		{"other file systems", "/lxc/web/inner", "702 701 0:26 /lxc/web /mnt rw - ext4 /dev/vda rw\n703 701 0:26 /lxc/web /mnt rw - cgroup cgroup rw,memory\n", "/lxc/web/inner"},
		{"not a mountinfo", "/lxc/web/inner", mounts("/lxc/web") + "x - cgroup2 x\n", "/lxc/web/inner"},
	} {
		r, _ := v2(tree{"proc/100/mountinfo": test.mounts}).resolver(t)
		p := r.roots(&kfile.Buffer{}, 100, r.layout.parseCgroup([]byte("0::"+test.group+"\n")))
		if p[memory] != test.want || p[unified] != test.want {
			t.Errorf("%s: got %q, want %q", test.name, p[memory], test.want)
		}
	}
	r, _ := v2().resolver(t)
	if p := r.roots(&kfile.Buffer{}, 100, paths{memory: "/web/init.scope"}); p[memory] != "/web" {
		t.Errorf("init has gone: %q", p[memory])
	}
}

// kernelStat is a stat as the kernel writes it, whatever the name.
var kernelStat = regexp.MustCompile(`^\d+ \((?s:.*)\) [A-Za-z](?: (?:0|-?[1-9]\d*))+\n?$`)

// FuzzStat agrees with procfs about what begins where in /proc/PID/stat.
func FuzzStat(f *testing.F) {
	for _, seed := range []string{"", "100 (x", ")", statOf(100, "a) (b", 90, 5)} {
		f.Add([]byte(seed))
	}
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	r, root := v2(process(100, 90, "100\t1", webNS, "0::/\n")).resolver(f)
	proc := procOf(f, root, 100)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(root, "proc/100/stat"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		var b kfile.Buffer
		start, err := r.startTime(&b, 100)
		if !kernelStat.Match(text) {
			return // procfs reads it as it pleases, or panics
		}
		stat, err2 := proc.Stat()
		if err2 != nil {
			return
		}
		if err != nil || start != stat.Starttime {
			t.Errorf("%q: %d, %v; procfs: %d", text, start, err, stat.Starttime)
		}
	})
}

// FuzzStatus agrees with procfs about NSpid.
func FuzzStatus(f *testing.F) {
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Add([]byte("Name:\tx\nPPid:\t90\nNSpid:\t100\t1\n"))
	f.Add([]byte("NSpid:\t1\nPPid: x"))
	f.Add([]byte("NSpid:\nPPid:"))
	r, root := v2(process(100, 90, "100\t1", webNS, "0::/\n")).resolver(f)
	proc := procOf(f, root, 100)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(root, "proc/100/status"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		var b kfile.Buffer
		_, isInit, err := r.status(&b, 100)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), "NSpid:") != 1 || !strings.Contains("\n"+string(text), "\nNSpid:\t") || strings.ContainsAny(string(text), "\r\v\f +") {
			return
		}
		status, err := proc.NewStatus()
		if err != nil || len(status.NSpids) == 0 {
			return
		}
		n := len(status.NSpids)
		if want := n > 1 && status.NSpids[n-1] == 1; isInit != want {
			t.Errorf("%q: init is %v, procfs says %v", text, isInit, status.NSpids)
		}
	})
}

func procOf(t testing.TB, root string, pid int) procfs.Proc {
	t.Helper()
	fs, err := procfs.NewFS(filepath.Join(root, "proc"))
	if err != nil {
		t.Fatal(err)
	}
	proc, err := fs.Proc(pid)
	if err != nil {
		t.Fatal(err)
	}
	return proc
}
