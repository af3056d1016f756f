package conn

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// answers is a Handler with one file: node 2, called "file".
type answers struct {
	forgotten map[uint64]uint64
	stuck     chan struct{} // a READ of node 3 or 5 waits for it, one of node 6 closes it
	conn      *Conn         // to wait aside
	aside     atomic.Bool   // a READ of node 5 does
	now, most atomic.Int32  // how many READs of node 5 there are
}

const text = "one\ntwo\n"

func (a *answers) Lookup(_ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != "file" {
		return fuse.ENOENT
	}
	out.NodeId, out.Size = 2, uint64(len(text))
	return fuse.OK
}

func (a *answers) Forget(node, lookups uint64) { a.forgotten[node] += lookups }

func (a *answers) GetAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == 4 {
		panic("a bug")
	}
	out.Ino = in.NodeId
	return fuse.OK
}

func (a *answers) Readlink(*fuse.InHeader) ([]byte, fuse.Status) { return []byte("target"), fuse.OK }
func (a *answers) Open(*fuse.OpenIn, *fuse.OpenOut) fuse.Status  { return fuse.ENOSYS }
func (a *answers) Release(*fuse.ReleaseIn)                       {}
func (a *answers) OpenDir(*fuse.OpenIn) fuse.Status              { return fuse.OK }
func (a *answers) StatFs(out *fuse.StatfsOut)                    { out.Bsize = 512 }
func (a *answers) Read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	switch in.NodeId {
	case 3:
		<-a.stuck
	case 5:
		a.waitCounted()
	case 6:
		close(a.stuck)
	}
	return copy(buf, text[min(in.Offset, uint64(len(text))):]), fuse.OK
}

func (a *answers) waitCounted() {
	n := a.now.Add(1)
	defer a.now.Add(-1)
	for most := a.most.Load(); n > most && !a.most.CompareAndSwap(most, n); most = a.most.Load() {
	}
	wait := func() { <-a.stuck }
	if a.aside.Load() {
		a.conn.Aside(wait)
	} else {
		wait()
	}
}

func (a *answers) ReadDir(_ *fuse.ReadIn, entries *fuse.DirEntryList) fuse.Status {
	entries.AddDirEntry(fuse.DirEntry{Name: "file", Ino: 2, Mode: unix.S_IFREG})
	entries.AddDirEntry(fuse.DirEntry{Name: "eight888", Ino: 3, Mode: unix.S_IFDIR})
	return fuse.OK
}

// kernel is the other end of a connection: a socket that keeps messages apart, as /dev/fuse does.
type kernel struct {
	t       *testing.T
	fd      int
	conn    *Conn
	handler *answers
	stats   Stats
	served  chan struct{}
}

func connect(t *testing.T) *kernel {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k := &kernel{t: t, fd: fds[0], handler: &answers{forgotten: map[uint64]uint64{}, stuck: make(chan struct{})}, served: make(chan struct{})}
	unix.SetsockoptTimeval(k.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	k.ask(opInit, 0, fuse.InitIn{Major: 7, Minor: 45, MaxReadAhead: 1 << 17, Flags: ^uint32(0)})
	agreed, err := Initialize(fds[1])
	if err != nil || agreed.Suits() != nil {
		t.Fatal(agreed, err)
	}
	if k.conn, err = New(fds[1], testSlots(t), k.handler, &k.stats, false); err != nil {
		t.Fatal(err)
	}
	k.handler.conn = k.conn
	status, answer := k.answer()
	if init := (*fuse.InitOut)(unsafe.Pointer(&answer[0])); status != 0 || init.Major != 7 || init.Minor != 31 || init.MaxWrite != maxWrite || init.Flags != wanted {
		t.Fatalf("answer to INIT: %d, %+v", status, init)
	}
	go func() {
		k.conn.Serve()
		close(k.served)
	}()
	t.Cleanup(func() {
		unix.Close(k.fd)
		<-k.served
	})
	return k
}

// testSlots is memory for requests.
func testSlots(t *testing.T) *Slots {
	t.Helper()
	s, err := newSlots(make([]byte, SlotsBytes))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request; in is its struct, behind whose header the rest is appended.
func (k *kernel) ask(op uint32, node uint64, in any, rest ...byte) {
	k.t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, in); err != nil {
		k.t.Fatal(err)
	}
	message := append(b.Bytes(), rest...)
	h := (*fuse.InHeader)(unsafe.Pointer(&message[0]))
	h.Length, h.Opcode, h.Unique, h.NodeId = uint32(len(message)), op, 77, node
	if _, err := unix.Write(k.fd, message); err != nil {
		k.t.Fatal(err)
	}
}

// receive reads the next message and gives its length.
func (k *kernel) receive(buf []byte) int {
	k.t.Helper()
	n, err := unix.Read(k.fd, buf)
	for err == unix.EINTR { // Go's own signals end a read(2) that has a time limit
		n, err = unix.Read(k.fd, buf)
	}
	if err != nil || n < outHeaderBytes {
		k.t.Fatalf("answer of %d bytes, %v", n, err)
	}
	return n
}

// answer gives the status and what follows the header of the next message.
func (k *kernel) answer() (int32, []byte) {
	k.t.Helper()
	buf := make([]byte, 1<<17)
	n := k.receive(buf)
	h := (*fuse.OutHeader)(unsafe.Pointer(&buf[0]))
	if int(h.Length) != n || h.Unique != 77 && h.Unique != 0 {
		k.t.Fatalf("%+v on a message of %d bytes", h, n)
	}
	return h.Status, buf[outHeaderBytes:n]
}

func TestRequests(t *testing.T) {
	k := connect(t)
	none := fuse.InHeader{}
	for _, test := range []struct {
		name   string
		op     uint32
		node   uint64
		in     any
		rest   string
		status int32
		size   int
	}{
		{"lookup", opLookup, 1, none, "file\x00", 0, 128},
		{"lookup of another name", opLookup, 1, none, "other\x00", -int32(unix.ENOENT), 0},
		{"getattr", opGetattr, 2, fuse.GetAttrIn{}, "", 0, 104},
		{"readlink", opReadlink, 2, none, "", 0, len("target")},
		{"open", opOpen, 2, fuse.OpenIn{}, "", -int32(unix.ENOSYS), 0},
		{"read", opRead, 2, fuse.ReadIn{Size: 4096}, "", 0, len(text)},
		{"a part", opRead, 2, fuse.ReadIn{Size: 3}, "", 0, 3},
		{"read at the end", opRead, 2, fuse.ReadIn{Size: 4096, Offset: 1 << 62}, "", 0, 0},
		{"a huge read", opRead, 2, fuse.ReadIn{Size: 1<<32 - 1}, "", 0, len(text)},
		{"opendir", opOpendir, 1, fuse.OpenIn{}, "", 0, 16},
		{"readdir", opReaddir, 1, fuse.ReadIn{Size: 4096}, "", 0, 24 + 8 + 24 + 8},
		{"readdir with little room", opReaddir, 1, fuse.ReadIn{Size: 40}, "", 0, 32},
		{"releasedir", opReleasedir, 1, fuse.ReleaseIn{}, "", 0, 0},
		{"release", opRelease, 2, fuse.ReleaseIn{}, "", 0, 0},
		{"statfs", opStatfs, 1, none, "", 0, 80},
		{"what is not known", 4711, 1, none, "", -int32(unix.ENOSYS), 0},
		{"getxattr", 22, 1, none, "12345678security.capability\x00", -int32(unix.ENOSYS), 0},
		{"a bug", opGetattr, 4, fuse.GetAttrIn{}, "", -int32(unix.EIO), 0},
		{"one that is too short", opRead, 2, none, "", -int32(unix.EIO), 0},
	} {
		k.ask(test.op, test.node, test.in, []byte(test.rest)...)
		if status, answer := k.answer(); status != test.status || len(answer) != test.size {
			t.Errorf("%s: status %d, %d bytes; want %d, %d", test.name, status, len(answer), test.status, test.size)
		}
	}
	if n := k.stats.Panics.Load(); n != 2 {
		t.Errorf("%d panics counted", n)
	}
}

func TestForgets(t *testing.T) {
	k := connect(t)
	k.ask(opForget, 2, fuse.ForgetIn{Nlookup: 3})
	pairs := binary.NativeEndian.AppendUint64(nil, 2) // count, and nothing
	for _, n := range []uint64{2, 4, 9, 1} {
		pairs = binary.NativeEndian.AppendUint64(pairs, n)
	}
	k.ask(opBatchForget, 0, fuse.InHeader{}, pairs...)
	k.ask(opStatfs, 1, fuse.InHeader{}) // neither of them is answered
	if status, answer := k.answer(); status != 0 || len(answer) != 80 {
		t.Fatalf("status %d, %d bytes", status, len(answer))
	}
	unix.Shutdown(k.fd, unix.SHUT_WR)
	<-k.served
	if f := k.handler.forgotten; f[2] != 7 || f[9] != 1 {
		t.Errorf("forgotten: %v", f)
	}
}

func TestNotify(t *testing.T) {
	k := connect(t)
	if err := k.conn.InodeNotifyStoreCache(5, 99, []byte("x")); err != fuse.OK {
		t.Fatal(err)
	}
	code, message := k.answer()
	want := fuse.NotifyStoreOut{Nodeid: 5, Offset: 99, Size: 1}
	if got := *(*fuse.NotifyStoreOut)(unsafe.Pointer(&message[0])); code != 4 || got != want || string(message[24:]) != "x" {
		t.Errorf("code %d, %+v, %q", code, got, message[24:])
	}
	if err := k.conn.EntryNotify(1, "web"); err != fuse.OK {
		t.Fatal(err)
	}
	code, message = k.answer()
	if got := *(*fuse.NotifyInvalEntryOut)(unsafe.Pointer(&message[0])); code != 3 || got.Parent != 1 || got.NameLen != 3 || string(message[16:]) != "web\x00" {
		t.Errorf("code %d, %+v, %q", code, got, message[16:])
	}
	unix.Shutdown(k.fd, unix.SHUT_WR)
	<-k.served
	if err := k.conn.EntryNotify(1, "web"); err != fuse.ENODEV {
		t.Errorf("after the end: %v", err)
	}
}

// TestOldKernel is refused with words.
func TestOldKernel(t *testing.T) {
	k := &kernel{t: t}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k.fd = fds[0]
	defer unix.Close(k.fd)
	k.ask(opInit, 0, fuse.InitIn{Major: 7, Minor: 23})
	defer unix.Close(fds[1])
	if _, err := Initialize(fds[1]); err != errProtocol {
		t.Errorf("got %v", err)
	}
}

// FuzzHandle gives the kernel's side of the connection to chance.
func FuzzHandle(f *testing.F) {
	for op := range uint32(60) {
		b := make([]byte, 120)
		binary.NativeEndian.PutUint32(b[4:], op)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) < inHeaderBytes || len(message) > maxWrite {
			return // the kernel writes no less than a header
		}
		stuck := make(chan struct{})
		close(stuck)
		c := &Conn{handler: &answers{forgotten: map[uint64]uint64{}, stuck: stuck}, stats: &Stats{}}
		r := newRequest(slot{mem: make([]byte, slotBytes)})
		r.in = r.in[:copy(r.in, message)]
		began := time.Now()
		if size, _, _ := c.handle(r); size > MaxRead || outHeaderBytes+size > len(r.out) {
			t.Errorf("an answer of %d bytes", size)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %v", d)
		}
	})
}
