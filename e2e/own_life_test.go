package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemonUse is what a daemon has in hand.
type daemonUse struct{ files, kb, table int }

func (d *daemon) use() daemonUse {
	d.t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.worker()))
	if err != nil {
		d.t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.worker()))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rss)[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return daemonUse{len(files), kb, len(d.tableFile())}
}

// tableFile is the file in which the daemon keeps which container has which number.
func (d *daemon) tableFile() []byte {
	d.t.Helper()
	paths, _ := filepath.Glob(filepath.Join(d.dir, "lensfs.state", "*.table"))
	if len(paths) != 1 {
		d.t.Fatalf("tables: %q", paths)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// What fs/table.go says of the file: it grows by tableChunk slots at a time.
const tableHeader, tableSlot, tableChunk = 4096, 448, 64

// inTable counts the containers in the table.
func (d *daemon) inTable() int {
	d.t.Helper()
	n := 0
	for slot := range slices.Chunk(d.tableFile()[tableHeader:], tableSlot) {
		if !bytes.Equal(slot[:8], make([]byte, 8)) {
			n++
		}
	}
	return n
}

// swept waits until the daemon has forgotten all containers that have ended, and others there are none.
func (d *daemon) swept() {
	d.t.Helper()
	poll(d.t, 30*time.Second, "the daemon has forgotten all containers", func() bool {
		return d.inTable() == 0 && len(namesIn(d.t, filepath.Join(d.views, "ct"))) == 0
	})
}

// sweep is twice as long as an ended container may be remembered.
const sweep = 10 * time.Second

// births makes containers, several at a time: a cgroup with a limit, a pid namespace, and one process in it that reads its own view once.
type births struct {
	t      *testing.T
	d      *daemon
	groups string
	begun  time.Time
	at     []time.Duration // when each was born; guarded by mu
	mu     sync.Mutex
	number atomic.Int64
}

func (b *births) make(count int) {
	var workers sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(count))
	for range 8 {
		workers.Go(func() {
			for left.Add(-1) >= 0 && !b.t.Failed() {
				if err := b.one(); err != nil {
					b.t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	if b.t.Failed() {
		b.t.FailNow()
	}
}

func (b *births) one() error {
	n := b.number.Add(1)
	kb := 100<<10 + n*4
	dir := filepath.Join(b.groups, fmt.Sprintf("c%d", n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	limit := filepath.Join(dir, "memory.limit_in_bytes")
	if _, err := os.Stat(limit); err != nil {
		limit = filepath.Join(dir, "memory.max")
	}
	if err := os.WriteFile(limit, []byte(strconv.FormatInt(kb<<10, 10)), 0); err != nil {
		return err
	}
	b.mu.Lock()
	b.at = append(b.at, time.Since(b.begun))
	b.mu.Unlock()
	c := exec.Command("/bin/sh", "-c", `echo 0 >"$1" && exec cat "$2"`, "sh", filepath.Join(dir, "cgroup.procs"), filepath.Join(b.d.views, "self/proc/meminfo"))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	text, err := c.Output()
	if err != nil {
		return fmt.Errorf("container %d: %w", n, err)
	}
	if found := memTotal.FindSubmatch(text); found == nil || string(found[1]) != strconv.FormatInt(kb, 10) {
		return fmt.Errorf("container %d sees %q; its limit is %d kB", n, found, kb)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := unix.Rmdir(dir); err != unix.EBUSY || time.Now().After(deadline) {
			return err
		}
	}
}

// most is how many containers were born within any time as long as this.
func (b *births) most(span time.Duration) int {
	most, first := 0, 0
	slices.Sort(b.at)
	for i := range b.at {
		for b.at[i]-b.at[first] > span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// Containers that come and go by the thousand leave the daemon as it was: its table is as long as it was ever needed at once, which is what came within
// the time of a sweep; its descriptors are those that it had; its memory does not grow.
func TestOwnViewsComeAndGo(t *testing.T) {
	needRoot(t)
	d := servePlain(t, "GOGC=10") // its garbage is collected soon, and so not taken for what it keeps
	b := &births{t: t, d: d, groups: nursery(t), begun: time.Now()}
	few := rounds(500, 60)
	b.make(few)
	d.swept()
	before := d.use()
	begin := time.Now()
	count := rounds(10_000, 240)
	b.make(count)
	took := time.Since(begin)
	d.swept()
	b.make(few) // what the many have left is collected while there is work
	d.swept()
	after := d.use()
	slots, most := (after.table-tableHeader)/tableSlot, b.most(sweep)
	t.Logf("%d containers in %v; before %+v, after %+v; the table has %d slots, for up to %d containers in the time of a sweep", count, took.Round(time.Millisecond), before, after, slots, most)
	if after.files > before.files+4 {
		t.Errorf("descriptors: %d, and %d before", after.files, before.files)
	}
	if grown := after.kb - before.kb; grown > 10<<10 {
		t.Errorf("memory: %d kB, and %d before", after.kb, before.kb)
	}
	if slots > (most+tableChunk-1)/tableChunk*tableChunk {
		t.Errorf("the table has %d slots, but never more than %d containers were to be remembered", slots, most)
	}
	d.alive()
}

// A container costs the daemon one descriptor as long as it lives.
func TestOwnViewsTakeADescriptorEach(t *testing.T) {
	needRoot(t)
	d := serve(t)
	groups := nursery(t)
	warm := &births{t: t, d: d, groups: groups, begun: time.Now()}
	warm.make(10)
	d.swept()
	before := d.use()
	const living, others = 200, 16
	var all []*exec.Cmd
	defer func() {
		for _, c := range all {
			c.Process.Kill()
			c.Wait()
		}
		d.swept()
		if after := d.use(); after.files > before.files+4 {
			t.Errorf("descriptors: %d after, %d before", after.files, before.files)
		}
	}()
	for n := range living {
		dir := filepath.Join(groups, fmt.Sprintf("living%d", n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("/bin/sh", "-c", `echo 0 >"$1" && cat "$2" >/dev/null && echo up && exec sleep 300`, "sh", filepath.Join(dir, "cgroup.procs"), filepath.Join(d.views, "self/proc/meminfo"))
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
			t.Fatalf("container %d: %q, %v", n, line, err)
		}
		out.Close()
	}
	// A machine so slow that a container's first reads are a second apart has its cgroup files kept open, until nobody has read them for two sweeps.
	poll(t, 30*time.Second, "descriptors are one for each container", func() bool { return d.use().files <= before.files+living+others })
	t.Logf("%d containers: %+v, before %+v", living, d.use(), before)
	if n := d.inTable(); n != living {
		t.Errorf("%d in the table, of %d", n, living)
	}
	if names := namesIn(t, filepath.Join(d.views, "ct")); len(names) != living {
		t.Errorf("%d in ct, of %d", len(names), living)
	}
}
