package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["compare"] = compareTrees }

// compareTrees loads the container, and reads LXCFS's tree and ours whenever it is told which of LXCFS's.
func compareTrees(args []string) error {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(os.Getpid())
	in.Scan() // when the group is right
	var dirs map[string]string
	if err := json.Unmarshal(in.Bytes(), &dirs); err != nil {
		return err
	}
	for _, how := range []string{"no cfs", "cfs", "lensfs"} { // from now on it is looked at for its load
		if _, err := os.ReadFile(filepath.Join(dirs[how], "proc/loadavg")); err != nil {
			return err
		}
	}
	tries, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	held, err := takeUp(args)
	if err != nil {
		return err
	}
	defer held()
	fmt.Println("loaded")
	for n := 0; in.Scan(); n++ {
		dirs["lxcfs"] = dirs[in.Text()]
		var rounds []round
		listed := readRound(dirs, comparedDirs)
		for range tries {
			r := readRound(dirs, comparedFiles)
			for i := range r { // to list them is half of the work, and they do not change
				maps.Copy(r[i], listed[i])
			}
			rounds = append(rounds, r)
			fmt.Println("round") // however slow the machine, it is seen to go on
			time.Sleep(15 * time.Millisecond)
		}
		text, err := json.Marshal(rounds)
		path := filepath.Join(args[3], strconv.Itoa(n))
		if err := errors.Join(err, os.WriteFile(path, text, 0o644)); err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

func readRound(dirs map[string]string, names []string) round {
	r := round{{}, {}, {}}
	readBeside := func(into texts, name string) {
		for _, extra := range beside[name] {
			if dir, file, _ := strings.Cut(extra, "/"); extra == "tasks" {
				into[extra] = strconv.Itoa(threads())
			} else if dirs[dir] != "" {
				into[extra] = readCompared(filepath.Join(dirs[dir], file))
			}
		}
	}
	for _, name := range names {
		readBeside(r[0], name)
		for i, tree := range []string{"lxcfs", "lensfs", "lxcfs"} {
			r[i][name] = readCompared(filepath.Join(dirs[tree], name))
		}
		readBeside(r[2], name)
	}
	return r
}

// threads counts those of the container.
func threads() int {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	return len(tasks)
}

// takeUp uses memory, half of it locked, and as much of tmpfs, writes a file, and has some processes that are always running, but leave the CPU to the one that reads. They are shells: a
// thread of Go's runtime that wakes for a moment counts as running for as long as a quota holds it up.
func takeUp(args []string) (release func(), err error) {
	var n [3]int
	for i := range n {
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return nil, err
		}
	}
	anonymous, err := unix.Mmap(-1, 0, (n[0]+1)<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	unix.Madvise(anonymous, unix.MADV_HUGEPAGE) // not on every kernel
	if err := unix.Mlock(anonymous[:len(anonymous)/2]); err != nil {
		return nil, err
	}
	for i := 0; i < len(anonymous); i += 4096 {
		anonymous[i] = 1
	}
	tmpfs, err := unix.MemfdCreate("compared", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if _, err := unix.Write(tmpfs, anonymous); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(args[3], "file"), make([]byte, n[1]<<20), 0o644); err != nil {
		return nil, err
	}
	var spinners []*exec.Cmd
	release = func() {
		for _, c := range spinners {
			c.Process.Kill()
			c.Wait()
		}
		unix.Munmap(anonymous)
		unix.Close(tmpfs)
	}
	for range n[2] {
		c := exec.Command("nice", "-n", "19", "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			release()
			return nil, err
		}
		spinners = append(spinners, c)
	}
	return release, nil
}
