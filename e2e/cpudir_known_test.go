package e2e

import (
	"regexp"
	"strings"
	"testing"

	"lensfs/docs"
)

// Every file of this host that passes through to containers is in docs/what-stays-the-hosts.md, under every name that the kernel has for it.
func TestCPUDirIsKnown(t *testing.T) {
	needRoot(t)
	d := serve(t)
	table := docs.Stays()
	numbers := regexp.MustCompile(`^(cpu|cpufreq/policy)[0-9]+`)
	seen := 0
	for name := range strings.Lines(d.run([]string{"--tree", d.tree}, "find", d.tree+cpuDir, "-type", "f", "-printf", "%P\n")) {
		name = numbers.ReplaceAllString(strings.TrimSpace(name), "${1}N")
		if name == "online" || name == "offline" || name == "cpuN/online" {
			continue // the container's own
		}
		seen++
		known := false
		for _, row := range table {
			_, ok := row.Covers(strings.TrimPrefix(cpuDir, "/"), name)
			known = known || ok
		}
		if !known {
			t.Errorf("%s is served, and no row of docs/what-stays-the-hosts.md tells of it", name)
		}
	}
	if seen < 20 {
		t.Errorf("%d files", seen)
	}
}
