package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func init() {
	roles["hammer"] = hammer
	roles["killer"] = killer
}

// Readers that are killed in the middle of a read leave nothing stuck, and not a line in the log.
func TestReadersKilled(t *testing.T) {
	needRoot(t)
	d := serve(t)
	before := d.log.String()
	for _, root := range []string{"/", d.tree} {
		d.run([]string{"--memory", "256M", "--cpus", "1"}, asRole("killer", filepath.Join(root, "proc/meminfo"), "2s")...)
	}
	d.alive()
	if got := d.log.String(); got != before {
		t.Errorf("the log has grown:\n%s", got)
	}
}

// hammer reads a file in four threads until it is killed.
func hammer(args []string) error {
	for range 4 {
		go func() {
			for {
				if _, err := os.ReadFile(args[0]); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
		}()
	}
	if _, err := os.ReadFile(args[0]); err != nil {
		return err
	}
	fmt.Println("reading")
	select {}
}

// killer starts readers and kills each a moment after it has begun to read.
func killer(args []string) error {
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	begin := time.Now()
	for range 3 {
		all.Go(func() {
			for n := 0; n < enough || time.Since(begin) < limit; n++ {
				if err := killOne(args[0]); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func killOne(path string) error {
	line := asRole("hammer", path)
	c := exec.Command(line[0], line[1:]...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return fmt.Errorf("the reader does not read: %w", errors.Join(err, c.Process.Kill()))
	}
	time.Sleep(rand.N(5 * time.Millisecond)) // any moment will do
	if err := c.Process.Kill(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		c.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(40 * time.Second):
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		return fmt.Errorf("a killed reader does not end:\n%s", text)
	}
}
