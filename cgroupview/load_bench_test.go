package cgroupview

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// benchContainers is a host with 1000 containers of 20 tasks each, and its clock.
func benchContainers(b *testing.B) (r *Resolver, root string, clock *time.Duration) {
	b.Helper()
	f := v2()
	const containers, each = 1000, 20
	for i := range containers {
		init, ns := 10000+i*each, uint64(4026540000+i)
		dir := fmt.Sprintf("sys/fs/cgroup/c%d/", i)
		maps.Copy(f, process(init, 90, fmt.Sprintf("%d\t1", init), ns, fmt.Sprintf("0::/c%d\n", i)))
		f[dir+"cpu.stat"] = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
		var list strings.Builder
		for j := range each {
			fmt.Fprintln(&list, init+j)
			f[fmt.Sprintf("proc/%d/task/%d/stat", init+j, init+j)] = statOf(init+j, "x", 90, 400000)
		}
		f[dir+"cgroup.threads"] = list.String()
	}
	r, root = f.resolver(b)
	now := r.boottime()
	r.boottime = func() time.Duration { return now }
	for i := range containers {
		r.Of(uint32(10000 + i*each))
	}
	return r, root, &now
}

// BenchmarkSampleLoads is a round of samples of 1000 containers: idle, and with all their 20 000 tasks looked at. The files are not those of a
// kernel: there a task's stat takes 3 to 5 µs, and a group's cpu.stat more than its reading here.
func BenchmarkSampleLoads(b *testing.B) {
	r, root, clock := benchContainers(b)
	round := func(b *testing.B) {
		b.ReportAllocs()
		containers := r.Containers(nil)
		for b.Loop() {
			*clock += LoadEvery
			for _, c := range containers {
				c.looked = *clock // where its group is costs a read a minute, and is not looked at here
			}
			r.SampleLoads()
		}
	}
	b.Run("idle", round)
	for i := range 1000 {
		tid := 10000 + 20*i
		tree{fmt.Sprintf("proc/%d/task/%d/stat", tid, tid): strings.Replace(statOf(tid, "x", 90, 400000), " S ", " R ", 1),
			fmt.Sprintf("sys/fs/cgroup/c%d/cpu.stat", i): "usage_usec 1\n"}.write(b, root)
	}
	b.Run("busy", round)
}
