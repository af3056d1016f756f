package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lensfs/cgroupview"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// testReport is a worker's over the servers of a test.
func testReport(s *shared, o *own) Report {
	return (&Worker{tree: s.tree, render: s.render, own: o}).Report()
}

func (r Report) file(t *testing.T, path string) FileReport {
	t.Helper()
	i := slices.IndexFunc(r.Files, func(f FileReport) bool { return f.File == path })
	if i < 0 {
		t.Fatalf("%s is not reported", path)
	}
	return r.Files[i]
}

// Every request is counted, for its file and its container, and what is told of the container is what its cgroup says.
func TestReport(t *testing.T) {
	s, o, _ := testServers(t)
	buf := make([]byte, 8192)
	f := s.tree.file(4) // meminfo
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: f.number, Caller: fuse.Caller{Pid: testPid}}, Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}
	for _, in.Offset = range []uint64{0, 4000, 0} {
		if _, code := s.Read(in, buf); code != fuse.OK {
			t.Fatal(code)
		}
	}
	rec, err := o.records.of(s.render.of(testPid))
	if err != nil {
		t.Fatal(err)
	}
	attr := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node(rec, f)}}
	for range 100 {
		var out fuse.AttrOut
		if code := o.GetAttr(attr, &out); code != fuse.OK {
			t.Fatal(code)
		}
		if _, code := o.Read(&fuse.ReadIn{InHeader: attr.InHeader}, buf); code != fuse.OK {
			t.Fatal(code)
		}
	}
	cpu := &fuse.ReadIn{InHeader: caller(s.walk(t, "uevent").NodeId), Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}
	if _, code := s.Read(cpu, buf); code != fuse.OK {
		t.Fatal(code)
	}

	r := testReport(s, o)
	m := r.file(t, "proc/meminfo")
	if m.Reads != 103 || m.GetAttrs != 100 || m.Rendered < 1 || m.Kept != 203-m.Rendered || m.GetAttr.Timed != 100 || m.Read.Timed < 2+5 || m.Read.Timed > 2+60 {
		t.Errorf("meminfo: %+v", m)
	}
	if m.GetAttr.P50 <= 0 || m.GetAttr.P99 < m.GetAttr.P50 || m.GetAttr.Max < m.GetAttr.P99 || m.GetAttr.Max > time.Minute {
		t.Errorf("meminfo: %+v", m.GetAttr)
	}
	if u := r.file(t, "proc/uptime"); u != (FileReport{File: "proc/uptime"}) {
		t.Errorf("uptime, which nobody read: %+v", u)
	}
	if c := r.file(t, "sys/devices/system/cpu/…"); c.Reads != 1 || c.Rendered != 1 || c.Read.Timed != 1 {
		t.Errorf("what passes through: %+v", c)
	}
	if len(r.Containers) != 1 || r.LeftOut != 0 {
		t.Fatalf("%d containers, %d left out", len(r.Containers), r.LeftOut)
	}
	c := r.Containers[0]
	if c.Memory == nil || c.Limit == nil || c.CPU == nil || c.Quota != nil {
		t.Fatalf("%+v", c)
	}
	got := fmt.Sprint(c.Name, c.Number, c.Init, c.Alive, c.Age, *c.Memory, *c.Limit, c.CPUs, c.CPUCount, *c.CPU, c.Requests, c.Error)
	if want := fmt.Sprint("web", 1, testPid, true, 999.0, 1048576, 104857600, "1", 1, 1.0, 202, ""); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What fails is counted by reason, without bound on how often, and with one on how many reasons.
func TestReportFaults(t *testing.T) {
	s, o, root := testServers(t)
	writeFile(t, root, "sys/fs/cgroup/web/memory.current", "garbage\n")
	f := s.tree.file(4)
	for range 3 {
		snap, err := s.render.lock(s.render.of(testPid), f)
		if err != nil {
			t.Fatal(err)
		}
		snap.at = time.Time{} // a tick has passed
		snap.mu.Unlock()
	}
	e := testReport(s, o).Errors
	if len(e.Faults) != 1 || e.HostText != 1 || e.Stale != 2 {
		t.Fatalf("%+v", e)
	}
	if f := e.Faults[0]; f.Subject != "proc/meminfo" || f.Count != 3 || !strings.Contains(f.Text, "web/memory.current") || f.First.After(f.Last) {
		t.Errorf("%+v", f)
	}
	if c := testReport(s, o).Containers; len(c) != 1 || !strings.Contains(c[0].Error, "memory.current") || c[0].CPUs != "1" {
		t.Errorf("%+v", c)
	}
	for i := range 2 * maxFaults {
		s.render.faults.report(fmt.Sprint("subject ", i), errors.New("no"))
	}
	if e := testReport(s, o).Errors; len(e.Faults) != maxFaults || e.Others != maxFaults+1 {
		t.Errorf("%d kinds, %d others", len(e.Faults), e.Others)
	}
}

// However many containers there are, the report is bounded, and says how many it leaves out.
func TestReportIsBounded(t *testing.T) {
	s, o, _ := testServers(t)
	for range 5 {
		s.render.views.Store(new(cgroupview.Container), &view{container: s.render.of(testPid).container})
	}
	reports, left := s.render.containerReports(o, 2, time.Now().Add(time.Minute))
	if len(reports) != 2 || left != 4 {
		t.Errorf("%d reported, %d left out", len(reports), left)
	}
	if reports, left := s.render.containerReports(o, 100, time.Now().Add(-time.Second)); len(reports) != 0 || left != 6 {
		t.Errorf("there is no time: %d reported, %d left out", len(reports), left)
	}
}

// Who has to answer readers gets his turn between any two containers, also where Go has one processor only: the files of cgroups are read by system calls
// that do not give it away.
func TestReportLetsReadersThrough(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s, o, _ := testServers(t)
	const containers = 200
	for range containers - 1 {
		s.render.views.Store(new(cgroupview.Container), &view{container: s.render.of(testPid).container})
	}
	var done atomic.Bool
	go func() {
		testReport(s, o)
		done.Store(true)
	}()
	turns := 0
	for ; !done.Load(); turns++ {
		runtime.Gosched()
	}
	if turns < containers/2 { // not all: Go's collector may take one's place
		t.Errorf("%d turns while there was a report of %d containers", turns, containers)
	}
}

// Keys are never renamed: programs look for them.
func TestReportKeys(t *testing.T) {
	s, o, _ := testServers(t)
	s.render.of(testPid)
	s.render.faults.report("x", errors.New("no"))
	r := testReport(s, o)
	r.Containers[0].Error = "x"
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(keysOf("", decoded), "\n")
	const want = `containers[].age_seconds
containers[].alive
containers[].cpu_count
containers[].cpu_seconds
containers[].cpus
containers[].error
containers[].init
containers[].memory_bytes
containers[].memory_limit_bytes
containers[].name
containers[].number
containers[].quota_cpus
containers[].requests
containers_left_out
errors.faults[].count
errors.faults[].error
errors.faults[].first
errors.faults[].last
errors.faults[].subject
errors.faults[].text
errors.host_text
errors.other_faults
errors.panics
errors.refused
errors.resumed
errors.stale
errors.unresolved
errors.unsent
files[].file
files[].getattr_latency.max_ns
files[].getattr_latency.p50_ns
files[].getattr_latency.p99_ns
files[].getattr_latency.timed
files[].getattrs
files[].kept
files[].read_latency.max_ns
files[].read_latency.p50_ns
files[].read_latency.p99_ns
files[].read_latency.timed
files[].reads
files[].rendered
process.cpu_seconds
process.goroutines
process.peak_resident_bytes
unveiled`
	if got != want {
		t.Errorf("the keys are\n%s\nwant\n%s", got, want)
	}
}

// keysOf gives the paths of all keys, of the first element of each list.
func keysOf(at string, v any) (keys []string) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			keys = append(keys, keysOf(strings.TrimPrefix(at+"."+name, "."), value)...)
		}
	case []any:
		return keysOf(at+"[]", v[0])
	default:
		return []string{at}
	}
	slices.Sort(keys)
	return keys
}
