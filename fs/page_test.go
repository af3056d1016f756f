package fs

import (
	"strings"
	"testing"

	"lensfs/cgroupview"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestPageNeverCutsATextOff goes through every moment at which a kernel may combine a size it was told with a page it was given, over texts whose
// length changes: the reader must see one of the texts and nothing behind it but newlines.
func TestPageNeverCutsATextOff(t *testing.T) {
	texts := []string{"0-1\n", "0\n", "0-15,17\n", "0\n", "3\n", "0-1\n"}
	valid := map[string]bool{}
	for _, s := range texts {
		valid[s] = true
	}
	p := &page{}
	now := time.Now()
	size := 0       // the kernel's
	var held []byte // a page that a reader has got hold of, maybe before the size changed
	for i, s := range texts {
		now = now.Add(20 * time.Millisecond)
		if !p.at.IsZero() && len(s) > p.size {
			size = len(s) // what NOTIFY_STORE does, before the text is published
			inspect(t, valid, held, size)
		}
		p.publish([]byte(s), now)
		before := held
		held = make([]byte, pageSize)
		p.read(held, 0)
		if size != 0 {
			inspect(t, valid, held, size) // READ before GETATTR's answer is seen
		}
		size = p.size
		if before != nil {
			inspect(t, valid, before, size) // the old page with the new size
		}
		inspect(t, valid, held, size)
		if p.size < len(s) {
			t.Fatalf("text %d: size %d of %q", i, p.size, s)
		}
	}
}

func inspect(t *testing.T, valid map[string]bool, page []byte, size int) {
	t.Helper()
	if page == nil {
		return
	}
	seen := string(page[:size])
	if text := strings.TrimRight(seen, "\n") + "\n"; !valid[text] {
		t.Errorf("a reader sees %q", seen)
	}
}

func TestPageSizeIsExactAgain(t *testing.T) {
	p := &page{}
	now := time.Now()
	p.publish([]byte("long text\n"), now)
	for _, c := range []struct {
		after time.Duration
		size  int
	}{
		{10 * time.Millisecond, 10},
		{time.Second, 10},
		{1500 * time.Millisecond, 10},
		{2600 * time.Millisecond, 6},
	} {
		p.publish([]byte("short\n"), now.Add(c.after))
		if p.size != c.size {
			t.Errorf("%v after a longer text: size %d, want %d", c.after, p.size, c.size)
		}
	}
}

func TestPageFillsWithNewlines(t *testing.T) {
	p := &page{}
	p.publish([]byte("abc\n"), time.Now())
	buf := make([]byte, 2*pageSize)
	if n := p.read(buf, 0); n != pageSize || string(buf[:4]) != "abc\n" || strings.Trim(string(buf[4:n]), "\n") != "" {
		t.Errorf("%d bytes", n)
	}
	if n := p.read(buf, pageSize); n != 0 {
		t.Errorf("%d bytes behind the page", n)
	}
	if n := p.read(buf, 1<<63); n != 0 {
		t.Errorf("%d bytes far behind the page", n)
	}
}

// TestLongerTextTellsTheKernelFirst: the size is stored where the new text ends, before any READ has it.
func TestLongerTextTellsTheKernelFirst(t *testing.T) {
	_, o, root := testServers(t)
	rec, err := o.records.of(o.render.of(testPid))
	if err != nil {
		t.Fatal(err)
	}
	online := o.tree.file(10)
	in := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node(rec, online)}}
	var out fuse.AttrOut
	o.GetAttr(in, &out)
	if out.Size != 2 {
		t.Fatalf("size %d of \"1\\n\"", out.Size)
	}
	writeFile(t, root, "sys/fs/cgroup/web/cpuset.cpus.effective", "0-1\n")
	time.Sleep(10 * time.Millisecond) // files read together have the same CPUs
	rec.pages.of(online).at = time.Now().Add(-time.Second)
	o.GetAttr(in, &out)
	told := o.notify.(*toldKernel)
	if out.Size != 4 || len(told.stored) != 1 || told.stored[0] != 3 {
		t.Errorf("size %d, stored at %v", out.Size, told.stored)
	}
}

// TestLongestList tries all sets of a few CPUs, and that of many that is said to be the longest.
func TestLongestList(t *testing.T) {
	for n := 1; n <= 14; n++ {
		longest := 0
		for bits := range 1 << n {
			var set cgroupview.CPUSet
			for cpu := range n {
				if bits>>cpu&1 == 1 {
					set.Add(cpu)
				}
			}
			longest = max(longest, len(set.Append(nil))+1)
		}
		if got := longestList(n); got != longest {
			t.Errorf("%d CPUs: %d, not %d", n, got, longest)
		}
	}
	var set cgroupview.CPUSet
	for cpu := range cgroupview.MaxCPUs {
		if cpu%3 != 0 {
			set.Add(cpu)
		}
	}
	if got, least := longestList(cgroupview.MaxCPUs), len(set.Append(nil))+1; got < least {
		t.Errorf("%d CPUs: %d, yet one has %d", cgroupview.MaxCPUs, got, least)
	}
	if a, b := longestList(1440), longestList(1460); a > pageSize || b <= pageSize {
		t.Errorf("1440 CPUs: %d bytes, 1460: %d", a, b)
	}
}

// TestTakeOverOfAPage: where a worker before has told the kernel a size, that one goes on for a while; a text that is longer has the file made longer
// than a page first, for the kernel may be waiting for us with the page locked.
func TestTakeOverOfAPage(t *testing.T) {
	_, o, _ := testServers(t)
	rec, err := o.records.of(o.render.of(testPid))
	if err != nil {
		t.Fatal(err)
	}
	online := o.tree.file(10)
	told := o.notify.(*toldKernel)
	in := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node(rec, online)}}
	read := &fuse.ReadIn{InHeader: in.InHeader}
	for _, c := range []struct {
		before, size uint32
		stored       int
	}{{0, 2, 0}, {2, 2, 0}, {9, 9, 0}, {1, pageSize + 1, 1}} {
		rec.pages, told.stored = slots[page]{}, nil // the next worker
		rec.kept.size(online).Store(c.before)
		var out fuse.AttrOut
		o.GetAttr(in, &out)
		if out.Size != uint64(c.size) || len(told.stored) != c.stored || c.stored > 0 && told.stored[0] != pageSize {
			t.Errorf("told %d before: size %d, want %d, stored at %v", c.before, out.Size, c.size, told.stored)
		}
		if now := rec.kept.size(online).Load(); now != c.size {
			t.Errorf("told %d before: %d is kept", c.before, now)
		}
		rec.pages = slots[page]{}
		rec.kept.size(online).Store(c.before)
		buf := make([]byte, pageSize)
		if n, code := o.Read(read, buf); n != pageSize || code != fuse.OK || string(buf[:3]) != "1\n\n" {
			t.Errorf("told %d before: a READ gives %d bytes, %v: %q", c.before, n, code, buf[:3])
		}
	}
	// What is read behind the page is answered at once: whoever asks may have what we wait for.
	p := rec.pages.of(online)
	p.mu.Lock()
	defer p.mu.Unlock()
	for off, want := range map[uint64]int{pageSize: pageSize, 2*pageSize - 1: 1, 2 * pageSize: 0, 1 << 63: 0} {
		read.Offset = off
		if n, code := o.Read(read, make([]byte, pageSize)); n != want || code != fuse.OK {
			t.Errorf("behind the page, at %d: %d bytes, %v; want %d", off, n, code, want)
		}
	}
}
