package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPackage does to a machine with LXCFS, whose containers run and read, what its operator will: install lensfs, upgrade it, remove it, go back.
func TestPackage(t *testing.T) {
	h := lxcfsHost(t)
	first, second := packaged(t, "lensfs_*1_amd64.deb"), packaged(t, "lensfs_*2_amd64.deb")
	old := h.container(300 << 10)
	lxcfs, theirs := h.mainPid(lxcfsUnit), device(t, os.Getpid(), lxcTree)
	h.comesFrom(old, theirs)
	oldReader := h.reader(old, 300<<10)
	if out := command(t, "apt-get", "--simulate", "install", first); !strings.Contains(out, "Inst lensfs") || strings.Contains(out, "Remv incus") || strings.Contains(out, "Remv lxc ") {
		t.Errorf("apt would not install it, or remove what needs LXCFS:\n%s", out)
	}

	dpkgQuiet(t, "-i", first)
	h.active(lensfsUnit, lxcfsUnit)
	if out, _ := tryCommand("dpkg-query", "-W", "-f", "${db:Status-Status}", "lxcfs"); out == "installed" {
		t.Error("lxcfs is still installed")
	}
	if h.version() != "first" {
		t.Errorf("version %q serves", h.version())
	}
	ours := device(t, os.Getpid(), h.d.views)
	if ours == "" || device(t, os.Getpid(), lxcTree) == theirs {
		t.Fatalf("the service's mounts are not on the host: %q on %s, %q on %s", ours, h.d.views, device(t, os.Getpid(), lxcTree), lxcTree)
	}
	young := h.container(400 << 10)
	h.comesFrom(young, ours)
	h.comesFrom(old, theirs)
	h.confined()

	youngReader := h.reader(young, 400<<10)
	keeper := h.mainPid(lensfsUnit)
	h.d.underLoad(2, loadPlan{Threads: 1, Pace: 20 * time.Millisecond}, func() { dpkgQuiet(t, "-i", second) })
	youngReader.end("lensfs upgraded")
	if h.version() != "second" {
		t.Errorf("version %q serves after the upgrade", h.version())
	}
	if now := h.mainPid(lensfsUnit); now != keeper {
		t.Errorf("the keeper is %d, and was %d", now, keeper)
	}

	if h.mainPid(lxcfsUnit) != lxcfs {
		t.Errorf("LXCFS, process %d, has ended while a container reads its files", lxcfs)
	}
	oldReader.end("LXCFS replaced by lensfs")
	old.stop()
	poll(t, time.Minute, "LXCFS ends with its last container", func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", lxcfs))
		return strings.TrimSpace(string(comm)) != "lxcfs"
	})
	h.active(lensfsUnit, lxcfsUnit)
	if device(t, os.Getpid(), h.d.views) != ours || mountedOn(t, lxcTree) == "" {
		t.Error("the end of LXCFS has taken mounts of lensfs with it")
	}

	youngReader = h.reader(young, 400<<10)
	worker := h.d.worker()
	dpkgQuiet(t, "-r", "--force-depends", "lensfs")
	time.Sleep(time.Second)
	youngReader.end("lensfs removed")
	if now := h.d.worker(); now != worker {
		t.Errorf("worker %d serves what the removed package left, not %d", now, worker)
	}

	dpkgQuiet(t, "-i", second) // and the new keeper takes over
	h.active(lensfsUnit, lxcfsUnit)
	if now := device(t, os.Getpid(), h.d.views); now != ours {
		t.Errorf("installed again, lensfs serves %s and not %s", now, ours)
	}
	young.stop()
	dpkgQuiet(t, "-r", "--force-depends", "lensfs")
	for _, dir := range []string{h.d.tree, h.d.views} {
		if mountedOn(t, dir) != "" {
			t.Errorf("no container used it, and lensfs has left a mount on %s", dir)
		}
	}
	if left := h.d.workers(); len(left) > 0 {
		t.Errorf("no container used it, and lensfs has left worker %v", left)
	}

	dpkgQuiet(t, "-i", second) // and LXCFS back while a container runs
	young = h.container(500 << 10)
	youngReader = h.reader(young, 500<<10)
	ours = device(t, os.Getpid(), h.d.views)
	dpkgQuiet(t, "-r", "--force-depends", "lensfs")
	h.restore()
	h.startLXCFS()
	theirs = device(t, os.Getpid(), lxcTree)
	h.comesFrom(h.container(350<<10), theirs)
	h.comesFrom(young, ours)
	youngReader.end("lensfs replaced by LXCFS")
	young.stop()
}

// confined checks what the units say, and that the service is as little exposed as we claim.
func (h *host) confined() {
	h.t.Helper()
	// Without manual pages: there is no man in the virtual machine to ask.
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", lensfsUnit, lxcfsUnit).CombinedOutput(); err != nil || strings.Contains(string(out), "lensfs") {
		h.t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--threshold="+exposure(h.t), lensfsUnit).CombinedOutput(); err != nil {
		h.t.Errorf("the service is more exposed than docs/operations.md says: %v\n%s", err, out)
	}
	if log := command(h.t, "journalctl", "--no-pager", "-u", lensfsUnit); strings.Contains(log, "not permitted") || strings.Contains(log, "not implemented") || strings.Contains(log, "WARN") {
		h.t.Errorf("the service wants to do what it may not:\n%s", log)
	}
	for _, pid := range []int{h.mainPid(lensfsUnit), h.d.worker()} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			h.t.Fatal(err)
		}
		for _, want := range []string{"CapEff:\t0000000000a80004\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(text), want) {
				h.t.Errorf("process %d is not confined by %q:\n%s", pid, want, text)
			}
		}
	}
}

// dpkgQuiet runs dpkg and gives what it said, for a test that has failed.
func dpkgQuiet(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("dpkg", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("dpkg %s:\n%s", strings.Join(args, " "), &out)
	if err != nil {
		t.Fatalf("dpkg %s: %v", strings.Join(args, " "), err)
	}
}

// exposure is what the documentation that comes with the package says of the unit.
func exposure(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/usr/share/doc/lensfs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("`systemd-analyze security` gives it ([0-9]+)\\.([0-9])").FindStringSubmatch(string(text))
	if found == nil {
		t.Fatal("operations.md does not say how exposed the service is")
	}
	return found[1] + found[2] // tenths
}
