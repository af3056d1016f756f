package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// LXCFS issue 44 and others: whose values a process sees is decided by the innermost pid namespace that it is in.
func TestFaultNested(t *testing.T) {
	needRoot(t)
	d := serve(t)
	above := newGroup(t, memoryLimit(256<<20))
	inner := newGroup(t, memoryLimit(128<<20), above)
	look := fmt.Sprintf("grep MemTotal %[1]s/proc/meminfo; cat %[1]s/proc/uptime; ", d.tree)
	nested := shell(joining(processesOf(inner), "unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", look+":"))
	begin := time.Now()
	out := d.run([]string{"--memory", "512M", "--cgroup-parent", above}, "sh", "-c", look+"sleep 1; "+nested+"; "+look)
	got := strings.Split(out, "\n")
	if len(got) != 7 {
		t.Fatalf("%q", out)
	}
	for i, want := range []string{"262144 kB", "131072 kB", "262144 kB"} { // the limit above counts too
		if !strings.HasSuffix(got[2*i], " "+want) {
			t.Errorf("%q: MemTotal should be %s", got, want)
		}
	}
	beganAfter(t, got[1], begin)
	beganAfter(t, got[3], begin.Add(time.Second))
	outer, _, err := parseUptime(got[5] + "\n")
	if err != nil || outer < 1 {
		t.Errorf("the outer container's uptime after a second: %q", got[5])
	}
}

// A process sent in from the root cgroup sees the container (LXCFS does that well), one that is in its mount namespace only what its own cgroup allows.
func TestFaultSentIn(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := meminfo(t, command(t, "cat", "/proc/meminfo"))["MemTotal"]
	c := idle(d, "--memory", "256M")
	small := newGroup(t, memoryLimit(96<<20))
	init := strconv.Itoa(c.init)
	for _, test := range []struct {
		what   string
		groups []string
		flags  []string
		want   uint64 // of the shared tree; whoever reads the container's own view sees the container
	}{
		{"pid and mount namespace, root cgroup", rootGroups(t), []string{"-p", "-m"}, 256 << 10},
		{"pid and mount namespace, a cgroup elsewhere", processesOf(small), []string{"-p", "-m"}, 256 << 10},
		{"mount namespace, root cgroup", rootGroups(t), []string{"-m"}, host},
		{"mount namespace, a cgroup elsewhere", processesOf(small), []string{"-m"}, 96 << 10},
	} {
		for _, root := range []string{d.tree, ""} {
			want := test.want
			if root == "" {
				want = 256 << 10
			}
			cmd := append(append([]string{"nsenter", "-t", init}, test.flags...), "cat", root+"/proc/meminfo")
			if got := meminfo(t, tool(t, joining(test.groups, cmd...)))["MemTotal"]; got != want {
				t.Errorf("%s, %s/proc/meminfo: MemTotal is %d, not %d", test.what, root, got, want)
			}
		}
	}
}

// LXCFS takes what is used from the group that init is in, though the container's other processes are in groups beside it: it knows /init.scope alone.
func TestFaultInitInLeaf(t *testing.T) {
	needRoot(t)
	d := serve(t)
	// As systemd does.
	t.Run("init.scope", func(t *testing.T) {
		group := newGroup(t, memoryLimit(256<<20))
		scope, load := memoryGroup(t, group, "init.scope"), memoryGroup(t, group, "load")
		start(t, joining([]string{load + "/cgroup.procs"}, asRole("ballast", "64")...))
		init := child(t, start(t, joining([]string{scope + "/cgroup.procs"}, "unshare", "--fork", "--pid", "sleep", "60")))
		checkUse(t, d, init, group)
	})
	// As OpenRC, supervisors and lxc.cgroup.dir.container.inner do: the container knows the root of its cgroups by what it has mounted.
	t.Run("any name", func(t *testing.T) {
		group := newGroup(t, memoryLimit(256<<20))
		mnt := tempDir(t)
		mount := "mount -t cgroup -o memory cgroup " + mnt
		if memoryIsV2(t) {
			mount = "mount -t cgroup2 cgroup " + mnt
		}
		outside := start(t, joining(processesOf(group), "unshare", "--cgroup", "--mount", "--fork", "--pid", "--mount-proc", "sh", "-c", mount+" && echo mounted && sleep 60"))
		init := child(t, outside)
		checkUse(t, d, init, group) // known to the daemon before it moves
		leaf, load := memoryDir(t, group, "leaf"), memoryDir(t, group, "load")
		for _, pid := range append([]int{outside, init}, children(init)...) {
			if err := os.WriteFile(leaf+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		memoryGroup(t, group, "leaf") // now that nobody is in the group itself
		start(t, joining([]string{load + "/cgroup.procs"}, asRole("ballast", "64")...))
		checkUse(t, d, init, group)
		time.Sleep(1100 * time.Millisecond) // by now the daemon has looked where init is
		checkUse(t, d, init, group)
	})
}

// checkUse compares what a container shows as used with what its group says.
func checkUse(t *testing.T, d *daemon, init int, group string) {
	t.Helper()
	read := func() uint64 {
		dir, v2 := groupDir(t, group, "memory")
		name := "memory.usage_in_bytes"
		if v2 {
			name = "memory.current"
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return number(t, string(text)) >> 10
	}
	before := read()
	for _, root := range []string{d.tree, d.views + "/self"} {
		m := meminfo(t, enter(t, init, "cat", root+"/proc/meminfo"))
		after := read()
		const slack = 2 << 10
		used := m["MemTotal"] - m["MemFree"]
		if m["MemTotal"] != 256<<10 || used+slack < min(before, after) || used > max(before, after)+slack {
			t.Errorf("%s: %d of %d kB are used; the container's group has used %d", root, used, m["MemTotal"], after)
		}
	}
}
