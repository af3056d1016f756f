package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	together = 8                // containers at a time: more would only wait for each other
	loaded   = 20 * time.Second // four of the looks that load averages are made of
)

// Fields that differ must be explained by a row of docs/differences.md. LENSFS_SEED chooses other containers, LENSFS_CONTAINERS how many, and LXCFS
// the program to compare with.
func TestDifferential(t *testing.T) {
	needRoot(t)
	program := os.Getenv("LXCFS")
	if program == "" {
		program = "lxcfs"
	}
	needCommand(t, program)
	seed, count := uint64(time.Now().UnixNano()), 6
	if testing.Short() { // in the virtual machine
		count = 4
	}
	if text := os.Getenv("LENSFS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("LENSFS_CONTAINERS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil || count < 1 {
			t.Fatalf("LENSFS_CONTAINERS=%s", text)
		}
	}
	t.Logf("LENSFS_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	table, err := knownDifferences()
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t)
	x := &comparison{
		version: lxcfsVersion(t, program),
		trees:   map[string]string{"no cfs": startLXCFS(t, program), "cfs": startLXCFS(t, program, "--enable-cfs"), "lensfs": d.tree},
		host:    hostProc(t),
		table:   table,
	}
	for count > 0 {
		var group []*compared
		for range min(count, together) {
			group = append(group, x.start(d, random))
			count--
		}
		time.Sleep(time.Until(group[len(group)-1].began.Add(loaded)))
		for _, how := range []string{"no cfs", "cfs"} {
			for _, c := range group { // all at a time: those that wait for their turn would slow down the one that reads
				c.say("%s", how)
			}
			for _, c := range group {
				x.check(c, how)
			}
		}
		for _, c := range group {
			c.end()
		}
	}
	for _, row := range table {
		if !row.used {
			t.Logf("not seen this time: %s", row)
		}
	}
}

// comparison is what all containers have in common.
type comparison struct {
	version string            // LXCFS's
	trees   map[string]string // LXCFS's by how it was started, and "lensfs"
	host    string            // the kernel's /proc
	table   []*difference
}

// hostProc mounts a /proc over whose files nothing is mounted in a container either.
func hostProc(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := unix.Mount("proc", dir, "proc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// lxcfsVersion gives the condition that the table knows it by, as in "5" for 5.0.3.
func lxcfsVersion(t *testing.T, program string) string {
	t.Helper()
	out, _ := exec.Command(program, "--version").CombinedOutput() // 5.0.3 writes it to its standard error
	major, _, _ := strings.Cut(strings.Trim(strings.TrimSpace(string(out)), `"`), ".")
	if major == "" {
		t.Fatal("LXCFS does not tell its version")
	}
	return major
}

// startLXCFS mounts one on a directory of its own, and ends it with the test.
func startLXCFS(t *testing.T, program string, flags ...string) string {
	t.Helper()
	tree, _ := startLXCFSProcess(t, program, flags...)
	return tree
}

func startLXCFSProcess(t *testing.T, program string, flags ...string) (string, *os.Process) {
	t.Helper()
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(program, "-h").CombinedOutput(); strings.Contains(string(out), "--runtime-dir") { // since 6.0.1
		flags = append(flags, "--runtime-dir="+dir)
	}
	cmd := exec.Command(program, append(flags, "-f", "-l", "-p", filepath.Join(dir, "pid"), tree)...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience(5*time.Second), func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		for mountedOn(t, tree) != "" {
			if err := unix.Unmount(tree, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
		}
	})
	poll(t, 20*time.Second, "LXCFS is mounted", func() bool { return mountedOn(t, tree) != "" })
	return tree, cmd.Process
}
