package e2e

import (
	"strings"
	"testing"
)

// A test of the differential test: what each relation takes, and what it does not.
func TestRelations(t *testing.T) {
	two := &expected{cpuset: []int{1, 2, 3}, shown: []int{1, 2}, lxcfs: 3, spinners: 2, pid: 10}
	v2 := &expected{cpuset: []int{1}, shown: []int{1}, lxcfs: 1, version2: true}
	type fieldsOf = map[string]string
	around := func(name, before, after string) [2]map[string]string {
		return [2]map[string]string{{name: before}, {name: after}}
	}
	ids := fieldsOf{"cpuinfo.physical id": "0\n0", "cpuinfo.core id": "0\n0"}
	times := fieldsOf{"stat.cpu.user": "100", "stat.cpu.system": "20", "stat.cpu.steal": "30", "stat.cpu.idle": "850"}
	free := fieldsOf{"meminfo.MemFree": "100", "meminfo.Active(file)": "20", "meminfo.Inactive(file)": "3", "meminfo.SReclaimable": "0", "meminfo.MemTotal": "1000"}
	mode := &difference{lxcfs: "-r--r--r--", lensfs: "-r--------"}
	for _, c := range []struct {
		relation string
		found    found
		not      string // another value of ours that is wrong
		row      *difference
	}{
		{"as written", found{before: "-r--r--r--", ours: "-r--------"}, "-rw-------", mode},
		{"lensfs 0", found{before: "5\n6", ours: "0\n0"}, "0\n1", nil},
		{"lensfs 0", found{before: "5\n6", ours: "0 0 0"}, "", nil},
		{"lensfs none", found{before: "5", ours: ""}, "5", nil},
		{"LXCFS none", found{before: "", ours: "5"}, "", nil},
		{"but for blanks", found{before: "a\tb", ours: "a\t\tb"}, "a\t\tc", nil},
		{"LXCFS twice", found{before: "x\nx", ours: "x"}, "y", nil},
		{"some of them", found{before: "vda\nvdb\nvdc", ours: "vdb"}, "vdb\nvdd", nil},
		{"part of theirs", found{after: "vda 100 20\nvdb 9 9", ours: "vda 100 8"}, "vda 0 21", nil},
		{"part of theirs", found{after: "vda 100 20", ours: ""}, "vdb 1 1", nil},
		{"real numbers", found{before: "0\n1\n2", ours: "1\n2"}, "0\n1", nil},
		{"real numbers", found{before: "0\n1\n2", ours: "1\n2"}, "1\n2\n3", nil},
		{"the first", found{before: "a\nb\nc", after: "a\nb\nc", ours: "a\nb"}, "a\nc", nil},
		{"the first", found{before: "a\nb\nc", after: "a\nb\nc", ours: "a\nb"}, "a", nil},
		{"real numbers of all", found{before: "0\n1\n2", ours: "1\n2"}, "0\n1", nil},
		{"counted", found{key: "cpuinfo.siblings", before: "4\n4", ours: "2\n2", lensfs: ids}, "1\n1", nil},
		{"counted", found{key: "cpuinfo.cpu cores", before: "4\n4", ours: "1\n1", lensfs: ids}, "2\n2", nil},
		{"a frequency", found{before: "2000.1\n2000.2\n1", ours: "1999\n1999"}, "1999", nil},
		{"adds up", found{key: "stat.each.user", ours: "60\n41", lensfs: times}, "60\n60", nil},
		{"adds up", found{key: "stat.each.user", ours: "60\n41", lensfs: times}, "100", nil},
		{"age less used", found{key: "stat.cpu.idle", lensfs: times, beside: around("lxcfs:uptime.age", "4.98", "5.02")}, "", nil},
		{"used", found{key: "stat.cpu.user", ours: "100", lensfs: times, beside: around("cpuacct:cpuacct.usage.", "1190000000", "1210000000")}, "150", nil},
		{"used", found{key: "stat.cpu.user", ours: "100", expected: v2, beside: around("cpu:cpu.stat.user_usec", "990000", "1010000")}, "50", nil},
		{"throttled", found{ours: "150", beside: around("cpu:cpu.stat.throttled_time", "", "2000000000")}, "0", nil},
		{"throttled", found{ours: "150", expected: v2, beside: around("above:cpu.stat.throttled_usec", "", "2000000")}, "250", nil},
		{"idle of stat", found{ours: "8.50", beside: around("lensfs:stat.cpu.idle", "849", "851")}, "9.50", nil},
		{"its own", found{key: "loadavg.tasks", ours: "7", beside: around("tasks:tasks.", "7", "8")}, "200", nil},
		{"its own", found{key: "loadavg.running", ours: "2", beside: around("tasks:tasks.", "7", "7")}, "1", nil},
		{"its own", found{key: "stat.procs_running", ours: "2", lensfs: fieldsOf{"loadavg.tasks": "7"}}, "12", nil},
		{"its own", found{key: "stat.procs_blocked", ours: "0", lensfs: fieldsOf{"loadavg.tasks": "7"}}, "12", nil},
		{"its own", found{key: "stat.processes", ours: "12"}, "5000", nil},
		{"its own", found{key: "loadavg.last pid", ours: "12"}, "9", nil},
		{"host's", found{key: "meminfo.MemFree", ours: "100000", beside: around("host:meminfo.MemFree", "90000", "90000")}, "130000", nil},
		{"a moment ago", found{before: "1000", after: "1001", ours: "990"}, "900", nil},
		{"a moment ago", found{before: "1000", after: "1001", ours: "990"}, "1002", nil},
		{"memory.stat", found{key: "meminfo.Mapped", ours: "2048", beside: around("memory:memory.stat.file_mapped", "2097152", "2097152")}, "0",
			&difference{lensfs: "file_mapped"}},
		{"free and files", found{ours: "123", lensfs: free}, "150", nil},
	} {
		if c.found.expected == nil {
			c.found.expected = two
		}
		if c.row == nil {
			c.row = &difference{}
		}
		holds := relations[c.relation]
		if !holds(&c.found, c.row) {
			t.Errorf("%s: %q is not taken beside %q", c.relation, c.found.ours, c.found.before)
		}
		if c.relation == "age less used" {
			c.found.lensfs = fieldsOf{"stat.cpu.user": "100", "stat.cpu.idle": "1850"}
		}
		c.found.ours = c.not
		if holds(&c.found, c.row) {
			t.Errorf("%s: %q is taken beside %q", c.relation, c.not, c.found.before)
		}
	}
}

func TestDifferenceTable(t *testing.T) {
	table, err := knownDifferences()
	if err != nil {
		t.Fatal(err)
	}
	unused := map[string]bool{}
	for name := range relations {
		unused[name] = true
	}
	for _, row := range table {
		delete(unused, row.check)
	}
	for name := range unused {
		t.Errorf("no row is checked by %q", name)
	}
}

// A difference that no row explains has to be told, each by its own reason.
func TestUnknownDifferences(t *testing.T) {
	table := []*difference{
		{key: "meminfo.Mlocked", when: []string{"v1"}, check: "lensfs 0"},
		{key: "meminfo.Slab", check: "lensfs 0"},
	}
	of := func(lxcfs, lensfs string) round {
		return round{{"proc/meminfo": lxcfs}, {"proc/meminfo": lensfs}, {"proc/meminfo": lxcfs}}
	}
	for _, c := range []struct {
		what       string
		rounds     []round
		conditions string
		want       string
	}{
		{"the same", []round{of("MemTotal: 512000 kB", "MemTotal: 512000 kB")}, "v1", ""},
		{"within the tolerance", []round{of("MemFree: 512000 kB", "MemFree: 512800 kB")}, "v1", ""},
		{"explained", []round{of("Mlocked: 64000 kB", "Mlocked: 0 kB")}, "v1", ""},
		{"gone in another round", []round{of("Mapped: 9000 kB", "Mapped: 1 kB"), of("Mapped: 9000 kB", "Mapped: 9000 kB")}, "v1", ""},
		{"not as the row has it, but as LXCFS", []round{of("Slab: 64 kB", "Slab: 64 kB")}, "v1", "not as these rows"},
		{"no row", []round{of("MemTotal: 512000 kB", "MemTotal: 900000 kB")}, "v1", "meminfo.MemTotal: LXCFS \"512000\", lensfs \"900000\": no row"},
		{"the row of another version", []round{of("Mlocked: 64000 kB", "Mlocked: 0 kB")}, "v2", "no row"},
		{"not as the row has it", []round{of("Mlocked: 64000 kB", "Mlocked: 7000 kB")}, "v1", "not as these rows"},
		{"a line more", []round{of("", "MemTotal: 512000 kB")}, "v1", "meminfo.MemTotal"},
		{"a line less", []round{of("MemTotal: 512000 kB", "")}, "v1", "meminfo.MemTotal"},
	} {
		errs := unexplained(c.rounds, &expected{}, table, []string{c.conditions})
		if c.want == "" && len(errs) > 0 {
			t.Errorf("%s: %v", c.what, errs)
		}
		if c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.what, errs, c.want)
		}
	}
}
