package e2e

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["spend"] = spend }

// spend does what it is told by lines, so that a test can compare what it really used with what is shown: "burn 3s cpu|wall" answers with the CPU time that it
// took by its own clock, "read FILE" with the text in one quoted line, what "hold anon|file BYTES FILE" and "spin N" take stays taken, and "write|sync|fetch BYTES FILE"
// goes to the disk and nowhere else.
func spend([]string) error {
	var held [][]byte
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		switch f[0] {
		case "read":
			text, err := readView("/", f[1])
			if err != nil {
				return err
			}
			fmt.Printf("%q\n", text)
		case "burn":
			limit, err := time.ParseDuration(f[1])
			if err != nil {
				return err
			}
			clock := unix.CLOCK_PROCESS_CPUTIME_ID
			if f[2] == "wall" {
				clock = unix.CLOCK_MONOTONIC
			}
			begin, used := clockNow(clock), clockNow(unix.CLOCK_PROCESS_CPUTIME_ID)
			for clockNow(clock)-begin < limit {
				for i := range 200_000 {
					sink += i
				}
			}
			fmt.Println(int64(clockNow(unix.CLOCK_PROCESS_CPUTIME_ID) - used))
		case "spin":
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return err
			}
			runtime.GOMAXPROCS(n + 1) // not as many as there are CPUs: each is to be a task that runs
			for range n {
				go func() {
					runtime.LockOSThread()
					for n := 0; ; n++ {
					}
				}()
			}
			fmt.Println("spinning")
		case "hold":
			n, err := strconv.Atoi(f[2])
			if err != nil {
				return err
			}
			mem, err := takeMemory(f[1], n, f[3])
			if err != nil {
				return err
			}
			held = append(held, mem)
			fmt.Println("held", len(held))
		case "write", "sync", "fetch":
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return err
			}
			if err := useDisk(f[0], n, f[2]); err != nil {
				return err
			}
			fmt.Println("done")
		}
	}
	return nil
}

var sink int

func clockNow(clock int) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(clock), &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// takeMemory takes memory of a kind: anonymous, or by writing a file.
func takeMemory(kind string, bytes int, file string) ([]byte, error) {
	if kind != "anon" {
		f, err := os.Create(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		for block := make([]byte, 1<<20); bytes > 0; bytes -= len(block) {
			if _, err := f.Write(block); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
	return mem, nil
}

// useDisk moves whole MiB between a file and memory: "write" and "fetch" past the page cache, "sync" through it and then to the disk.
func useDisk(how string, bytes int, file string) error {
	flags := map[string]int{"write": unix.O_RDWR | unix.O_CREAT | unix.O_DIRECT, "sync": unix.O_RDWR | unix.O_CREAT, "fetch": unix.O_RDONLY | unix.O_DIRECT}
	fd, err := unix.Open(file, flags[how], 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	block, err := takeMemory("anon", 1<<20, "") // by itself on pages, as O_DIRECT wants it
	if err != nil {
		return err
	}
	defer unix.Munmap(block)
	move := unix.Pwrite
	if how == "fetch" {
		move = unix.Pread
	}
	for at := 0; at < bytes; at += len(block) {
		if n, err := move(fd, block, int64(at)); err != nil || n != len(block) {
			return fmt.Errorf("%s at %d of %s: %d, %v", how, at, file, n, err)
		}
	}
	if how == "sync" {
		return unix.Fdatasync(fd)
	}
	return nil
}

// spender is a container that plays it.
func (d *daemon) spender(flags ...string) *container {
	d.t.Helper()
	return d.container(flags, asRole("spend")...)
}

// read gives what the container sees in a file.
func (c *container) read(file string) string {
	c.t.Helper()
	text, err := strconv.Unquote(c.ask("read %s", file))
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// burn has it use CPU time, and gives how much it did by the process's own clock.
func (c *container) burn(limit time.Duration, clock string) float64 {
	c.t.Helper()
	ns, err := strconv.ParseInt(c.ask("burn %v %s", limit, clock), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return float64(ns) / 1e9
}
