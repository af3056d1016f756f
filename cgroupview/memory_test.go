package cgroupview

import (
	"errors"
	"strings"
	"testing"

	"lensfs/cgroupview/kfile"
)

func TestMemory(t *testing.T) {
	const dir = "sys/fs/cgroup/web/"
	const dir1 = "sys/fs/cgroup/memory/web/"
	for _, test := range []struct {
		name string
		tree tree
		want Memory
	}{
		{"v2", v2(web()), Memory{Counted: true, Limit: 512 << 20, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited, Anon: 4096, File: 8192}},
		{"v2, no limit", v2(web(), tree{dir + "memory.max": "max\n"}), Memory{Counted: true, Limit: Unlimited, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited, Anon: 4096, File: 8192}},
		{"v2, a limit of nothing", v2(web(), tree{dir + "memory.max": "0\n"}), Memory{Counted: true, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited, Anon: 4096, File: 8192}},
		{"v2, swap", v2(web(), tree{dir + "memory.swap.max": "4096\n", dir + "memory.swap.current": "8192\n"}),
			Memory{Counted: true, Limit: 512 << 20, Usage: 1 << 20, SwapCounted: true, SwapLimit: 4096, SwapUsage: 8192, Anon: 4096, File: 8192}},
		{"v2, no new line", v2(web(), tree{dir + "memory.max": "4096", dir + "memory.stat": "anon 1"}), Memory{Counted: true, Limit: 4096, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited, Anon: 1}},
		{"v1", v1(web1()), Memory{Counted: true, Limit: 512 << 20, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited, Anon: 4096, File: 8192}},
		{"v1, both limited", v1(web1(), tree{dir1 + "memory.stat": "hierarchical_memory_limit 4096\nhierarchical_memsw_limit 12288\n", dir1 + "memory.memsw.usage_in_bytes": "1052672\n"}),
			Memory{Counted: true, Limit: 4096, Usage: 1 << 20, SwapCounted: true, SwapLimit: 8192, SwapUsage: 4096}},
		{"v1, both limited below one", v1(web1(), tree{dir1 + "memory.stat": "hierarchical_memory_limit 8192\nhierarchical_memsw_limit 4096\n", dir1 + "memory.memsw.usage_in_bytes": "0\n"}),
			Memory{Counted: true, Limit: 8192, Usage: 1 << 20, SwapCounted: true}},
		{"v1, no limit with 64 kB pages", v1(web1(), tree{dir1 + "memory.stat": "hierarchical_memory_limit 9223372036854710272\nhierarchical_memsw_limit 9223372036854710272\n"}),
			Memory{Counted: true, Limit: Unlimited, Usage: 1 << 20, SwapCounted: true, SwapLimit: Unlimited}},
		{"v1, swap not counted", v1(web1(), tree{dir1 + "memory.stat": "hierarchical_memory_limit 8192\n"}), Memory{Counted: true, Limit: 8192, Usage: 1 << 20}},
		{"no controller", v2(web(), tree{"sys/fs/cgroup/cgroup.controllers": "cpu\n"}), Memory{Limit: Unlimited}},
	} {
		r, _ := test.tree.resolver(t)
		if got, err := r.Of(120).Memory(); got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
}

// TestMemoryMissing takes away one file after the other: that is a group which has just gone, or has no such controller, never a machine without limits
// where a group above has one.
func TestMemoryMissing(t *testing.T) {
	above := tree{"sys/fs/cgroup/a/memory.current": "2097152\n", "sys/fs/cgroup/a/memory.max": "4194304\n", "sys/fs/cgroup/a/memory.stat": "anon 7\n"}
	inner := process(120, 90, "120\t1", webNS, "0::/a/b\n")
	for _, test := range []struct {
		name string
		tree tree
		want Memory
	}{
		{"group without the controller", v2(inner, above), Memory{Counted: true, Limit: 4 << 20, Usage: 2 << 20, Anon: 7}},
		{"group without a limit of its own", v2(inner, above, tree{"sys/fs/cgroup/a/b/memory.current": "1\n", "sys/fs/cgroup/a/b/memory.stat": "anon 1\n"}),
			Memory{Counted: true, Limit: 4 << 20, Usage: 1, Anon: 1}},
		{"nobody", v2(inner), Memory{Limit: Unlimited}},
	} {
		r, _ := test.tree.resolver(t)
		if got, err := r.Of(120).Memory(); got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
	r, root := v2(web()).resolver(t)
	c := r.Of(120)
	remove(t, root, "sys/fs/cgroup/web/memory.stat")
	if _, err := c.Memory(); !gone(err) || !strings.Contains(err.Error(), "web/memory.stat") {
		t.Errorf("without memory.stat: %v", err)
	}
}

func TestMemoryMalformed(t *testing.T) {
	for file, f := range map[string]tree{
		"sys/fs/cgroup/web/memory.current":                     v2(web()),
		"sys/fs/cgroup/web/memory.max":                         v2(web()),
		"sys/fs/cgroup/web/memory.swap.max":                    v2(web()),
		"sys/fs/cgroup/web/memory.swap.current":                v2(web()),
		"sys/fs/cgroup/memory/web/memory.usage_in_bytes":       v1(web1()),
		"sys/fs/cgroup/memory/web/memory.memsw.usage_in_bytes": v1(web1()),
	} {
		f[file] = "-1\n"
		r, _ := f.resolver(t)
		if _, err := r.Of(120).Memory(); !errors.Is(err, kfile.ErrSyntax) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// fields are the lines that are taken from memory.stat, by what is filled from them.
func (m *Memory) fields2() map[string]*uint64 {
	return map[string]*uint64{
		"anon": &m.Anon, "file": &m.File, "kernel_stack": &m.KernelStack, "pagetables": &m.PageTables, "sec_page_tables": &m.SecPageTables,
		"percpu": &m.Percpu, "shmem": &m.Shmem, "zswap": &m.Zswap, "zswapped": &m.Zswapped, "file_mapped": &m.FileMapped, "file_dirty": &m.FileDirty,
		"file_writeback": &m.FileWriteback, "swapcached": &m.SwapCached, "anon_thp": &m.AnonTHP, "file_thp": &m.FileTHP, "shmem_thp": &m.ShmemTHP,
		"inactive_anon": &m.InactiveAnon, "active_anon": &m.ActiveAnon, "inactive_file": &m.InactiveFile, "active_file": &m.ActiveFile,
		"unevictable": &m.Unevictable, "slab_reclaimable": &m.SlabReclaimable, "slab_unreclaimable": &m.SlabUnreclaimable, "slab": &m.Slab,
	}
}

func (m *Memory) fields1() map[string]*uint64 {
	return map[string]*uint64{
		"total_cache": &m.File, "total_rss": &m.Anon, "total_rss_huge": &m.AnonTHP, "total_shmem": &m.Shmem, "total_mapped_file": &m.FileMapped,
		"total_dirty": &m.FileDirty, "total_writeback": &m.FileWriteback, "total_inactive_anon": &m.InactiveAnon, "total_active_anon": &m.ActiveAnon,
		"total_inactive_file": &m.InactiveFile, "total_active_file": &m.ActiveFile, "total_unevictable": &m.Unevictable,
	}
}

// lastOf reads "key number" lines in the simplest way.
func lastOf(text []byte) map[string]uint64 {
	values := map[string]uint64{}
	for line := range strings.SplitSeq(string(text), "\n") {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(f) < 2 {
			continue
		}
		if n, ok := kfile.Uint([]byte(f[1])); ok {
			values[f[0]] = n
		}
	}
	return values
}

// FuzzMemoryStat2 compares with the lines read in the simplest way: no name is taken for a longer one that begins with it (LXCFS: file_mapped).
func FuzzMemoryStat2(f *testing.F) {
	f.Add([]byte("anon 1\nfile 2\nkernel 3\nkernel_stack 4\nfile_mapped 5\nfile_dirty 6\nanon_thp 7\nslab_reclaimable 8\nslab 9\nworkingset_refault_anon 10\n"))
	f.Add([]byte("shmem_thp 1\nshmem 2\nzswapped 3\nzswap 4\n\nanon\nanon x\n file 7\nfile 18446744073709551616"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Memory
		m.stat2(text)
		want := lastOf(text)
		for name, field := range m.fields2() {
			if *field != want[name] {
				t.Errorf("%s: %d, want %d: %q", name, *field, want[name], text)
			}
		}
	})
}

func FuzzMemoryStat1(f *testing.F) {
	f.Add([]byte("cache 1\nrss 2\nhierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 4096\ntotal_cache 3\ntotal_rss 4\ntotal_rss_huge 5\ntotal_dirty 6\n"))
	f.Add([]byte("total_rss_huge 1\ntotal_rss x\ntotal_unevictable"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := Memory{Limit: Unlimited}
		both := m.stat1(text)
		want := lastOf(text)
		for name, field := range m.fields1() {
			if *field != want[name] {
				t.Errorf("%s: %d, want %d: %q", name, *field, want[name], text)
			}
		}
		if limit, ok := want["hierarchical_memory_limit"]; ok && m.Limit != limit1(limit) || !ok && m.Limit != Unlimited {
			t.Errorf("limit %d: %q", m.Limit, text)
		}
		if limit := want["hierarchical_memsw_limit"]; both != limit1(limit) {
			t.Errorf("limit with swap %d: %q", both, text)
		}
	})
}
