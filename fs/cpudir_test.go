package fs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lensfs/fs/conn"
	"lensfs/sysview"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// caller is a request's head: a process of testTree's container at a node.
func caller(node uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Pid: testPid}}
}

// look looks a name up on either mount.
func look(t *testing.T, fs conn.Handler, dir uint64, name string) *fuse.EntryOut {
	t.Helper()
	in, out := caller(dir), &fuse.EntryOut{}
	if code := fs.Lookup(&in, name, out); code != fuse.OK {
		t.Fatalf("%s: %v", name, code)
	}
	return out
}

// walk looks a path beneath the directory of CPUs up in the shared tree.
func (s *shared) walk(t *testing.T, file string) *fuse.EntryOut {
	t.Helper()
	out := &fuse.EntryOut{NodeId: cpuDirNumber}
	for name := range strings.SplitSeq(file, "/") {
		if out = look(t, s, out.NodeId, name); out.NodeId == 0 {
			t.Fatalf("%s: there is no %s", file, name)
		}
	}
	return out
}

func (s *shared) text(t *testing.T, node uint64) string {
	t.Helper()
	buf := make([]byte, 8192)
	n, code := s.Read(&fuse.ReadIn{InHeader: caller(node), Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}, buf)
	if code != fuse.OK {
		t.Fatalf("node %#x: %v", node, code)
	}
	return string(buf[:n])
}

// names lists a directory of either mount, asking anew for each entry.
func names(t *testing.T, fs conn.Handler, dir uint64) (names []string) {
	t.Helper()
	for off := uint64(0); ; off++ {
		buf := make([]byte, 280)
		out := fuse.NewDirEntryList(buf, off)
		if code := fs.ReadDir(&fuse.ReadIn{InHeader: caller(dir), Offset: off}, out); code != fuse.OK {
			t.Fatalf("directory %#x: %v", dir, code)
		}
		if out.Offset == off {
			return names
		}
		names = append(names, string(buf[24:24+binary.NativeEndian.Uint32(buf[16:])])) // struct fuse_dirent
	}
}

func TestSharedPassesThrough(t *testing.T) {
	s, _, root := testServers(t)
	for file, want := range map[string]string{
		"online": "1\n", "offline": "0\n", "possible": "0-1\n", "uevent": "", "cpu1/online": "1\n",
		"cpu0/topology/core_id": "0\n", "cpu1/topology/core_id": "7\n", "cpufreq/policy1/cur": "2400000\n",
	} {
		e := s.walk(t, file)
		if got := s.text(t, e.NodeId); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
		if literal := file == "online" || file == "offline"; literal != (e.NodeId < maxNumber) || !literal && !sysview.Has(e.NodeId) {
			t.Errorf("%s has number %#x", file, e.NodeId)
		}
	}
	var host unix.Stat_t
	if err := unix.Lstat(filepath.Join(root, cpuDirPath, "cpu1/online"), &host); err != nil {
		t.Fatal(err)
	}
	e := s.walk(t, "cpu1/online")
	if e.Mode != host.Mode || e.Attr.Ino != e.NodeId || e.Attr.Size != 2 || e.Attr.Mtime != uint64(host.Mtim.Sec) || e.EntryTimeout() != hostKept || e.AttrTimeout() != hostKept {
		t.Errorf("cpu1/online: %+v", e)
	}
	if e := look(t, s, cpuDirNumber, "nothing"); e.NodeId != 0 || e.EntryTimeout() != hostKept {
		t.Errorf("what does not exist: %+v", e)
	}
	var attr fuse.AttrOut
	if code := s.GetAttr(&fuse.GetAttrIn{InHeader: caller(cpuDirNumber)}, &attr); code != fuse.OK || attr.Nlink != 5 || attr.Ino != cpuDirNumber {
		t.Errorf("the directory: %v, %+v", code, attr.Attr) // cpu0, cpu1, cpufreq
	}
	gone := s.walk(t, "cpu1/topology/core_id").NodeId
	if err := os.RemoveAll(filepath.Join(root, cpuDirPath, "cpu1")); err != nil {
		t.Fatal(err)
	}
	if code := s.GetAttr(&fuse.GetAttrIn{InHeader: caller(gone)}, &attr); code != fuse.ENOENT {
		t.Errorf("a file that has gone: %v", code)
	}
	if _, code := s.Read(&fuse.ReadIn{InHeader: caller(gone), ReadFlags: fuseReadLockOwner}, make([]byte, 10)); code != fuse.ENOENT {
		t.Errorf("and read: %v", code)
	}
	if _, code := s.Read(&fuse.ReadIn{InHeader: caller(gone)}, make([]byte, 10)); code != fuse.EINVAL {
		t.Errorf("a READ that would be kept: %v", code)
	}
}

func TestSharedListsTheHosts(t *testing.T) {
	s, _, root := testServers(t)
	host, err := os.Open(filepath.Join(root, cpuDirPath))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	want, err := host.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Concat([]string{".", ".."}, want, []string{"offline"}) // which this host has not got
	if got := names(t, s, cpuDirNumber); !slices.Equal(got, want) {
		t.Errorf("listed: %v, want %v", got, want)
	}
	if got := names(t, s, s.walk(t, "cpu1/topology").NodeId); !slices.Equal(got, []string{".", "..", "core_id"}) {
		t.Errorf("cpu1/topology: %v", got)
	}
	if code := s.ReadDir(&fuse.ReadIn{InHeader: caller(s.walk(t, "uevent").NodeId)}, fuse.NewDirEntryList(make([]byte, 4096), 0)); code != fuse.ENOTDIR {
		t.Errorf("a file is listed: %v", code)
	}
}

func TestSharedLinks(t *testing.T) {
	s, _, root := testServers(t)
	if err := os.Symlink("../cpufreq/policy1", filepath.Join(root, cpuDirPath, "cpu1/cpufreq")); err != nil {
		t.Fatal(err)
	}
	e := s.walk(t, "cpu1/cpufreq")
	in := caller(e.NodeId)
	if target, code := s.Readlink(&in); string(target) != "../cpufreq/policy1" || code != fuse.OK || e.Mode != unix.S_IFLNK|0o777 {
		t.Errorf("mode %o, leads to %q, %v", e.Mode, target, code)
	}
	in.NodeId = 3
	if _, code := s.Readlink(&in); code == fuse.OK {
		t.Error("a file of /proc is a link")
	}
}

// A number of an earlier daemon means what it meant.
func TestSharedKnowsNumbersOfAnEarlierDaemon(t *testing.T) {
	s, _, root := testServers(t)
	n := s.walk(t, "cpu1/topology/core_id").NodeId
	var err error
	if s.render.cpus, err = (Views{Root: root}).openCPUs(); err != nil {
		t.Fatal(err)
	}
	if got := s.text(t, n); got != "7\n" {
		t.Errorf("read: %q", got)
	}
}
