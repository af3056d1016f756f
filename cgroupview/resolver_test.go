package cgroupview

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"lensfs/cgroupview/kfile"
)

func TestOf(t *testing.T) {
	r, root := v2(web(),
		process(110, 105, "110\t30\t1", innerNS, "0::/web/inner\n"), process(111, 110, "111\t31\t2", innerNS, "0::/web/inner\n"),
		process(50, 1, "50", ownNS, "0::/system.slice/a.service\n"), process(51, 1, "51", ownNS, "0::/system.slice/a.service\n"),
		process(52, 1, "52", ownNS, "0::/\n"), process(60, 1, "60\t9", 4026532999, "0::/system.slice/a.service\n"),
	).resolver(t)
	for _, test := range []struct {
		name       string
		pid        uint32
		ns         uint64
		container  string
		group      string
		unresolved uint64
	}{
		{"child", 120, webNS, "web", "/web", 0},
		{"init", 100, webNS, "web", "/web", 0},
		{"nested", 111, innerNS, "inner", "/web/inner", 0},
		{"service of the host", 50, 0, "a.service", "/system.slice/a.service", 0},
		{"the host", 52, 0, "host", "/", 0},
		{"nobody's pid", 0, 0, "host", "", 1},
		{"gone", 999, 0, "host", "", 1},
		{"a namespace without an init", 60, 0, "a.service", "/system.slice/a.service", 1},
	} {
		r.Unresolved.Store(0)
		c := r.Of(test.pid)
		if c.ns != test.ns || c.Name != test.container || c.paths.Load()[memory] != test.group || c.IsHost() != (test.ns == 0) {
			t.Errorf("%s: namespace %d, %q, group %q", test.name, c.ns, c.Name, c.paths.Load()[memory])
		}
		if again := r.Of(test.pid); again != c {
			t.Errorf("%s: another container the second time", test.name)
		}
		if n := r.Unresolved.Load(); n != 2*test.unresolved {
			t.Errorf("%s: %d unresolved", test.name, n)
		}
	}
	if r.Of(50) != r.Of(51) {
		t.Error("two processes of one group are two containers")
	}
	if want := (ID{webNS, 100, 400000}); r.Of(120).ID() != want {
		t.Errorf("got %v, want %v", r.Of(120).ID(), want)
	}
	if (r.Of(50).ID() != ID{}) {
		t.Errorf("the host's: %v", r.Of(50).ID())
	}
	// A process that has no cgroup file left is the host's.
	remove(t, root, "proc/50/cgroup")
	if c := r.Of(50); c != r.Host() {
		t.Errorf("without a group: %q", c.Name)
	}
}

// TestRecycled has init end, and a new one come into a namespace with the same inode number.
func TestRecycled(t *testing.T) {
	r, root := v2(web()).resolver(t)
	old := r.Of(120)
	if !old.Alive() {
		t.Error("not alive")
	}
	renewed := process(100, 90, "100\t1", webNS, "0::/db\n")
	renewed["proc/100/stat"] = statOf(100, "x", 90, 490000)
	renewed.write(t, root)
	if old.Alive() {
		t.Error("still alive")
	}
	c := r.Of(120)
	if c == old || c.Name != "db" || c.ID().Start != 490000 {
		t.Errorf("got %q, %v", c.Name, c.ID())
	}
	// The old one, still held by somebody, does not follow.
	old.Look()
	if old.paths.Load()[memory] != "/web" {
		t.Errorf("the old one is in %q now", old.paths.Load()[memory])
	}
}

func TestSweep(t *testing.T) {
	r, root := v2(web(), process(50, 1, "50", ownNS, "0::/a.service\n"), process(110, 105, "110\t30\t1", innerNS, "0::/web/inner\n")).resolver(t)
	web, service, inner := r.Of(120), r.Of(50), r.Of(110)
	sweep := func() map[*Container]bool {
		got := map[*Container]bool{}
		r.Sweep(func(c *Container) { got[c] = true })
		return got
	}
	if got := sweep(); len(got) != 0 {
		t.Errorf("swept %d that live", len(got))
	}
	remove(t, root, "proc/100")
	if got := sweep(); !maps.Equal(got, map[*Container]bool{web: true}) {
		t.Errorf("init has ended: swept %v", got)
	}
	if c := r.Of(120); !c.IsHost() {
		t.Errorf("without an init: %q", c.Name)
	}
	now := r.boottime()
	r.boottime = func() time.Duration { return now + idle + time.Second }
	if got := sweep(); !got[service] || got[inner] || got[r.Host()] {
		t.Errorf("nobody asked for the group: swept %v", got)
	}
	if again := r.Of(50); again == service || again.Name != "a.service" {
		t.Errorf("the group came back as %q", again.Name)
	}
	if len(sweep()) != 0 {
		t.Error("swept what was just asked for")
	}
}

// at stops the clock.
func (r *Resolver) at(seconds float64) {
	r.boottime = func() time.Duration { return time.Duration(seconds * float64(time.Second)) }
}

func TestAge(t *testing.T) {
	r, _ := v2(web()).resolver(t)
	c := r.Of(120) // began at 4000 s
	for _, test := range []struct {
		at    float64
		age   time.Duration
		young bool
	}{
		{5000, 1000 * time.Second, false},
		{4001, time.Second, false},
		{4000.99, 990 * time.Millisecond, true},
		{4000, 0, true},
		{3999, 0, true},
	} {
		r.at(test.at)
		if c.Age() != test.age || c.Young() != test.young {
			t.Errorf("at %v: %v, young is %v", test.at, c.Age(), c.Young())
		}
	}
	if h := r.Host(); h.Age() != 0 || h.Young() || !h.Alive() {
		t.Errorf("the host: %v, %v, %v", h.Age(), h.Young(), h.Alive())
	}
}

func TestLook(t *testing.T) {
	group := func(c *Container) string { return c.paths.Load()[memory] }
	moved := tree{"proc/100/cgroup": "0::/web/init.scope\n", "proc/100/mountinfo": ""}

	t.Run("moved", func(t *testing.T) {
		r, root := v2(web()).resolver(t)
		r.at(4004)
		c := r.Of(120)
		tree{"proc/100/cgroup": "0::/other\n"}.write(t, root)
		r.at(4004.5)
		if c.Look(); group(c) != "/web" {
			t.Errorf("looked again within a second: %q", group(c))
		}
		r.at(4005)
		if c.Look(); group(c) != "/other" {
			t.Errorf("after a second: %q", group(c))
		}
		moved.write(t, root)
		r.at(4007)
		if c.Look(); group(c) != "/web" {
			t.Errorf("in init.scope: %q", group(c))
		}
		tree{"proc/100/cgroup": "0::/other\n"}.write(t, root)
		r.at(4500)
		c.Look()
		moved.write(t, root)
		r.at(4509)
		if c.Look(); group(c) != "/other" {
			t.Errorf("of old age, looked again within ten seconds: %q", group(c))
		}
		r.at(4510)
		if c.Look(); group(c) != "/web" {
			t.Errorf("of old age, after ten seconds: %q", group(c))
		}
	})
	t.Run("young", func(t *testing.T) {
		r, root := v2(web()).resolver(t)
		r.at(4000.1)
		c := r.Of(120)
		tree{"proc/100/cgroup": "0::/other\n"}.write(t, root)
		r.at(4000.2)
		if c.Look(); group(c) != "/other" {
			t.Errorf("while young: %q", group(c))
		}
	})
	// A mount hook asks before init has mounted its cgroups. An init that sits in a leaf never moves: /proc/PID/cgroup does not change.
	t.Run("mounted later", func(t *testing.T) {
		r, root := v2(web(), tree{"proc/100/cgroup": "0::/web/leaf\n", "proc/100/mountinfo": ownMounts}).resolver(t)
		r.at(4000.1)
		c := r.Of(120)
		if group(c) != "/web/leaf" {
			t.Fatalf("before: %q", group(c))
		}
		tree{"proc/100/mountinfo": "702 701 0:26 /web /sys/fs/cgroup rw - cgroup2 cgroup rw\n"}.write(t, root)
		r.at(4003)
		if c.Look(); group(c) != "/web" {
			t.Errorf("after: %q", group(c))
		}
	})
	// Of a dead init v1 says "/": that would be the host.
	t.Run("dead", func(t *testing.T) {
		r, root := v1(web1()).resolver(t)
		c := r.Of(120)
		tree{"proc/100/cgroup": "3:memory:/\n", "proc/100/stat": statOf(100, "x", 90, 499999)}.write(t, root)
		r.at(5002)
		if c.Look(); group(c) != "/web" {
			t.Errorf("got %q", group(c))
		}
	})
	t.Run("host", func(t *testing.T) {
		r, _ := v2().resolver(t)
		r.Host().Look()
	})
}

func TestOnline(t *testing.T) {
	r, root := v2().resolver(t)
	online := func() string {
		s, err := r.Online()
		if err != nil {
			return err.Error()
		}
		return string(s.Append(nil))
	}
	if got := online(); got != "0-7" {
		t.Error(got)
	}
	tree{"sys/devices/system/cpu/online": "0-3\n"}.write(t, root)
	time.Sleep(onlineEvery)
	if got := online(); got != "0-3" {
		t.Error(got)
	}
}

// TestAllocs holds what a read costs: a container that is known is found and read without allocating.
func TestAllocs(t *testing.T) {
	service := process(50, 1, "50", ownNS, "0::/web\n")
	for name, f := range map[string]tree{"v2": v2(web(), service), "v1": v1(web1(), process(50, 1, "50", ownNS, "3:memory:/web\n"))} {
		r, _ := f.resolver(t)
		c, two := r.Of(120), *setOf(t, "0-1")
		for what, f := range map[string]func(){
			"Of, container": func() { r.Of(120) },
			"Of, host":      func() { r.Of(50) },
			"Of, gone":      func() { r.Of(999) },
			"Memory":        func() { c.Memory() },
			"CPUs":          func() { c.CPUs() },
			"LockTimes":     func() { c.clock.at = 0; c.LockTimes(&two); c.UnlockTimes() },
			"Age":           func() { c.Age() },
			"Look":          func() { c.Look() },
			"Alive":         func() { c.Alive() },
			"Online":        func() { r.Online() },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 && !raceEnabled {
				t.Errorf("%s: %s: %v allocations", name, what, n)
			}
		}
	}
}

// TestResolveConcurrently has the containers come, move and go while many ask for them.
func TestResolveConcurrently(t *testing.T) {
	r, root := v2(web(), process(50, 1, "50", ownNS, "0::/a.service\n")).resolver(t)
	stop := make(chan struct{})
	var askers, changer sync.WaitGroup
	changer.Go(func() {
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			tree{"proc/100/stat": statOf(100, "x", 90, 400000+i/4), "proc/100/cgroup": fmt.Sprintf("0::/web%d\n", i%3),
				"proc/50/cgroup": fmt.Sprintf("0::/a%d.service\n", i%50)}.write(t, root)
			r.Sweep(func(c *Container) {
				if c == r.Host() {
					t.Error("the host was swept away")
				}
			})
		}
	})
	for i := range 8 {
		askers.Go(func() {
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
				c := r.Of([]uint32{120, 100, 50, 999}[i%4])
				c.Look()
				if i%4 < 2 && c.ns != webNS && c.ns != 0 || i%4 >= 2 && !c.IsHost() {
					t.Errorf("pid %d is in namespace %d", i, c.ns)
				}
				for _, read := range []func() error{
					func() error { _, err := c.Memory(); return err },
					func() error { _, err := c.CPUs(); return err },
				} {
					if err := read(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	askers.Wait()
	close(stop)
	changer.Wait()
}

func BenchmarkResolve(b *testing.B) {
	r, _ := v2(web(), process(50, 1, "50", ownNS, "0::/a.service\n")).resolver(b)
	for name, pid := range map[string]uint32{"container": 120, "host": 50} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Of(pid)
			}
		})
	}
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		var buf kfile.Buffer
		for b.Loop() {
			if c := r.discover(&buf, 120, webNS); c == nil {
				b.Fatal("not found")
			} else {
				r.forget(c)
			}
		}
	})
}

func BenchmarkContainer(b *testing.B) {
	for _, host := range []struct {
		name string
		tree tree
	}{{"v1", v1(web1(), tree{requests1: "254:0 Read 8\nTotal 8\n"})}, {"v2", v2(web(), tree{stat2: "254:0 rbytes=4096 rios=8\n"})}} {
		r, _ := host.tree.resolver(b)
		var devices []DeviceIO
		c, two := r.Of(120), *setOf(b, "0-1")
		for _, read := range []struct {
			name string
			f    func() error
		}{
			{"Memory", func() error { _, err := c.Memory(); return err }},
			{"CPUs", func() error { _, err := c.CPUs(); return err }},
			{"IO", func() (err error) { devices, err = c.IO(devices); return err }},
			{"LockTimes", func() error { c.clock.at = 0; _, err := c.LockTimes(&two); c.UnlockTimes(); return err }},
		} {
			b.Run(host.name+"/"+read.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := read.f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
