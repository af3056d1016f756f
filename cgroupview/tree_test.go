package cgroupview

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a root directory: texts by path. One that starts with "-> " is a symbolic link.
type tree map[string]string

// The namespaces of the daemon and of two containers.
const (
	ownNS   = 4026531836
	webNS   = 4026532200
	innerNS = 4026532300
)

const ownMounts = "22 27 0:21 / /proc rw - proc proc rw\n"

// v2 is a host with cgroup v2 alone.
func v2(more ...tree) tree {
	f := tree{
		"proc/self/ns/pid":                 fmt.Sprintf("-> pid:[%d]", ownNS),
		"proc/self/mountinfo":              ownMounts + "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/uptime":                      "5000.00 30000.00\n",
		"sys/devices/system/cpu/online":    "0-7\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory\n",
	}
	for _, m := range more {
		maps.Copy(f, m)
	}
	return f
}

// v1 is a host with cgroup v1 alone.
func v1(more ...tree) tree {
	f := v2(tree{"proc/self/mountinfo": ownMounts +
		"40 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"41 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"42 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" +
		"43 31 0:33 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n",
		"sys/fs/cgroup/memory/tasks": "", "sys/fs/cgroup/cpu,cpuacct/tasks": "", "sys/fs/cgroup/cpuset/tasks": "", "sys/fs/cgroup/blkio/tasks": ""})
	delete(f, "sys/fs/cgroup/cgroup.controllers")
	for _, m := range more {
		maps.Copy(f, m)
	}
	return f
}

// process is one in the namespace ns, which its own number there ends nspid.
func process(pid, ppid int, nspid string, ns uint64, cgroup string) tree {
	dir := fmt.Sprintf("proc/%d/", pid)
	return tree{
		dir + "ns/pid": fmt.Sprintf("-> pid:[%d]", ns),
		dir + "cgroup": cgroup,
		dir + "status": fmt.Sprintf("Name:\tx\nPPid:\t%d\nNSpid:\t%s\nThreads:\t1\n", ppid, nspid),
		dir + "stat":   statOf(pid, "x", ppid, 400000),
	}
}

func statOf(pid int, comm string, ppid int, start uint64) string {
	return fmt.Sprintf("%d (%s) S %d %s%d 22847488 2944\n", pid, comm, ppid, strings.Repeat("0 ", 17), start)
}

// web is a container with init 100 and a child 120, in the v2 group /web.
func web() tree {
	f := process(100, 90, "100\t1", webNS, "0::/web\n")
	maps.Copy(f, process(120, 100, "120\t21", webNS, "0::/web\n"))
	maps.Copy(f, group("/web"))
	return f
}

// group has what a container's own v2 group has.
func group(path string) tree {
	dir := "sys/fs/cgroup" + path + "/"
	return tree{
		dir + "memory.current": "1048576\n", dir + "memory.max": "536870912\n", dir + "memory.stat": "anon 4096\nfile 8192\n",
		dir + "memory.swap.current": "0\n", dir + "memory.swap.max": "max\n",
		dir + "cpu.max": "150000 100000\n", dir + "cpu.stat": "usage_usec 2500000\nthrottled_usec 500000\n",
		dir + "cpuset.cpus.effective": "1-4\n", dir + "cgroup.procs": "100\n120\n",
	}
}

// web1 is the same container on v1.
func web1() tree {
	const group = "4:blkio:/web\n3:memory:/web\n2:cpu,cpuacct:/web\n1:cpuset:/web\n"
	f := process(100, 90, "100\t1", webNS, group)
	maps.Copy(f, process(120, 100, "120\t21", webNS, group))
	maps.Copy(f, tree{
		"sys/fs/cgroup/memory/web/memory.usage_in_bytes":       "1048576\n",
		"sys/fs/cgroup/memory/web/memory.memsw.usage_in_bytes": "1048576\n",
		"sys/fs/cgroup/memory/web/memory.stat":                 "hierarchical_memory_limit 536870912\nhierarchical_memsw_limit 9223372036854771712\ntotal_rss 4096\ntotal_cache 8192\n",
		"sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_quota_us":       "150000\n",
		"sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_period_us":      "100000\n",
		"sys/fs/cgroup/cpu,cpuacct/web/cpu.stat":               "nr_periods 0\nnr_throttled 0\nthrottled_time 500000000\n",
		"sys/fs/cgroup/cpu,cpuacct/web/cpuacct.usage":          "2500000000\n",
		"sys/fs/cgroup/cpuset/web/cpuset.effective_cpus":       "1-4\n",
		"sys/fs/cgroup/cpuset/web/cpuset.cpus":                 "0-7\n",
	})
	return f
}

// write makes the files anew; each is seen as it was or as it is.
func (f tree) write(t testing.TB, root string) {
	t.Helper()
	for name, text := range f {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(to, path+".new")
		} else {
			err = os.WriteFile(path+".new", []byte(text), 0o644)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// resolver opens a tree, which it writes at root.
func (f tree) resolver(t testing.TB) (r *Resolver, root string) {
	t.Helper()
	root = t.TempDir()
	f.write(t, root)
	r, err := New(Options{Root: root, Quota: QuotaMin})
	if err != nil {
		t.Fatal(err)
	}
	return r, root
}

func remove(t testing.TB, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
}
