package e2e

import "testing"

// A read through the shared tree is OPEN, READ until its end, and RELEASE: nothing that the kernel could be told once is asked again.
func TestSharedTreeMakesNoNeedlessRequests(t *testing.T) {
	needRoot(t)
	const reads = 500
	d := serve(t, "--debug")
	c := d.container([]string{"--tree", d.tree, "--memory", "256M"}, asRole("reader")...)
	c.ask("/proc/meminfo 1")
	before := requests(d)
	c.ask("/proc/meminfo %d", reads)
	after := requests(d)
	c.close()
	for what, most := range map[string]int{
		"OPEN": reads, "READ": 2 * reads, "RELEASE": reads,
		"FLUSH": 0, "LOOKUP": 0, "GETATTR": 0, "ACCESS": 0, "GETXATTR": 0, "POLL": 0, "STATFS": 0,
	} {
		const others = 5 // anybody may look at the mount
		if n := after[what] - before[what]; n > most+others {
			t.Errorf("%d reads made %d %s requests", reads, n, what)
		}
	}
	if after["OPEN"]-before["OPEN"] < reads {
		t.Errorf("%d reads made %d OPEN requests: are they counted?", reads, after["OPEN"]-before["OPEN"])
	}
}
