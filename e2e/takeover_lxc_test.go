package e2e

import "testing"

// A container that LXC started before sees the same after a kill, an upgrade and another keeper: its values, and numbers that go on.
func TestLXCOutlivesTheDaemon(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	d.warnings = true
	forEachHookAs(t, false, func(t *testing.T, o lxcOptions) {
		o.memory, o.cpuset = 300<<20, "1"
		c := newLXC(t, d, o)
		c.start()
		sees := machine{memory: 300 << 20, firstCPU: 1, cpus: 1}
		before := c.byInit()
		sees.check(t, before)
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"worker killed", d.killWorker},
			{"upgraded", func() {
				if out, err := d.command("upgrade").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}},
			{"keeper killed", func() { d.killKeeper(); d.again() }},
			{"worker killed under the new keeper", d.killWorker},
		} {
			step.do()
			now := c.byInit()
			sees.check(t, now)
			sees.check(t, c.attached())
			if now.Uptime < before.Uptime {
				t.Errorf("%s: it has been up for %v s, and was for %v", step.name, now.Uptime, before.Uptime)
			}
			before = now
		}
		c.stop()
	})
	d.unharmedMounts()
}
