package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["young"] = young }

// nursery is a cgroup in which others are made, and its directory in the hierarchy of the memory controller.
func nursery(t *testing.T) (dir string) {
	t.Helper()
	group := newGroup(t, memoryLimit(1<<40))
	dir, v2 := groupDir(t, group, "memory")
	if v2 {
		writeFile(t, filepath.Join(dir, "cgroup.subtree_control"), "+memory")
	}
	return dir
}

// limitIn is the file in a nursery's child that holds its limit.
func limitIn(t *testing.T, dir string) string {
	t.Helper()
	for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	t.Fatalf("%s has no limit of memory", dir)
	return ""
}

// Runtimes write the limits after they have bound the views, and execute the first command a few milliseconds later: it sees its limit, every time.
func TestOwnViewOfTheYoung(t *testing.T) {
	needRoot(t)
	d := serve(t)
	groups := nursery(t)
	target := filepath.Join(tempDir(t), "bound")
	writeFile(t, target, "")
	for _, how := range []string{"look", "bind", "read"} {
		t.Run(how, func(t *testing.T) {
			want, late := rounds(50, 10), 0
			for n := 0; n < want+late; n++ {
				if late > want {
					t.Fatalf("%d of %d containers were not young any more when they read", late, n)
				}
				kb := 100<<10 + n*4
				total, age := firstRead(t, d, filepath.Join(groups, fmt.Sprintf("%s-%d", how, n)), kb, asRole("young", d.views, how, target))
				if total == strconv.Itoa(kb) {
					continue
				}
				if age > 0.98 {
					late++
					continue
				}
				t.Errorf("container %d, %.2f s old, sees %s kB; its limit is %d", n, age, total, kb)
			}
		})
	}
}

// firstRead starts a container without a limit in a new group, lets it look, writes the limit, and gives the MemTotal that it then reads, and its age.
func firstRead(t *testing.T, d *daemon, group string, kb int, role []string) (total string, age float64) {
	t.Helper()
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer removeGroup(t, group)
	c := exec.Command(role[0], role[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	log := &logBuffer{}
	c.Stderr = log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	writeFile(t, filepath.Join(group, "cgroup.procs"), strconv.Itoa(c.Process.Pid))
	fmt.Fprintln(in, "you are in your cgroup")
	if !lines.Scan() {
		t.Fatalf("the container has ended: %s", log)
	}
	if looked := lines.Text(); looked == strconv.Itoa(kb) {
		t.Fatal("it saw the limit before there was one")
	}
	writeFile(t, limitIn(t, group), strconv.Itoa(kb<<10))
	fmt.Fprintln(in, "go")
	if !lines.Scan() {
		t.Fatalf("the container has ended: %s", log)
	}
	if _, err := fmt.Sscan(lines.Text(), &total, &age); err != nil {
		t.Fatalf("%q: %v", lines.Text(), err)
	}
	return total, age
}

// young is a container that has its view prepared by its runtime before it has a limit.
func young(args []string) error {
	path, how, target := filepath.Join(args[0], "self/proc/meminfo"), args[1], args[2]
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	saw := "nothing"
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < 100 {
		return fmt.Errorf("the size is %d", info.Size())
	}
	switch how {
	case "bind": // as runc does
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(path, target, "", unix.MS_BIND, ""),
			unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")); err != nil {
			return err
		}
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil {
			return err
		}
		path = target
	case "read":
		if saw, err = memTotalIn(path); err != nil {
			return err
		}
	}
	fmt.Println(saw)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	total, err := memTotalIn(path)
	if err != nil {
		return err
	}
	up, err := uptimeOf(filepath.Join(args[0], "self/proc/uptime"))
	fmt.Println(total, up)
	return err
}

func memTotalIn(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	found := memTotal.FindStringSubmatch(string(text))
	if found == nil {
		return "", fmt.Errorf("no MemTotal in %q", text)
	}
	return found[1], nil
}

// A container that is stopped and started again under the same name is a new one: its age, its limit; and it has the name that people know.
func TestOwnViewAfterARestart(t *testing.T) {
	needRoot(t)
	d := serve(t)
	name := uniqueName()
	script := "cat /proc/uptime; grep MemTotal /proc/meminfo; readlink " + d.views + "/self; read wait || :"
	for n := range rounds(8, 4) {
		kb := 200<<10 + n*64
		if n%2 == 1 { // sweeping and forgetting may be over or not
			time.Sleep(time.Duration(n) * 100 * time.Millisecond)
		}
		begin := time.Now()
		c := exec.Command(binary, d.runArgs([]string{"--name", name, "--memory", fmt.Sprintf("%dk", kb)}, "sh", "-c", script)...)
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := &logBuffer{}
		c.Stdout, c.Stderr = out, out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		poll(t, 20*time.Second, "the container has looked at itself", func() bool { return strings.Count(out.String(), "\n") >= 3 })
		got := strings.Split(out.String(), "\n")
		beganAfter(t, got[0], begin)
		if total := totalOf(t, got[1]); total != strconv.Itoa(kb) {
			t.Errorf("start %d: %s kB; the limit is %d", n, total, kb)
		}
		if got[2] != "ct/"+name {
			t.Errorf("start %d: its own view is at %s", n, got[2])
		}
		if names := namesIn(t, filepath.Join(d.views, "ct")); !slices.Equal(names, []string{name}) {
			t.Errorf("start %d: ct has %v", n, names)
		}
		if total := totalOf(t, command(t, "cat", filepath.Join(d.views, "ct", name, "proc/meminfo"))); total != strconv.Itoa(kb) {
			t.Errorf("start %d: the host sees %s kB there; the limit is %d", n, total, kb)
		}
		in.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("start %d: %v: %s", n, err, out)
		}
	}
}
